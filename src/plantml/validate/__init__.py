"""Validation: the score of the artefact in service, by the very code that detection runs."""
