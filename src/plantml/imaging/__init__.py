"""Decoding photos, and contact sheets."""

from plantml.imaging.decode import cut, decode, facts, full, look, read, read_picture, thumbnail
from plantml.imaging.fit import PAD, Fit, FitMode, Pixels, corners_of_crop
from plantml.imaging.formats import EXTENSIONS, MAX_PIXELS, SUFFIXES, ImageError
from plantml.imaging.header import Facts, Origin

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "PAD",
    "SUFFIXES",
    "Facts",
    "Fit",
    "FitMode",
    "ImageError",
    "Origin",
    "Pixels",
    "corners_of_crop",
    "cut",
    "decode",
    "facts",
    "full",
    "look",
    "read",
    "read_picture",
    "thumbnail",
]
