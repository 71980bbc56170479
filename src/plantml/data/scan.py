"""Reading one photo once: hash, facts, perceptual hash and quality together."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from plantml import images
from plantml.images import ImageError

_SIDE = 256
"""Quality is measured at this size, so that it means the same for every camera."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one read of a photo's bytes tells.

    Attributes:
        image_id: SHA-256 of the bytes.
        facts: of the header; `None` if the file is no picture.
        phash: 64-bit perceptual hash; `None` if it has no pixels.
        brightness: mean grey level, 0 to 1.
        contrast: standard deviation of the grey levels, 0 to 0.5.
        sharpness: variance of the Laplacian of the grey picture at 256 pixels (Pech-Pacheco et al. 2000,
            "Diatom autofocusing in brightfield microscopy"), grey levels squared.
        reason: why it gives no pixels; empty if it does.
    """

    image_id: str
    facts: images.Facts | None
    phash: int | None
    brightness: float | None
    contrast: float | None
    sharpness: float | None
    reason: str

    def columns(self) -> dict[str, Any]:
        """The scan as columns of a manifest row."""
        found = self.facts
        return {
            "image_id": self.image_id,
            "width": found and found.width,
            "height": found and found.height,
            "format": found and found.format,
            "mode": found and found.mode,
            "orientation": found and found.orientation,
            "frames": found and found.frames,
            "phash": self.phash,
            "brightness": self.brightness,
            "contrast": self.contrast,
            "sharpness": self.sharpness,
        }


def scan(data: bytes) -> Scan:
    """Scan one file's bytes. Never raises for what is in them."""
    image_id = hashlib.sha256(data).hexdigest()
    found = None
    try:
        found = images.facts(data)
        grey = np.asarray(images.thumbnail(data, _SIDE).convert("L"), np.float32)
    except ImageError as error:
        return Scan(image_id, found, None, None, None, None, f"{error.code}: {error.why}")
    return Scan(
        image_id,
        found,
        phash(grey),
        float(grey.mean() / 255),
        float(grey.std() / 255),
        float(_laplacian(grey).var()),
        "",
    )


def phash(grey: NDArray[np.float32]) -> int:
    """64-bit perceptual hash of a grey picture [H, W], any range.

    The signs of the lowest 8 x 8 DCT coefficients of the picture at 32 x 32, against their median without
    the constant (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions").
    """
    from PIL import Image

    small = Image.fromarray(grey).resize((32, 32), Image.Resampling.BILINEAR)
    low = dctn(np.asarray(small, np.float32), norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _laplacian(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    if min(grey.shape) < 3:
        return np.zeros((1, 1), np.float32)
    centre = grey[1:-1, 1:-1]
    return grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * centre
