"""Validation of a model of anomalies."""
