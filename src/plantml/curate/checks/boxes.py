"""Boxes: outside the photo, without area, or duplicated, and the common cause if there is one.

Annotations are checked source by source, because a wrong convention affects a whole annotation file.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml.curate.context import Subject
from plantml.curate.findings import Finding
from plantml.data import manifest

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_SLACK = 1.5
"""Pixels that a box may exceed the photo by, due to rounding."""

_WRONG = 0.02
"""Share of boxes outside their photo from which a common cause is searched for."""

_RIGHT = 0.995
"""Share of boxes that must lie inside once the cause is corrected."""


@dataclass(frozen=True)
class _Drawn:
    """Boxes of one source with the row and the size of their photo, all [M, …]."""

    row: NDArray[np.int64]
    xywh: Floats
    size: Floats
    turned: Bools


def check(subject: Subject) -> Iterator[Finding]:
    """Check the boxes of every source."""
    rows = subject.pictures
    yield from _sizes(rows)
    for (source,), of_source in rows.filter(pl.col("boxes").is_not_null()).group_by("source", maintain_order=True):
        drawn = _drawn(of_source)
        if len(drawn.row):
            yield from _of_source(str(source), drawn, of_source)


def outside(xywh: Floats, size: Floats) -> Bools:
    """Return which boxes [M, 4] extend beyond photos of size [M, 2]: bool [M]."""
    low, high = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    leaves: Bools = np.any((low < -_SLACK) | (high > size + _SLACK), axis=1)
    return leaves


def from_centre(xywh: Floats) -> Floats:
    """Convert boxes [M, 4] given by their centre to boxes given by their corner."""
    return np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, 2:]], axis=1)


def from_normalised(xywh: Floats, size: Floats) -> Floats:
    """Convert normalised boxes [M, 4] to pixels of photos of size [M, 2]."""
    scaled: Floats = xywh * np.concatenate([size, size], axis=1)
    return scaled


def turn(xywh: Floats, size: Floats, orientation: int) -> Floats:
    """Map boxes [M, 4] of the stored photo to the upright photo of size [M, 2] (EXIF orientation 1 to 8)."""
    width, height = size[:, 0], size[:, 1]
    x, y, w, h = xywh.T
    if orientation >= 5:
        x, y, w, h = y, x, h, w  # transposed; the flips below complete the rotation
    if orientation in {2, 3, 6, 7}:
        x = width - x - w
    if orientation in {3, 4, 7, 8}:
        y = height - y - h
    return np.stack([x, y, w, h], axis=1)


def _drawn(rows: pl.DataFrame) -> _Drawn:
    flat = rows.select("row", "width", "height", "orientation", "boxes").explode("boxes").drop_nulls("boxes")
    fields = flat.unnest("boxes")
    return _Drawn(
        flat["row"].to_numpy().astype(np.int64),
        fields.select("x", "y", "w", "h").to_numpy().astype(np.float64).reshape(-1, 4),
        flat.select("width", "height").to_numpy().astype(np.float64).reshape(-1, 2),
        (flat["orientation"] > 1).to_numpy(),
    )


def _of_source(source: str, drawn: _Drawn, rows: pl.DataFrame) -> Iterator[Finding]:
    bad = outside(drawn.xywh, drawn.size)
    cause = _cause(source, drawn, bad, rows)
    if cause is not None:
        yield cause
        if cause.code == "boxes-normalised":
            return  # too small for any other check
        bad &= ~np.isin(drawn.row, np.array(cause.rows))
    yield from _each(drawn, bad)


def _cause(source: str, drawn: _Drawn, bad: Bools, rows: pl.DataFrame) -> Finding | None:
    xywh, size = drawn.xywh, drawn.size
    total = len(xywh)
    if (xywh.max() <= 1.01) and (size.min() > 8):
        inside = float((~outside(from_normalised(xywh, size), size)).mean())
        centred = float((~outside(from_centre(from_normalised(xywh, size)), size)).mean())
        facts = {"source": source, "boxes": total, "centred": centred > inside}
        evidence = f"all {total} boxes of {source} have coordinates between 0 and 1"
        return Finding("boxes-normalised", _rows(drawn), evidence, 1.0, facts)
    if bad.mean() < _WRONG:
        return None
    moved = outside(from_centre(xywh), size)
    if 1 - moved.mean() >= _RIGHT:
        evidence = (
            f"{bad.sum()} of {total} boxes of {source} extend beyond the photo; after a shift by half their size,"
            f" {'none does' if not moved.any() else f'{moved.sum()} do'}"
        )
        return Finding("boxes-centre-as-corner", _rows(drawn), evidence, 1.0, {"source": source, "boxes": total})
    return _unrotated(source, drawn, bad, rows)


def _unrotated(source: str, drawn: _Drawn, bad: Bools, rows: pl.DataFrame) -> Finding | None:
    """Boxes in the coordinates of photos that are stored rotated."""
    suspects = bad & drawn.turned
    if not suspects.any() or suspects.sum() < _RIGHT * bad.sum():
        return None
    orientation = dict(rows.select("row", "orientation").iter_rows())
    rotated = drawn.turned
    corrected = np.concatenate(
        [
            turn(drawn.xywh[at : at + 1], drawn.size[at : at + 1], orientation[int(drawn.row[at])])
            for at in np.flatnonzero(rotated)
        ]
    )
    still_outside = outside(corrected, drawn.size[rotated])
    if 1 - still_outside.mean() < _RIGHT:
        return None
    affected = tuple(int(row) for row in np.unique(drawn.row[rotated]))
    evidence = (
        f"{suspects.sum()} boxes of {source} extend beyond the photo, all on photos stored rotated;"
        f" after rotation, {'none does' if not still_outside.any() else f'{still_outside.sum()} do'}"
    )
    return Finding("boxes-unrotated", affected, evidence, 1.0, {"source": source, "boxes": int(rotated.sum())})


def _each(drawn: _Drawn, bad: Bools) -> Iterator[Finding]:
    flat: Bools = np.any(drawn.xywh[:, 2:] < 1, axis=1)
    known: set[tuple[float, ...]] = set()
    for at, (row, xywh) in enumerate(zip(drawn.row.tolist(), drawn.xywh.tolist(), strict=True)):
        text = "x {:.0f}, y {:.0f}, {:.0f} x {:.0f}".format(*xywh)
        if flat[at]:
            yield Finding("box-degenerate", (row,), f"a box at {text} pixels", 1.0)
        elif bad[at]:
            width, height = drawn.size[at]
            yield Finding("box-outside", (row,), f"a box at {text} in a photo of {width:.0f} x {height:.0f}", 0.5)
        key = (row, *(round(value, 1) for value in xywh))
        if key in known:
            yield Finding("box-duplicate", (row,), f"a second box at {text} pixels", 1.0)
        known.add(key)


def _sizes(rows: pl.DataFrame) -> Iterator[Finding]:
    if manifest.ANNOTATED_SIZE not in rows.columns:
        return
    annotated = rows.filter(pl.col(manifest.ANNOTATED_SIZE).is_not_null())
    is_size = pl.concat_str("width", pl.lit("x"), "height")
    differing = annotated.filter(pl.col(manifest.ANNOTATED_SIZE) != is_size)
    for (source, size), photos in differing.group_by("source", manifest.ANNOTATED_SIZE, maintain_order=True):
        width, height = photos["width"][0], photos["height"][0]
        evidence = f"{source} states {size} for {photos.height} photos, such as one of {width} x {height}"
        yield Finding("annotated-size", tuple(photos["row"].to_list()), evidence, 0.7, {"source": source, "size": size})


def _rows(drawn: _Drawn) -> tuple[int, ...]:
    return tuple(int(row) for row in np.unique(drawn.row))
