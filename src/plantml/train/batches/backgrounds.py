"""Other backgrounds for training photos, so that a model does not learn the table that the plants lay on."""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from plantml.imaging import Pixels

_GREEN = 15
"""Twice the green minus red and blue, from which a pixel is green."""

_HUES, _SATURATION, _VALUE = (5, 45), 70, 40
"""Hues of yellow and brown in OpenCV's degrees (180 in all), and their least saturation and value (of 255)."""

_LEAST, _MOST = 0.05, 0.95
"""Share of a photo that plants cover; a mask of less or more is no use."""

_PART = 0.01
"""Smallest part of a plant, in parts of the photo."""

_COLOURS = 8
"""Random colours along each side, at most."""


def plant_mask(pixels: Pixels) -> NDArray[np.bool_] | None:
    """Where plants are, by their colour: bool [H, W] of a photo, uint8 RGB [H, W, 3]; `None` if it cannot be told.

    Green, yellow and brown parts are joined, and their holes filled, so that grey spots of a leaf belong to it.
    """
    red, green, blue = np.moveaxis(pixels.astype(np.int16), 2, 0)
    hue, saturation, value = np.moveaxis(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), 2, 0)
    dry = (hue > _HUES[0]) & (hue < _HUES[1]) & (saturation > _SATURATION) & (value > _VALUE)
    plants = ((2 * green - red - blue > _GREEN) | dry).astype(np.uint8)
    plants = cv2.morphologyEx(plants, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    plants = cv2.morphologyEx(plants, cv2.MORPH_CLOSE, _disc(max(3, min(plants.shape) // 24) | 1))
    outlines, _ = cv2.findContours(plants, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    large = [outline for outline in outlines if cv2.contourArea(outline) > _PART * plants.size]
    mask = cv2.drawContours(np.zeros_like(plants), large, -1, 1, -1)
    return mask.astype(bool) if _LEAST < mask.mean() < _MOST else None


def replace_background(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """A photo, uint8 RGB [H, W, 3], with smooth random colours around its plants; as it is, if these cannot be told."""
    mask = plant_mask(pixels)
    if mask is None:
        return pixels
    height, width = mask.shape
    rows, columns = random.integers(1, _COLOURS + 1, 2)
    colours = random.integers(0, 256, (rows, columns, 3)).astype(np.uint8)
    background = cv2.resize(colours, (width, height), interpolation=cv2.INTER_CUBIC)
    share = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0)[..., None]
    replaced: Pixels = (pixels * share + background * (1 - share)).astype(np.uint8)
    return replaced


@functools.cache
def _disc(side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
