"""Datasets: import, look, split, go back. Nothing here imports torch."""
