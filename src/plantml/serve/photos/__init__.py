"""Photos that callers send: received, checked, contributed, reviewed."""
