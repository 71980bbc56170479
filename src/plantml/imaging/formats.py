"""Image formats: file extensions, and what a file is that cannot be decoded."""

import contextlib
import functools
from collections.abc import Callable
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from plantml.errors import InputError

MAX_PIXELS = 178_956_970
"""Images with more pixels than this, by the file header, are refused.

The value is the limit at which Pillow raises an error: a quarter of a GiB of 24-bit pixels, times two.
"""

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

FORMATS = (
    "JPEG", "PNG", "BMP", "DIB", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
"""What is decoded, by Pillow's names; no other decoder sees a file. Pillow runs Ghostscript for PostScript, for one."""

HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
T = TypeVar("T")


class ImageError(InputError):
    """A file that cannot be decoded; `code` is the stable short name of the reason.

    Codes: `empty`, `not-an-image`, `truncated`, `too-large`, `too-thin`, `unsupported`, `damaged`.
    """

    def __init__(self, code: str, why: str, hint: str = "") -> None:
        super().__init__(code, why, hint)
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.code, self.why, self.hint)


def shielded(work: Callable[[], T]) -> T:
    """Run a decoder on untrusted bytes; any exception becomes an `ImageError`."""
    try:
        return work()
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise too_large(str(error), MAX_PIXELS) from error
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory to decode it") from error
    except Exception as error:
        text = str(error) or type(error).__name__
        code = "truncated" if "truncated" in text.lower() or isinstance(error, EOFError) else "damaged"
        raise ImageError(code, text) from error


def too_large(size: str, limit: int) -> ImageError:
    """The error for an image of more pixels than `limit`."""
    return ImageError("too-large", f"{size}; the limit is {limit / 1e6:.0f} million pixels")


def unreadable(data: bytes, error: Exception) -> ImageError:
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


_DEVELOP = "Develop it to JPEG or TIFF first."


_SIGNATURES: tuple[tuple[str, str, str, Callable[[bytes], bool]], ...] = (
    (
        "unsupported",
        "a HEIC photo",
        "Install its decoder: pip install 'plantml[heif]'",
        lambda head: head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS,
    ),
    ("unsupported", "a camera raw file (CR3)", _DEVELOP, lambda head: head[4:12] == b"ftypcrx "),
    (
        "unsupported",
        "a camera raw file or an unusual TIFF",
        _DEVELOP,
        lambda head: head[:4] in {b"II*\x00", b"MM\x00*", b"IIRO", b"IIRS", b"FUJI", b"IIU\x00"},
    ),
    (
        "unsupported",
        "a PostScript file",
        "Export it as PNG first.",
        lambda head: head[:4] in {b"%!PS", b"\xc5\xd0\xd3\xc6"},
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


@functools.cache
def register_heif() -> None:
    """Register the HEIC decoder of the `[heif]` extra, if installed; called for the first HEIC photo."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
