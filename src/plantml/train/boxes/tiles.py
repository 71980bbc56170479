"""The tiles of large photos that a detector is trained on: where they lie, and which boxes they show."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml.imaging import Tiling
from plantml.settings import OVERLAP
from plantml.train.selection import Selection

VISIBLE = 0.35
"""Share of a box that a tile must show for the box to be learnt there."""


def tiled(version: Selection, size: int) -> Selection:
    """A version whose rows are the tiles of its train and val photos, which are not cut yet; see `tiles_of`."""
    rows = version.usable().filter(pl.col("split").is_in(["train", "val"]))
    return replace(version, rows=tiles_of(rows, size), commit=None)


def tiles_of(rows: pl.DataFrame, size: int) -> pl.DataFrame:
    """The tiles of photos, photo by photo.

    A box follows into each tile that shows at least `VISIBLE` of it, cut at the tile's edge. A tile that shows less of
    a box, and no other, is left out: it is no example of a place without plants. Of the tiles without any box, there
    are at most as many in a split as tiles with boxes, chosen by a hash.

    Args:
        rows: of a manifest; photos without boxes have empty ones.
        size: of a tile, pixels of the upright photo.

    Returns:
        The row of the photo per tile, with the tile's `width`, `height` and `boxes`, and its place as `left` and
        `top`. A photo that is not larger than a tile keeps its row, and they are null.
    """
    tiling = Tiling(size, OVERLAP)
    tiles: list[tuple[Any, ...]] = []
    for index, (width, height, boxes) in enumerate(rows.select("width", "height", "boxes").iter_rows()):
        if max(width or 0, height or 0) <= size:
            tiles.append((index, None, None, width, height, boxes))
            continue
        places = tiling.places(width, height)
        visible, shares = _visible(boxes or (), places)
        drawn: list[list[dict[str, Any]]] = [[] for _ in places]
        for place, box in np.argwhere(shares >= VISIBLE).tolist():
            x, y, w, h = visible[place, box].tolist()
            drawn[place].append({**boxes[box], "x": x, "y": y, "w": w, "h": h})
        for place, (left, top, right, bottom) in enumerate(places):
            shown = drawn[place]
            if shown or not shares[place].any():
                tiles.append((index, left, top, right - left, bottom - top, shown))
    sides = {name: rows.schema[name] for name in ("width", "height", "boxes")}
    placed = pl.DataFrame(tiles, schema={**dict.fromkeys(("index", "left", "top"), pl.Int64()), **sides}, orient="row")
    result = rows[placed["index"]].drop(*sides).hstack(placed.drop("index"))
    return result.filter(_kept(result))


def _visible(boxes: Sequence[Any], places: Sequence[Sequence[int]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What of M boxes lies in each of T tiles: x, y, w, h in pixels of the tile [T, M, 4]; and the shares [T, M]."""
    sides = np.array([[box["x"], box["y"], box["w"], box["h"]] for box in boxes], np.float64).reshape(-1, 4)
    corners = np.array(places, np.float64)[:, None]
    low = np.maximum(sides[:, :2], corners[..., :2])
    visible = (np.minimum(sides[:, :2] + sides[:, 2:], corners[..., 2:]) - low).clip(0)
    shares = visible.prod(axis=2) / np.maximum(sides[:, 2:].prod(axis=1), 1e-9)
    return np.concatenate([low - corners[..., :2], visible], axis=2), shares


def _kept(tiles: pl.DataFrame) -> pl.Series:
    """Which tiles to keep: all with boxes, all whole photos, and by split as many tiles without boxes."""
    keys = [
        hashlib.sha256(f"{image_id} {left} {top}".encode()).hexdigest()
        for image_id, left, top in tiles.select("image_id", "left", "top").iter_rows()
    ]
    is_empty = pl.col("left").is_not_null() & (pl.col("boxes").list.len() == 0)
    is_drawn = pl.col("left").is_not_null() & (pl.col("boxes").list.len() > 0)
    place = pl.col("key").rank("ordinal").over("split", is_empty)
    # A split whose photos show no plants keeps one.
    kept = ~is_empty | (place <= pl.max_horizontal(is_drawn.sum().over("split"), 1))
    return tiles.with_columns(key=pl.Series(keys, dtype=pl.String)).select(kept).to_series()
