"""Score a model that finds boxes."""
