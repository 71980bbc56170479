"""Decode photos to pixels: the only code that turns a file into the input of a model.

Training, validation, detection and serving all call `decode`. The order is fixed: decode (JPEG at the smallest
DCT scale that keeps twice the target size), rotate upright, convert to 8-bit RGB, resize once (antialiased
bicubic), pad.
"""

import contextlib
import functools
import io
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from plantml.errors import InputError

MAX_PIXELS = 178_956_970
"""Images with more pixels than this, by the file header, are refused.

The value is the limit at which Pillow raises an error: a quarter of a GiB of 24-bit pixels, times two.
"""

MAX_ASPECT = 1000
"""Images with a larger aspect ratio are refused, because no model input can represent them."""

PAD = 128
"""Grey level of padding: mid-grey, which is zero after normalisation with mean 0.5."""

# fmt: off
EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".heic", ".heif", ".hif",
    ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf",
})
# fmt: on
"""File extensions of images, for searching a folder."""

# fmt: off
SUFFIXES = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif", "BMP": ".bmp",
    "HEIF": ".heic", "AVIF": ".avif",
}
# fmt: on
"""The usual file extension of each `Facts.format`."""

T = TypeVar("T")
Pixels = NDArray[np.uint8]
FitMode = Literal["pad", "crop", "squash"]

# MAX_PIXELS applies, with a proper reason; Pillow's warning would only be noise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_ORIENTATION, _MAKE, _MODEL = 0x0112, 0x010F, 0x0110
_STANDARD_SUM = 3688  # sum of the standard luminance table


class ImageError(InputError):
    """A file that cannot be decoded; `code` is the stable short name of the reason.

    Codes: `empty`, `not-an-image`, `truncated`, `too-large`, `too-thin`, `unsupported`, `damaged`.
    """

    def __init__(self, code: str, why: str, hint: str = "") -> None:
        super().__init__(code, why, hint)
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.code, self.why, self.hint)


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


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of an image file.

    Attributes:
        width: width of the upright photo, pixels.
        height: height of the upright photo, pixels.
        format: by content, not by file name: `JPEG`, `MPO`, `PNG`…
        mode: colour mode as stored: `RGB`, `L`, `I;16`, `P`, `RGBA`, `CMYK`…
        orientation: EXIF orientation 1 to 8; 1 if there is none, or if the decoder applies it (TIFF, HEIF).
        frames: images in the file; the first one is used.
    """

    width: int
    height: int
    format: str
    mode: str
    orientation: int
    frames: int


@dataclass(frozen=True, slots=True)
class Origin:
    """How a photo was taken and stored.

    Attributes:
        camera: make and model from EXIF; empty if unknown.
        quality: JPEG quality 1 to 100, estimated from the luminance table; `None` for other formats.
    """

    camera: str
    quality: int | None


def decode(data: bytes, fit: Fit, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a photo for a model: uint8 RGB, shape (fit.height, fit.width, 3), upright.

    Raises:
        ImageError: the bytes cannot be decoded, or the image is refused.
    """
    return read(data, fit, max_pixels=max_pixels)[1]


def read(data: bytes, fit: Fit, *, max_pixels: int = MAX_PIXELS) -> tuple[Facts, Pixels]:
    """Return facts and pixels in one pass; see `decode`."""
    with _opened(data, max_pixels) as image:
        facts = _facts(image)
        upright = _upright_rgb(image, data, facts, fit.scaled(facts.width, facts.height))
        return facts, _fitted(upright, facts, fit)


def read_picture(picture: Image.Image, fit: Fit, *, max_pixels: int = MAX_PIXELS) -> tuple[Facts, Pixels]:
    """As `read`, from a picture that Pillow has opened or created; the picture is not changed.

    A JPEG is read at its full size, so that its pixels may differ by rounding from what `read` gives.
    """
    _check_size(picture.size, max_pixels)
    image = _shielded(picture.copy)
    header = _facts(image)
    upright = _upright_rgb(image, b"", header, fit.scaled(header.width, header.height))
    return header, _fitted(upright, header, fit)


