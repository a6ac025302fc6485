"""Pairs of a target and a draft: the demo pair's training, and a generator of pairs of any size and agreement."""
