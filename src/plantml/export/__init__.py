"""Exports: the trained network in other forms, each proven equal before it is published."""
