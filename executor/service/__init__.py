"""Requests served as they come, one job for all of them: what chat and server have in common."""
