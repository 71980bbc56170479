"""Checks: one file a kind, each a function from a subject to findings."""
