"""Learn to find boxes, and the targets of each."""
