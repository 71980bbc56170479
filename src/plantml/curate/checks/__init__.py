"""Checks: one file per kind, each with functions from a subject to findings."""
