"""Runs of configurations on which predictions are checked, each from the making of its models to its comparison."""
