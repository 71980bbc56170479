"""Batch detection: sources in, one record an image out, whatever happens. Nothing here imports torch."""
