"""Training: from a dataset version to a run and its bundle. The only part that knows Lightning."""
