"""Lossless speculation: what a draft proposes, what the target makes of it, and the random numbers of both."""
