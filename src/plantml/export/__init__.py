"""Exports of a trained network to other formats, each verified before it is written."""
