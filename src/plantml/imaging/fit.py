"""Fit an upright photo to the input of a model: one resize (antialiased bicubic), then padding or cropping."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml.imaging.formats import shielded
from plantml.imaging.header import Facts
from plantml.imaging.resize import resize_into, resized

PAD = 128
"""Grey level of padding: mid-grey, which is zero after normalisation with mean 0.5."""

CROP_MARGIN = 0.08
"""Width of the surroundings that a crop of a box shows on each side, as a share of the longer side of the box."""

Pixels = NDArray[np.uint8]
FitMode = Literal["pad", "crop", "squash"]


@dataclass(frozen=True, slots=True)
class Fit:
    """The size of a model's input, and how a photo is fitted to it.

    Attributes:
        height: height of the input, pixels.
        width: width of the input, pixels.
        mode: `pad` keeps the whole photo and its aspect ratio (grey bars), `crop` keeps the aspect ratio and
            crops the longer side, `squash` keeps the whole photo and distorts its aspect ratio.
    """

    height: int
    width: int
    mode: FitMode = "pad"

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return the size (width, height) in pixels to which a photo is resized before padding or cropping."""
        if self.mode == "squash":
            return self.width, self.height
        ratios = self.width / width, self.height / height
        scale = min(ratios) if self.mode == "pad" else max(ratios)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def content(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what a photo of a size fills of the input: all but the padding."""
        columns, rows = (min(*pair) for pair in zip(self.scaled(width, height), (self.width, self.height), strict=True))
        left, top = (self.width - columns) // 2, (self.height - rows) // 2
        return left, top, left + columns, top + rows

    def placement(self, width: int, height: int) -> "Placement":
        """Where an upright photo of a size lies in the input."""
        if self.mode == "crop":
            left, top, right, bottom = _middle((width, height), self)
            across, down = self.width / (right - left), self.height / (bottom - top)
            return Placement(across, down, -left * across, -top * down)
        columns, rows = self.scaled(width, height)
        return Placement(columns / width, rows / height, (self.width - columns) // 2, (self.height - rows) // 2)


@dataclass(frozen=True, slots=True)
class Placement:
    """A point (x, y) of the photo is at (x * across + left, y * down + top) of the input, both in pixels."""

    across: float
    down: float
    left: float
    top: float

    def to_input(self, boxes: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Boxes [M, 4], x, y, w, h, from pixels of the photo to pixels of the input."""
        scale = np.array([self.across, self.down, self.across, self.down])
        return np.asarray(boxes * scale + [self.left, self.top, 0, 0], np.float32)

    def to_photo(self, boxes: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Boxes [M, 4] from pixels of the input to pixels of the photo."""
        scale = np.array([self.across, self.down, self.across, self.down])
        return np.asarray((boxes - [self.left, self.top, 0, 0]) / scale, np.float64)


def corners_of_crop(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the crop that shows a box (x, y, w, h) with a margin, within a photo of a size."""
    x, y, w, h = box
    margin = CROP_MARGIN * max(w, h)
    left, top = max(0, math.floor(x - margin)), max(0, math.floor(y - margin))
    right, bottom = min(width, math.ceil(x + w + margin)), min(height, math.ceil(y + h + margin))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def fitted(upright: Image.Image, facts: Facts, fit: Fit) -> Pixels:
    """An upright RGB photo as input: uint8 [fit.height, fit.width, 3]."""

    def work() -> Pixels:
        if fit.mode == "crop":
            return resized(upright, (fit.width, fit.height), _middle(upright.size, fit))
        width, height = fit.scaled(facts.width, facts.height)
        if (width, height) == (fit.width, fit.height):
            return resized(upright, (width, height))
        canvas = np.full((fit.height, fit.width, 3), PAD, np.uint8)
        top, left = (fit.height - height) // 2, (fit.width - width) // 2
        resize_into(upright, canvas[top : top + height, left : left + width])
        return canvas

    return shielded(work)


def _middle(size: tuple[int, int], fit: Fit) -> tuple[float, float, float, float]:
    """Return the largest centred box with the input's aspect ratio: left, top, right, bottom."""
    scale = max(fit.width / size[0], fit.height / size[1])
    width, height = fit.width / scale, fit.height / scale
    left, top = max(0.0, (size[0] - width) / 2), max(0.0, (size[1] - height) / 2)
    return left, top, min(size[0], left + width), min(size[1], top + height)
