"""Predicted and measured laid over each other, task by task: how wrong a prediction was, and which term made it so."""
