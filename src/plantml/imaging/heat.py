"""Draw a heat map onto a photo."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml.imaging.fit import Pixels

_STOPS = ((0.45, (255, 235, 59, 0)), (0.5, (255, 193, 7, 60)), (0.65, (244, 81, 30, 130)), (0.8, (183, 28, 28, 165)))
"""Score, and red, green, blue and opacity from there on; between them by shares."""

_LINE = (213, 0, 0)


def draw_heat(photo: Image.Image, cells: NDArray[np.float32], place: Sequence[float]) -> Image.Image:
    """An RGB photo with a heat map: yellow to red, and a line around what is above one half.

    Args:
        photo: upright.
        cells: scores from 0 to 1: [rows, columns].
        place: x, y, w and h of the rectangle that they share evenly, pixels of the photo; it may reach beyond.
    """
    x, y, w, h = place
    # One cell of the picture is the weighted mean of the four nearest cells of the map.
    box = tuple(
        (edge - start) * count / length
        for start, length, count, edge in (
            (x, w, cells.shape[1], 0), (y, h, cells.shape[0], 0),
            (x, w, cells.shape[1], photo.width), (y, h, cells.shape[0], photo.height),
        )
    )  # fmt: skip
    scores = _sampled(cells, photo.size, box)
    levels, colours = np.array([at for at, _ in _STOPS]), np.array([colour for _, colour in _STOPS], np.float64)
    mixed = np.stack([np.interp(scores, levels, channel) for channel in colours.T], axis=-1)
    share = mixed[..., 3:] / 255
    pixels = np.asarray(photo.convert("RGB"), np.float64) * (1 - share) + mixed[..., :3] * share
    pixels[_edges(scores > 0.5, max(1, max(photo.size) // 200))] = _LINE
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def heat_pixels(pixels: Pixels, cells: NDArray[np.float32]) -> Image.Image:
    """The input of a model, uint8 [H, W, 3], with its heat map."""
    return draw_heat(Image.fromarray(np.ascontiguousarray(pixels)), cells, (0, 0, pixels.shape[1], pixels.shape[0]))


def _sampled(cells: NDArray[np.float32], size: tuple[int, int], box: Sequence[float]) -> NDArray[np.float64]:
    """The map between its cells' middles, for every pixel of a picture: float64 [height, width].

    Args:
        cells: [rows, columns].
        size: width and height of the picture.
        box: left, top, right and bottom of the picture, in cells; beyond the map, there is nothing.
    """
    left, top, right, bottom = box
    columns = left + (np.arange(size[0]) + 0.5) * (right - left) / size[0]
    rows = top + (np.arange(size[1]) + 0.5) * (bottom - top) / size[1]
    (low_row, high_row, down), (low, high, across) = _between(rows, cells.shape[0]), _between(columns, cells.shape[1])
    wide = cells.astype(np.float64)
    upper = wide[low_row][:, low] * (1 - across) + wide[low_row][:, high] * across
    lower = wide[high_row][:, low] * (1 - across) + wide[high_row][:, high] * across
    scores = upper * (1 - down)[:, None] + lower * down[:, None]
    inside = ((rows >= 0) & (rows <= cells.shape[0]))[:, None] & ((columns >= 0) & (columns <= cells.shape[1]))
    return np.where(inside, scores, 0.0)


def _between(
    places: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The cells before and after each place, and the share of the second."""
    middle = np.clip(places - 0.5, 0, count - 1)
    low = np.floor(middle).astype(np.int64)
    return low, np.minimum(low + 1, count - 1), middle - low


def _edges(inside: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Pixels within `width` of an edge of a region, inside of it."""
    eroded = np.pad(inside, width, mode="edge")
    for axis in (0, 1):
        length = inside.shape[axis]
        parts = [np.take(eroded, range(shift, shift + length), axis=axis) for shift in range(2 * width + 1)]
        eroded = np.logical_and.reduce(parts)
    edges: NDArray[np.bool_] = inside & ~eroded
    return edges
