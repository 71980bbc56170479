"""A bank of textures, made once a process and cut into pieces for every photo.

Noise is what makes a drawing read as a photo, and what costs the most to make. The bank holds a few square,
seamless textures; a photo takes windows of them, scaled, mirrored and turned, which costs a tenth of a
millisecond instead of ten. The bank does not depend on the seed of a dataset: the choice of windows does.
"""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]
"""One value a pixel: float32, shape (H, W)."""

_Square = NDArray[np.float64]

_BANK_SEED = 20_240_229
_KEPT_SIDE = 2048
"""Scaled textures up to this side are kept, 4 MiB each at most; larger ones are cut out and scaled anew."""


def window(name: str, rng: np.random.Generator, height: int, width: int, scale: float = 1.0) -> Plane:
    """A random piece of the texture `name`, values 0..1, shape (height, width), float32.

    `scale` is how many texture pixels one pixel covers, rounded to a power of the square root of two: below 1
    the texture is enlarged. It is lowered where the piece would otherwise be larger than the texture.
    """
    side = _bank()[name].width
    level = math.floor(2 * math.log2(side / max(height, width)))
    level = min(level, round(2 * math.log2(scale)))
    scale = 2 ** (level / 2)
    x, y = rng.random(2) * (side - np.array((width, height)) * scale)
    if side / scale <= _KEPT_SIDE:
        texture = _scaled(name, level)
        left, top = int(x / scale), int(y / scale)
        piece = texture.crop((left, top, left + width, top + height))
    else:
        box = (x, y, x + width * scale, y + height * scale)
        piece = _bank()[name].resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(piece, dtype=np.float32) * np.float32(1 / 255)
    turn = int(rng.integers(4))
    return pixels[:: 1 if turn & 1 else -1, :: 1 if turn & 2 else -1]


def grain_tile(strength: float) -> Image.Image:
    """White noise around 128 with a deviation of 24 · `strength` grey levels, mode L, 1024 x 1024."""
    return _grain(round(strength * 20))


@cache
def _grain(twentieths: int) -> Image.Image:
    return _bank()["grain"].point([round(128 + (value - 128) * twentieths / 20) for value in range(256)])


@cache
def _scaled(name: str, level: int) -> Image.Image:
    texture = _bank()[name]
    side = round(texture.width * 2 ** (-level / 2))
    return texture if level == 0 else texture.resize((side, side), Image.Resampling.BILINEAR)


@cache
def _bank() -> Mapping[str, Image.Image]:
    rng = np.random.default_rng(_BANK_SEED)
    planes = {
        "clouds": _stretch(_coloured(rng, 512, 1.9)),
        "rough": _stretch(_coloured(rng, 1024, 1.0)),
        "grit": _stretch(_banded(rng, 1024, 0.07)),
        "fine": _stretch(_banded(rng, 1024, 0.22)),
        "grain": np.clip(0.5 + rng.standard_normal((1024, 1024)) * (24 / 255), 0, 1),
        "cells": _cells(rng, 512, 56),
        "dots": _dots(rng, 512, 64),
    }
    return {name: Image.fromarray(np.rint(plane * 255).astype(np.uint8)) for name, plane in planes.items()}


def _stretch(plane: _Square) -> _Square:
    """Map the mean to 0.5 and two and a half deviations to the ends."""
    stretched: _Square = np.clip(0.5 + (plane - plane.mean()) / (5 * plane.std()), 0, 1)
    return stretched


def _frequency(side: int) -> _Square:
    """Cycles a pixel of every bin of a real FFT of a square."""
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    squared: _Square = down * down + across * across
    return np.sqrt(squared)


def _coloured(rng: np.random.Generator, side: int, exponent: float) -> _Square:
    """Noise whose amplitude falls as frequency to the minus `exponent`: 1 is sand, 2 is clouds."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    frequency = _frequency(side)
    frequency[0, 0] = np.inf
    return np.fft.irfft2(spectrum / frequency**exponent, s=(side, side))


def _banded(rng: np.random.Generator, side: int, centre: float) -> _Square:
    """Noise of about one grain size: a log-normal band around `centre` cycles a pixel."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    frequency = np.maximum(_frequency(side), 1e-6)
    return np.fft.irfft2(spectrum * np.exp(-(np.log(frequency / centre) ** 2) / 0.5), s=(side, side))


def _cells(rng: np.random.Generator, side: int, across: int) -> _Square:
    """The fine net of veins: 1 on the borders of Worley cells, 0 inside (Worley 1996, F2 - F1)."""
    nearest = np.full((2, side, side), np.inf)
    for dx, dy, _, _ in _jittered_grid(rng, side, across):
        distance = np.hypot(dx, dy)
        nearest[1] = np.minimum(nearest[1], np.maximum(nearest[0], distance))
        nearest[0] = np.minimum(nearest[0], distance)
    borders: _Square = np.clip(1 - (nearest[1] - nearest[0]) / 0.35, 0, 1)
    return borders


def _dots(rng: np.random.Generator, side: int, across: int) -> _Square:
    """Round grains of many sizes; each carries a rank of its own, so that a threshold picks whole grains."""
    plane = np.zeros((side, side))
    for dx, dy, size, rank in _jittered_grid(rng, side, across):
        distance = np.hypot(dx, dy) / (0.17 + 0.28 * size**2)
        plane = np.maximum(plane, (0.3 + 0.7 * rank) * np.clip(1.6 - 1.3 * distance, 0, 1))
    return plane


def _jittered_grid(rng: np.random.Generator, side: int, across: int) -> list[tuple[_Square, _Square, _Square, _Square]]:
    """For each of the nine cells around a pixel: x and y to its point, in cells, and two of its numbers."""
    numbers = rng.random((4, across, across))
    position = (np.arange(side) + 0.5) * across / side
    cell = np.floor(position).astype(int)
    fraction = position - cell
    around = []
    for j in (-1, 0, 1):
        for i in (-1, 0, 1):
            x, y, size, rank = numbers[:, (cell[:, None] + j) % across, (cell[None, :] + i) % across]
            around.append((i + x - fraction[None, :], j + y - fraction[:, None], size, rank))
    return around
