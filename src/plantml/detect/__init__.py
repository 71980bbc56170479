"""Batch detection: one record per image, also for images that cannot be read. Nothing here imports torch."""
