"""Curation: find problems in a dataset and fix them."""
