"""Decoding photos, and contact sheets."""

from plantml.imaging.decode import Photo, cut, decode, facts, full, look, read, read_picture, thumbnail
from plantml.imaging.fit import PAD, Fit, FitMode, Pixels, corners_of_crop
from plantml.imaging.formats import EXTENSIONS, MAX_PIXELS, SUFFIXES, ImageError
from plantml.imaging.header import Facts, Origin
from plantml.imaging.tiling import Corners, Tiling

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "PAD",
    "SUFFIXES",
    "Corners",
    "Facts",
    "Fit",
    "FitMode",
    "ImageError",
    "Origin",
    "Photo",
    "Pixels",
    "Tiling",
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
