"""From what a caller names to the records that they may see."""
