"""Occlusion maps: how much the score falls when a part of the photo is covered.

Occlusion sensitivity after Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks",
section 3.3. It needs only predictions, so it works with every runtime.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml import imaging
from plantml.concurrency import batched
from plantml.imaging import Pixels
from plantml.model.covariates import Columns
from plantml.model.runtimes import Runtime

GRID = 12
"""Places in a row and in a column where the cover is laid."""

_COVER = 2.0
"""Width of the cover, in steps of the grid: neighbours overlap."""


def occlusion(
    runtime: Runtime, pixels: Pixels, target: str, output: int, *, columns: Columns | None = None, batch: int = 32
) -> NDArray[np.float32]:
    """How much the probability of one output falls when a place is covered with grey: float32 [GRID, GRID].

    `pixels` are at the model's input size, uint8 [H, W, 3]; `output` is the number of the class; `columns` are the
    covariates of the photo, [1, C].
    """
    height, width = pixels.shape[:2]
    places = [(row, column) for row in range(GRID) for column in range(GRID)]

    def scores_of(photos: Pixels) -> NDArray[np.float32]:
        if columns is None:
            return runtime.run(photos)[f"target.{target}"][:, output]
        return runtime.run(photos, columns.repeat(len(photos), axis=0))[f"target.{target}"][:, output]

    whole = float(scores_of(pixels[None])[0])
    falls = np.zeros((GRID, GRID), np.float32)
    for chunk in batched(places, batch):
        copies = np.repeat(pixels[None], len(chunk), axis=0)
        for copy, (row, column) in zip(copies, chunk, strict=True):
            copy[_span(row, height), _span(column, width)] = imaging.PAD
        for (row, column), score in zip(chunk, scores_of(copies), strict=True):
            falls[row, column] = whole - float(score)
    return falls


def overlay(pixels: Pixels, fall: NDArray[np.float32], side: int) -> Image.Image:
    """The photo in grey with its occlusion map in colour, as JPEG bytes, `side` pixels on its longer side."""
    photo = Image.fromarray(pixels)
    scale = side / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    strength = np.clip(fall, 0, None)
    strength /= max(float(strength.max()), 1e-6)
    heat = Image.fromarray((strength * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    share = (np.asarray(heat, np.float32) / 255)[..., None]
    grey = np.asarray(photo.convert("L").convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    colour = np.array([255, 60, 0], np.float32) * share + np.array([255, 220, 60], np.float32) * (1 - share)
    mixed = grey * (1 - 0.65 * share) + colour * 0.65 * share
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _span(step: int, length: int) -> slice:
    """Where the cover lies on one side, centred on its step."""
    middle, half = (step + 0.5) * length / GRID, _COVER * length / GRID / 2
    return slice(max(0, round(middle - half)), min(length, round(middle + half)))
