"""Exact and near-duplicates: copies that were resized, recompressed, lightened, flipped or rotated.

They are found by what the import stored about each photo, so nothing is read again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml.data.near_duplicates import VARIANTS, Broken, correlated, near_duplicates

Ints = NDArray[np.int64]

PLAIN_ENTROPY, PLAIN_CONTRAST = 2.5, 0.02
"""The hash of a photo with fewer bits of entropy, or less contrast, means nothing."""

_CONFIRMED_DISTANCE, _ALIKE = 7, 0.97
"""Hashes may differ more if thumbnails must correlate too; two photos of one leaf correlate at 0.963."""


@dataclass(frozen=True)
class Link:
    """Two rows that are copies. `distance` is -1 for equal bytes, otherwise the Hamming distance of their hashes.

    `variant` is what turns `first` into `second`, one of `near_duplicates.VARIANTS`.
    """

    first: int
    second: int
    distance: int
    variant: str


@dataclass(frozen=True)
class DuplicateGroups:
    """Groups of duplicates among N rows.

    Attributes:
        group: int64 [N], the first row of each row's group; its own number if it has no duplicates.
        links: a spanning tree of each group: one fewer than its rows.
        plain: rows with too little content to be compared, except by their bytes.
        broken: groups that were implausibly large, with row numbers.
    """

    group: Ints
    links: Sequence[Link]
    plain: Sequence[int]
    broken: Sequence[Broken]


def plain(rows: pl.DataFrame) -> pl.Series:
    """True for rows whose photo has next to no content."""
    return rows.select((pl.col("entropy") < PLAIN_ENTROPY) | (pl.col("contrast") < PLAIN_CONTRAST)).to_series()


Thumbnails = Callable[[Ints], NDArray[np.uint8]]
"""From rows int64 [P] to small grey images uint8 [P, S, S]."""


def find(rows: pl.DataFrame, *, thumbnails: Thumbnails | None = None) -> DuplicateGroups:
    """Group the duplicates among manifest rows that can be decoded.

    The rows have `image_id`, `phash`, `entropy` and `contrast`. With `thumbnails`, rows with close hashes must also
    correlate.
    """
    _, places, of_id = np.unique(rows["image_id"].to_numpy(), return_index=True, return_inverse=True)
    first = places[of_id].astype(np.int64)
    empty = plain(rows).fill_null(value=True).to_numpy()
    alone = np.flatnonzero((first == np.arange(rows.height)) & ~empty)
    hashes = rows["phash"].to_numpy()[alone].astype(np.uint64)
    if thumbnails is None:
        near = near_duplicates(hashes, variants=VARIANTS)
    else:
        confirm = correlated(lambda items: thumbnails(alone[items]), _ALIKE)
        near = near_duplicates(hashes, distance=_CONFIRMED_DISTANCE, variants=VARIANTS, confirm=confirm)
    group = first.copy()
    group[alone] = alone[near.group]
    group = group[first]
    links = [Link(int(first[row]), int(row), -1, "same") for row in np.flatnonzero(first != np.arange(rows.height))]
    edges = zip(alone[near.first], alone[near.second], near.distance, near.variant, strict=True)
    links += [Link(int(a), int(b), int(distance), VARIANTS[variant]) for a, b, distance, variant in edges]
    broken = [
        Broken(int(alone[item.first]), item.size, item.distance, item.groups, item.largest) for item in near.broken
    ]
    return DuplicateGroups(group, links, [int(row) for row in np.flatnonzero(empty)], broken)
