"""A trained model: its files and contract, what runs it, and the records of what it predicts."""
