"""Curation: what is wrong with a dataset, and putting it right."""
