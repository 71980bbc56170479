"""From photos to batches: decoded once, sampled, augmented."""
