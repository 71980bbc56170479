"""Decode photos to pixels: the only code that turns a file into the input of a model.

Training, validation, detection and serving all call `decode`. The order is fixed: decode (JPEG at the smallest
DCT scale that keeps twice the target size), rotate upright, convert to 8-bit RGB, resize once (antialiased
bicubic), pad.
"""

import functools
import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from PIL import Image, JpegImagePlugin

from plantml.imaging.fit import Fit, Pixels, fitted
from plantml.imaging.formats import (
    FORMATS,
    HEIF_BRANDS,
    MAX_PIXELS,
    ImageError,
    register_heif,
    shielded,
    too_large,
    unreadable,
)
from plantml.imaging.header import Facts, Origin, facts_of, origin_of
from plantml.imaging.resize import resized

MAX_ASPECT = 1000
"""Images with a larger aspect ratio are refused, because no model input can represent them."""

# MAX_PIXELS applies, with a proper reason; Pillow's warning would only be noise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Photo: TypeAlias = bytes | Image.Image
"""The bytes of an image file, or a picture that Pillow has opened or created."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, fit: Fit, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a photo for a model: uint8 RGB, shape (fit.height, fit.width, 3), upright.

    Raises:
        ImageError: the bytes cannot be decoded, or the image is refused.
    """
    return read(data, fit, max_pixels=max_pixels)[1]


def read(data: bytes, fit: Fit, *, max_pixels: int = MAX_PIXELS) -> tuple[Facts, Pixels]:
    """Return facts and pixels in one pass; see `decode`."""
    with _opened(data, max_pixels) as image:
        facts = facts_of(image)
        upright = _upright_rgb(image, data, facts, fit.scaled(facts.width, facts.height))
        return facts, fitted(upright, facts, fit)


def read_picture(picture: Image.Image, fit: Fit, *, max_pixels: int = MAX_PIXELS) -> tuple[Facts, Pixels]:
    """As `read`, from a picture that Pillow has opened or created; the picture is not changed.

    A JPEG is read at its full size, so that its pixels may differ by rounding from what `read` gives.
    """
    _check_size(picture.size, max_pixels)
    image = shielded(picture.copy)
    header = facts_of(image)
    upright = _upright_rgb(image, b"", header, fit.scaled(header.width, header.height))
    return header, fitted(upright, header, fit)


