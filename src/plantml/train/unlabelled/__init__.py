"""Learn from photos without labels."""
