"""Scan a photo in one read: SHA-256, header facts, perceptual hash and quality."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plantml import imaging
from plantml.imaging import ImageError, grey

_SIDE = 256
"""Quality is measured at this size, so that it means the same for every camera."""

_DARK, _WHITE = 16, 250
"""Grey levels below the first count as black; levels from the second on count as white."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Image quality measures, at most 256 pixels wide and high.

    Attributes:
        brightness: mean grey level, 0 to 1.
        contrast: standard deviation of the grey levels, 0 to 0.5.
        sharpness: mean square of the Laplacian of the grey picture (after Pech-Pacheco et al. 2000, "Diatom
            autofocusing in brightfield microscopy"), grey levels squared.
        entropy: of the grey levels' histogram, bits, 0 to 8.
        dark: share of nearly black pixels.
        white: share of nearly white pixels.
        redness: mean of red minus green, -1 to 1.
        blueness: mean of blue minus green, -1 to 1.
    """

    brightness: float
    contrast: float
    sharpness: float
    entropy: float
    dark: float
    white: float
    redness: float
    blueness: float


QUALITY = tuple(Quality.__slots__)
"""Names of the measures, which are columns of a manifest."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one read of a photo's bytes yields.

    Attributes:
        image_id: SHA-256 of the bytes.
        facts: from the header; `None` if the file is not an image.
        origin: how the file was made; `None` if it cannot be decoded.
        phash: 64-bit perceptual hash; `None` if it cannot be decoded.
        quality: `None` if it cannot be decoded.
        border: RGB of 8 pixels, those in the corners and in the middle of each side, row by row.
        reason: why it cannot be decoded; empty if it can.
    """

    image_id: str
    facts: imaging.Facts | None
    origin: imaging.Origin | None
    phash: int | None
    quality: Quality | None
    border: bytes | None
    reason: str

    def columns(self) -> dict[str, Any]:
        """The scan as columns of a manifest row."""
        facts, origin = self.facts, self.origin
        return {
            "image_id": self.image_id,
            "width": facts and facts.width,
            "height": facts and facts.height,
            "format": facts and facts.format,
            "mode": facts and facts.mode,
            "orientation": facts and facts.orientation,
            "frames": facts and facts.frames,
            "camera": origin and origin.camera,
            "jpeg_quality": origin and origin.quality,
            "phash": self.phash,
            "border": self.border,
            **{name: getattr(self.quality, name, None) for name in QUALITY},
        }


def scan(data: bytes) -> Scan:
    """Scan one file's bytes. Never raises, whatever they contain."""
    return scan_all([data])[0]


def scan_all(files: Iterable[bytes]) -> list[Scan]:
    """Scan the bytes of several files, in order. Never raises, whatever they contain.

    What numpy does for one photo takes little more for sixteen, so that comes last, for all.
    """
    looks = [_look(data) for data in files]
    lights = [look.light for look in looks if look.light is not None]
    hashes, qualities = iter(phashes([light.small for light in lights])), iter(_qualities(lights))
    return [
        Scan(look.image_id, look.facts, look.origin, next(hashes), next(qualities), look.light.border, "")
        if look.light is not None
        else Scan(look.image_id, look.facts, None, None, None, None, look.reason)
        for look in looks
    ]


class _Look(NamedTuple):
    image_id: str
    facts: imaging.Facts | None
    origin: imaging.Origin | None = None
    light: grey.Grey | None = None
    reason: str = ""


def _look(data: bytes) -> _Look:
    image_id = hashlib.sha256(data).hexdigest()
    try:
        facts, origin, picture = imaging.look(data, _SIDE)
    except ImageError as error:
        try:
            known = imaging.facts(data)
        except ImageError:
            known = None
        return _Look(image_id, known, reason=f"{error.code}: {error.why}")
    return _Look(image_id, facts, origin, grey.measure(picture, _SIDE))


def phashes(smalls: Sequence[NDArray[np.float32]]) -> list[int]:
    """64-bit perceptual hashes of grey pictures [32, 32], any range.

    The signs of its lowest 8 x 8 DCT coefficients (after Zauner 2010, "Implementation and benchmarking of
    perceptual image hash functions", who takes their median in place of zero). Signs make the hash of a flipped
    or rotated photo a permutation of the photo's own: see `near_duplicates.variant`.
    """
    if not smalls:
        return []
    bits = (_DCT @ np.stack(smalls) @ _DCT.T).reshape(-1, 64) > 0
    hashes: list[int] = np.packbits(bits, axis=1).view(">u8").ravel().tolist()
    return hashes


def _qualities(lights: Sequence[grey.Grey]) -> list[Quality]:
    if not lights:
        return []
    histograms = np.stack([light.histogram for light in lights])
    moments = (histograms @ _MOMENTS).tolist()
    entropies = _entropies()[histograms].sum(axis=1).tolist()
    return [_quality(*each) for each in zip(lights, moments, entropies, strict=True)]


def _quality(light: grey.Grey, moments: Sequence[float], entropy: float) -> Quality:
    brightness, square, dark, white = moments
    red, green, blue = light.colours
    return Quality(
        brightness=brightness / 255,
        contrast=max(0.0, square - brightness**2) ** 0.5 / 255,
        sharpness=light.sharpness,
        entropy=entropy,
        dark=dark,
        white=white,
        redness=(red - green) / (255 * _PIXELS),
        blueness=(blue - green) / (255 * _PIXELS),
    )


@cache
def _entropies() -> NDArray[np.float64]:
    """What a grey level adds to the entropy in bits, by how many pixels of the grid have it."""
    shares = np.arange(_PIXELS + 1) / _PIXELS
    return -shares * np.log2(np.maximum(shares, 1 / _PIXELS))


_FREQUENCIES, _POSITIONS = np.arange(8)[:, None], np.arange(32)
_DCT = np.cos(np.pi * _FREQUENCIES * (2 * _POSITIONS + 1) / 64) * np.where(_FREQUENCIES, 1 / 4, 1 / 32**0.5)
_DCT = _DCT.astype(np.float32)
"""The first rows of the orthonormal discrete cosine transform of 32 numbers, [8, 32]."""
_PIXELS = grey.GRID**2
_LEVELS = np.arange(256, dtype=np.float64)
_MOMENTS = np.stack([_LEVELS, _LEVELS**2, _LEVELS < _DARK, _LEVELS >= _WHITE], axis=1) / _PIXELS
"""Mean of the levels and of their squares, and shares of black and white, from a histogram of the grid, [256, 4]."""
