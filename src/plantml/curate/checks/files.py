"""Files: unreadable, misnamed, or unusual ones."""

from collections.abc import Iterator

import polars as pl

from plantml import imaging, storage
from plantml.curate.context import Subject
from plantml.curate.findings import Finding
from plantml.errors import NotFoundError

_REASONS = {
    "empty": "empty-file",
    "truncated": "truncated",
    "not-an-image": "not-an-image",
    "unsupported": "unsupported",
    "damaged": "unreadable",
    "unreadable": "unreadable",
    "too-large": "extreme-size",
    "too-thin": "extreme-aspect",
    "not-found": "missing",
}
"""The finding code for each reason why an import excludes a row."""

_FORMATS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".mpo"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
    "JPEG2000": {".jp2", ".j2k"},
    "AVIF": {".avif"},
    "HEIF": {".heic", ".heif", ".hif"},
}
_USUAL_MODES = ["RGB"]
_SMALL, _LARGE, _LONG = 64, 100_000_000, 4.0


def check(subject: Subject) -> Iterator[Finding]:
    """Report files that cannot be decoded, and unusual properties of the others."""
    yield from _unreadable(subject)
    yield from _gone(subject)
    yield from _names(subject)
    yield from _shapes(subject.pictures)
    yield from _facts(subject.pictures)


def _unreadable(subject: Subject) -> Iterator[Finding]:
    for row, reason in subject.rows.filter(pl.col("reason").is_not_null()).select("row", "reason").iter_rows():
        code = _REASONS.get(reason.partition(":")[0])
        if code:
            yield Finding(code, (row,), reason.partition(": ")[2] or reason, 1.0)


def _gone(subject: Subject) -> Iterator[Finding]:
    """Copied photos that the dataset's folder no longer has. `plantml dataset verify` reads all of them."""
    copied = subject.pictures.filter(pl.col("path").str.starts_with("images/")).select("row", "path")
    if copied.is_empty():
        return
    try:
        present = {entry.name for entry in storage.list_files(storage.join(subject.version.url, "images"))}
    except NotFoundError:
        present = set()
    for row, path in copied.iter_rows():
        if path.removeprefix("images/") not in present:
            yield Finding("missing", (row,), f"{path} is gone", 1.0)


def _names(subject: Subject) -> Iterator[Finding]:
    for row, name, format_ in subject.pictures.select("row", "name", "format").iter_rows():
        suffix = storage.suffix(name)
        if format_ in _FORMATS and suffix in imaging.EXTENSIONS and suffix not in _FORMATS[format_]:
            yield Finding(
                "wrong-extension", (row,), f"extension {suffix}, content {format_}", facts={"format": format_}
            )


def _shapes(rows: pl.DataFrame) -> Iterator[Finding]:
    for row, width, height in rows.select("row", "width", "height").iter_rows():
        longer, shorter = max(width, height), max(1, min(width, height))
        if longer > _LONG * shorter:
            yield Finding("extreme-aspect", (row,), f"{width} x {height} pixels, aspect ratio {longer / shorter:.1f}:1")
        if shorter < _SMALL or width * height > _LARGE:
            yield Finding("extreme-size", (row,), f"{width} x {height} pixels")


def _facts(rows: pl.DataFrame) -> Iterator[Finding]:
    rotated = rows.filter(pl.col("orientation") > 1)
    for row, orientation in rotated.select("row", "orientation").iter_rows():
        yield Finding("exif-rotated", (row,), f"EXIF orientation {orientation}", facts={"orientation": orientation})
    for row, mode in rows.filter(~pl.col("mode").is_in(_USUAL_MODES)).select("row", "mode").iter_rows():
        yield Finding("unusual-mode", (row,), f"mode {mode}", facts={"mode": mode})
    for row, format_, frames in rows.filter(pl.col("frames") > 1).select("row", "format", "frames").iter_rows():
        yield Finding("multi-picture", (row,), f"{frames} images in one {format_} file", facts={"frames": frames})
