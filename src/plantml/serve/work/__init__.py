"""Trainings that callers ask for, and the workers that do them."""