def facts(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Facts:
    """Read the header without decoding the photo. Raises `ImageError`."""
    with _opened(data, max_pixels) as image:
        return facts_of(image)


def full(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the upright photo at full size: uint8 RGB [H, W, 3]. Raises `ImageError`."""
    with _opened(data, max_pixels) as image:
        image_facts = facts_of(image)
        return np.array(_upright_rgb(image, data, image_facts, (image_facts.width, image_facts.height)))


def cut(photo: Photo, boxes: Sequence[tuple[int, int, int, int]], fit: Fit) -> Iterator[Pixels]:
    """Decode parts of the upright photo, each as input of a model: uint8 RGB [fit.height, fit.width, 3].

    Args:
        photo: the bytes of the file, or a picture that Pillow has opened or created.
        boxes: left, top, right, bottom of each part, pixels of the upright photo.
        fit: the geometry of the model.

    Raises:
        ImageError: the bytes cannot be decoded, or the image is refused.
    """
    data = photo if isinstance(photo, bytes) else b""
    with _opened(photo, MAX_PIXELS) if isinstance(photo, bytes) else shielded(photo.copy) as image:
        image_facts = facts_of(image)
        upright = _upright_rgb(image, data, image_facts, (image_facts.width, image_facts.height))
        for box in boxes:
            part = upright.crop(box)
            yield fitted(part, replace(image_facts, width=part.width, height=part.height), fit)


def thumbnail(data: bytes, side: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the upright RGB photo, at most `side` pixels wide and high; never enlarged."""
    with _opened(data, max_pixels) as image:
        image_facts = facts_of(image)
        scale = min(1.0, side / max(image_facts.width, image_facts.height))
        size = max(1, round(image_facts.width * scale)), max(1, round(image_facts.height * scale))
        upright = _upright_rgb(image, data, image_facts, size)
        return shielded(lambda: Image.fromarray(resized(upright, size)))


def look(data: bytes, side: int, *, max_pixels: int = MAX_PIXELS) -> tuple[Facts, Origin, Image.Image]:
    """Return facts, origin and the upright RGB photo in one pass.

    This is a fast path for scans: JPEGs are decoded at the smallest DCT scale that keeps `side` pixels, half of
    what `decode` needs, and nothing is resized.
    """
    image = _opened(data, max_pixels).image  # left open: it may be returned
    image_facts, origin = facts_of(image), origin_of(image)
    scale = min(1.0, side / max(image_facts.width, image_facts.height))
    size = max(1, round(image_facts.width * scale)), max(1, round(image_facts.height * scale))
    return image_facts, origin, _upright_rgb(image, data, image_facts, (-(-size[0] // 2), -(-size[1] // 2)))


class _opened:  # noqa: N801 - reads as a verb where it is used
    """An open Pillow image that passed all checks."""

    def __init__(self, data: bytes, max_pixels: int) -> None:
        if not data:
            raise ImageError("empty", "the file has 0 bytes")
        try:
            self.image = _open_jpeg(data) or _open(data)
        except Image.DecompressionBombError as error:
            raise too_large(str(error), max_pixels) from error
        except Exception as error:  # a decoder may raise anything on an untrusted file
            raise unreadable(data, error) from error
        _check_size(self.image.size, max_pixels)

    def __enter__(self) -> Image.Image:
        return self.image

    def __exit__(self, *_: object) -> None:
        self.image.close()


def _open_jpeg(data: bytes) -> Image.Image | None:
    """A JPEG, without loading the decoders of all other formats; `None` for what `_open` must judge."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        image = JpegImagePlugin.jpeg_factory(io.BytesIO(data))
    except (SyntaxError, IndexError, TypeError, struct.error):  # what Pillow takes for another format
        return None
    return image if image.width * image.height <= MAX_PIXELS else None


def _open(data: bytes) -> Image.Image:
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        register_heif()
    _load_decoders()
    return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


@functools.cache
def _load_decoders() -> None:
    """Load the decoders of `FORMATS`, but for that of HEIF, which the first such photo registers."""
    Image.preinit()
    for plugin in ("WebP", "Tiff", "Jpeg2K", "Avif"):  # not all of Pillow's, whose import takes long
        importlib.import_module(f"PIL.{plugin}ImagePlugin")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if not width or not height:
        raise ImageError("empty", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise too_large(f"{width} x {height} pixels", max_pixels)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError("too-thin", f"{width} x {height}: the aspect ratio is over {MAX_ASPECT}")


def _upright_rgb(image: Image.Image, data: bytes, facts: Facts, size: tuple[int, int]) -> Image.Image:
    """Return the photo upright and in RGB, at least twice `size` if the original is."""

    def work() -> Image.Image:
        width, height = size if facts.orientation < 5 else size[::-1]
        if image.format in {"JPEG", "MPO"}:
            image.draft("RGB", (2 * width, 2 * height))
        if image.format == "PNG":
            _check_png(data)
        image.load()
        rgb = _rgb(image)
        turn = _TURNS.get(facts.orientation)
        return rgb if turn is None else rgb.transpose(turn)

    return shielded(work)


def _check_png(data: bytes) -> None:
    """Check what Pillow does not: the checksums of the pixels of a PNG. It may return damaged ones as black."""
    start = 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] == b"IDAT" and end + 4 <= len(data):
            checksum = int.from_bytes(data[end : end + 4], "big")
            if zlib.crc32(memoryview(data)[start + 4 : end]) != checksum:
                raise ImageError("damaged", "the checksum of its pixels does not match")
        start = end + 4


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB: alpha over white, 16 bits scaled to 8, CMYK as Pillow does."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode == "I" and image.format != "PPM":  # only a PGM of 16 bits is opened so
        raise ImageError("unsupported", "32-bit pixels have no defined white", "Convert it to 8 or 16 bits.")
    if mode == "I" or mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.int64)
        grey = (np.clip(levels, 0, 65535) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if mode == "F":
        raise ImageError("unsupported", "floating-point pixels have no defined white", "Convert it to 8 or 16 bits.")
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
