"""Photos that are one photo: exact copies, and copies that were resized, compressed, lightened, flipped or turned.

Found by what import wrote down of each photo, so that nothing is read again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml.data.near_duplicates import VARIANTS, Broken, correlated, near_duplicates

Ints = NDArray[np.int64]

PLAIN_ENTROPY, PLAIN_CONTRAST = 2.5, 0.02
"""A picture with fewer bits of entropy, or less contrast, holds too little for its hash to mean anything."""

_SEEN_DISTANCE, _ALIKE = 7, 0.97
"""With thumbnails hashes may be further apart, as pictures must then correlate: two photos of one leaf do at 0.963."""


@dataclass(frozen=True)
class Link:
    """Two rows that are one photo. `distance` is -1 for equal bytes, else bits in which the hashes differ.

    `variant` is what makes `second` of `first`, of `near.VARIANTS`.
    """

    first: int
    second: int
    distance: int
    variant: str


@dataclass(frozen=True)
class Twins:
    """Groups among N rows.

    Attributes:
        group: int64 [N], the first row of each row's group; its own number where it is alone.
        links: what holds the groups together; one fewer than a group's rows, for each group.
        plain: rows with too little in them to be compared, except by their bytes.
        broken: groups that were too large to be believed, with row numbers.
    """

    group: Ints
    links: Sequence[Link]
    plain: Sequence[int]
    broken: Sequence[Broken]


def plain(rows: pl.DataFrame) -> pl.Series:
    """True for rows whose picture holds next to nothing."""
    return rows.select((pl.col("entropy") < PLAIN_ENTROPY) | (pl.col("contrast") < PLAIN_CONTRAST)).to_series()


Thumbnails = Callable[[Ints], NDArray[np.uint8]]
"""Gives small grey pictures, uint8 [P, S, S], of rows int64 [P]."""


def find(rows: pl.DataFrame, *, turned: bool = True, thumbnails: Thumbnails | None = None) -> Twins:
    """Group rows of a manifest that give pixels.

    Args:
        rows: with `image_id`, `phash`, `entropy` and `contrast`.
        turned: copies may be flipped or turned by right angles.
        thumbnails: if given, two rows whose hashes are close must look alike too.
    """
    _, places, of_id = np.unique(rows["image_id"].to_numpy(), return_index=True, return_inverse=True)
    first = places[of_id].astype(np.int64)
    empty = plain(rows).fill_null(value=True).to_numpy()
    alone = np.flatnonzero((first == np.arange(rows.height)) & ~empty)
    hashes = rows["phash"].to_numpy()[alone].astype(np.uint64)
    variants = VARIANTS if turned else VARIANTS[:1]
    if thumbnails is None:
        near = near_duplicates(hashes, variants=variants)
    else:
        confirm = correlated(lambda items: thumbnails(alone[items]), _ALIKE)
        near = near_duplicates(hashes, distance=_SEEN_DISTANCE, variants=variants, confirm=confirm)
    group = first.copy()
    group[alone] = alone[near.group]
    group = group[first]
    links = [Link(int(first[row]), int(row), -1, "same") for row in np.flatnonzero(first != np.arange(rows.height))]
    edges = zip(alone[near.first], alone[near.second], near.distance, near.variant, strict=True)
    links += [Link(int(a), int(b), int(distance), VARIANTS[variant]) for a, b, distance, variant in edges]
    broken = [
        Broken(int(alone[item.first]), item.size, item.distance, item.groups, item.largest) for item in near.broken
    ]
    return Twins(group, links, [int(row) for row in np.flatnonzero(empty)], broken)