def facts(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Facts:
    """Read the header without decoding the photo. Raises `ImageError`."""
    with _opened(data, max_pixels) as image:
        return _facts(image)


def full(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the upright photo at full size: uint8 RGB [H, W, 3]. Raises `ImageError`."""
    with _opened(data, max_pixels) as image:
        image_facts = _facts(image)
        return np.array(_upright_rgb(image, data, image_facts, (image_facts.width, image_facts.height)))


def cut(data: bytes, boxes: Sequence[tuple[int, int, int, int]], fit: Fit) -> Iterator[Pixels]:
    """Decode parts of the upright photo, each as input of a model: uint8 RGB [fit.height, fit.width, 3].

    Args:
        data: the bytes of the file.
        boxes: left, top, right, bottom of each part, pixels of the upright photo.
        fit: the geometry of the model.

    Raises:
        ImageError: the bytes cannot be decoded, or the image is refused.
    """
    with _opened(data, MAX_PIXELS) as image:
        image_facts = _facts(image)
        upright = _upright_rgb(image, data, image_facts, (image_facts.width, image_facts.height))
        for box in boxes:
            part = upright.crop(box)
            yield _fitted(part, replace(image_facts, width=part.width, height=part.height), fit)


def thumbnail(data: bytes, side: int, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the upright RGB photo, at most `side` pixels wide and high; never enlarged."""
    with _opened(data, max_pixels) as image:
        image_facts = _facts(image)
        scale = min(1.0, side / max(image_facts.width, image_facts.height))
        size = max(1, round(image_facts.width * scale)), max(1, round(image_facts.height * scale))
        upright = _upright_rgb(image, data, image_facts, size)
        return _shielded(lambda: upright.resize(size, Image.Resampling.BICUBIC))


def look(data: bytes, side: int, *, max_pixels: int = MAX_PIXELS) -> tuple[Facts, Origin, Image.Image]:
    """Return facts, origin and the upright RGB photo in one pass.

    This is a fast path for scans: JPEGs are decoded at the smallest DCT scale that keeps `side` pixels, half of
    what `decode` needs, and nothing is resized.
    """
    image = _opened(data, max_pixels).image  # left open: it may be returned
    image_facts, origin = _facts(image), _origin(image)
    scale = min(1.0, side / max(image_facts.width, image_facts.height))
    size = max(1, round(image_facts.width * scale)), max(1, round(image_facts.height * scale))
    return image_facts, origin, _upright_rgb(image, data, image_facts, (-(-size[0] // 2), -(-size[1] // 2)))


class _opened:  # noqa: N801 - reads as a verb where it is used
    """An open Pillow image that passed all checks."""

    def __init__(self, data: bytes, max_pixels: int) -> None:
        if not data:
            raise ImageError("empty", "the file has 0 bytes")
        try:
            if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
                _register_heif()
            self.image = Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            raise _too_large(str(error), max_pixels) from error
        except Exception as error:  # a decoder may raise anything on an untrusted file
            raise _unreadable(data, error) from error
        _check_size(self.image.size, max_pixels)

    def __enter__(self) -> Image.Image:
        return self.image

    def __exit__(self, *_: object) -> None:
        self.image.close()


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if not width or not height:
        raise ImageError("empty", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise _too_large(f"{width} x {height} pixels", max_pixels)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError("too-thin", f"{width} x {height}: the aspect ratio is over {MAX_ASPECT}")


def _facts(image: Image.Image) -> Facts:
    orientation = _orientation(image)
    width, height = image.size
    if orientation >= 5:
        width, height = height, width
    frames = _frames(image)
    return Facts(width, height, image.format or "", image.mode, orientation, frames)


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 1  # Pillow rotates TIFFs itself
    if image.format == "JPEG" and not {"exif", "xmp"} & image.info.keys():
        return 1  # reading EXIF would cost as much as opening
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken EXIF is common and does not affect the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _origin(image: Image.Image) -> Origin:
    camera = ""
    if "exif" in image.info:
        try:
            exif = image.getexif()
            make, model = (str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL))
            camera = model if model.startswith(make) else f"{make} {model}".strip()
        except Exception:  # noqa: BLE001 - broken EXIF is common and does not affect the pixels
            camera = ""
    tables = getattr(image, "quantization", None)
    return Origin(camera, _quality(tables[0]) if tables and len(tables.get(0, ())) == 64 else None)


def _quality(table: Sequence[int]) -> int:
    """Estimate the quality from the sum of the table: standard table of ITU-T T.81, K.1, scaled as libjpeg does."""
    percent = sum(table) * 100 / _STANDARD_SUM
    quality = (200 - percent) / 2 if percent <= 100 else 5000 / percent
    return int(min(100, max(1, round(quality))))


def _frames(image: Image.Image) -> int:
    if image.format not in {"MPO", "GIF", "TIFF", "WEBP", "PNG", "AVIF", "HEIF"}:
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - counting may read a damaged tail that the first frame does not need
        return 1


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

    return _shielded(work)


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


def _fitted(upright: Image.Image, facts: Facts, fit: Fit) -> Pixels:
    def work() -> Pixels:
        if fit.mode == "crop":
            box = _middle(upright.size, fit)
            return np.asarray(upright.resize((fit.width, fit.height), Image.Resampling.BICUBIC, box))
        size = fit.scaled(facts.width, facts.height)
        resized = upright if upright.size == size else upright.resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(resized)
        return pixels if pixels.shape[:2] == (fit.height, fit.width) else _padded(pixels, fit)

    return _shielded(work)


def _middle(size: tuple[int, int], fit: Fit) -> tuple[float, float, float, float]:
    """Return the largest centred box with the input's aspect ratio: left, top, right, bottom."""
    scale = max(fit.width / size[0], fit.height / size[1])
    width, height = fit.width / scale, fit.height / scale
    left, top = max(0.0, (size[0] - width) / 2), max(0.0, (size[1] - height) / 2)
    return left, top, min(size[0], left + width), min(size[1], top + height)


def _padded(pixels: Pixels, fit: Fit) -> Pixels:
    canvas = np.full((fit.height, fit.width, 3), PAD, np.uint8)
    height, width = pixels.shape[:2]
    top, left = (fit.height - height) // 2, (fit.width - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas


def _shielded(work: Callable[[], T]) -> T:
    """Run a decoder on untrusted bytes; any exception becomes an `ImageError`."""
    try:
        return work()
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(str(error), MAX_PIXELS) from error
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory to decode it") from error
    except Exception as error:
        text = str(error) or type(error).__name__
        code = "truncated" if "truncated" in text.lower() or isinstance(error, EOFError) else "damaged"
        raise ImageError(code, text) from error


def _too_large(size: str, limit: int) -> ImageError:
    return ImageError("too-large", f"{size}; the limit is {limit / 1e6:.0f} million pixels")


def _unreadable(data: bytes, error: Exception) -> ImageError:
    """Report the kind of file by its first bytes, never its content.

    A list may name any file on the machine, and reasons are written into records that are shared.
    """
    head = data[:512]
    for code, why, hint, recognised in _SIGNATURES:
        if recognised(head):
            return ImageError(code, why, hint)
    if _is_text(head):
        return ImageError("not-an-image", "text")
    if isinstance(error, UnidentifiedImageError):
        return ImageError("not-an-image", "no known image format")
    return ImageError("damaged", str(error) or type(error).__name__)


_DEVELOP = "Develop it to JPEG or TIFF first."
_SIGNATURES: tuple[tuple[str, str, str, Callable[[bytes], bool]], ...] = (
    (
        "unsupported",
        "a HEIC photo",
        "Install its decoder: pip install 'plantml[heif]'",
        lambda head: head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS,
    ),
    ("unsupported", "a camera raw file (CR3)", _DEVELOP, lambda head: head[4:12] == b"ftypcrx "),
    (
        "unsupported",
        "a camera raw file or an unusual TIFF",
        _DEVELOP,
        lambda head: head[:4] in {b"II*\x00", b"MM\x00*", b"IIRO", b"IIRS", b"FUJI", b"IIU\x00"},
    ),
    ("not-an-image", "a zip archive", "", lambda head: head[:2] == b"PK"),
    ("not-an-image", "gzip-compressed data", "", lambda head: head[:2] == b"\x1f\x8b"),
    ("not-an-image", "a PDF document", "", lambda head: head[:4] == b"%PDF"),
    (
        "not-an-image",
        "a Git LFS pointer",
        "Fetch the photos: git lfs pull",
        lambda head: head.startswith(b"version https://git-lfs."),
    ),
    ("unsupported", "an SVG drawing", "Draw it as PNG first.", lambda head: _is_markup(head, b"<svg")),
    ("not-an-image", "an HTML page", "", lambda head: _is_markup(head, b"<!doctype html", b"<html")),
    ("not-an-image", "an XML document", "", lambda head: _is_markup(head, b"<?xml")),
    ("not-an-image", "JSON", "", lambda head: _is_text(head) and head.lstrip()[:1] in {b"{", b"["}),
)


def _is_markup(head: bytes, *tags: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<" and any(tag in head.lower() for tag in tags)


def _is_text(head: bytes) -> bool:
    if any(byte < 32 and byte not in b"\t\r\n\f" for byte in head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 > 0  # a character truncated at the end of the head
    return True


@functools.cache
def _register_heif() -> None:
    """Register the HEIC decoder of the `[heif]` extra, if installed; called for the first HEIC photo."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
