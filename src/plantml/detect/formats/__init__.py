"""Formats of records: a file for each; their table is in `plantml.detect.writers`.

A format is a function from a path, `OutputRow`s and the model's contract. It writes row by row, so that memory stays
flat.
"""
