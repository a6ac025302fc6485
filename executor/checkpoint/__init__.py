"""Hugging Face checkpoints, read by byte range: what they hold, which bytes a unit of a model is, and reading these."""
