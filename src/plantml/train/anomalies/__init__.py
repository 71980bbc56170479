"""Learn what normal photos look like."""
