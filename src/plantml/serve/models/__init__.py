"""Models that answer, and what they have answered."""
