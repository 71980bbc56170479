"""The plan of a training, with the reason of each choice."""
