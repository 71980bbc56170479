"""Folds of cross-validation: the train and val photos split again, groups kept together."""

from dataclasses import replace
from fractions import Fraction

import polars as pl

from plantml.data.manifest import NO_PHOTO, OK, Version
from plantml.data.splits import assign, linked_groups
from plantml.errors import InputError


def of_fold(version: Version, number: int, folds: int, seed: int) -> Version:
    """The version with fold `number` as val and the others as train; test photos are left out.

    Groups and near-duplicates stay together, and classes are spread evenly. Each fold is split off from the
    remaining photos in the way of `dataset split`. Rows without a photo follow their group.
    """
    rows = version.rows.with_row_index("row")
    left = rows.filter((pl.col("status") == OK) & pl.col("split").is_in(["train", "val"]))
    keys = dict(zip(left["row"], linked_groups(left), strict=True))
    if len(set(keys.values())) < folds:
        raise InputError(
            f"{version.ref} has too few groups for {folds} folds",
            f"its train and val photos are from {len(set(keys.values()))} groups",
            "Use fewer folds.",
        )
    fold = pl.Series([], dtype=pl.UInt32)
    for current in range(1, number + 1):
        share = Fraction(1, folds - current + 1)
        groups = [keys[row] for row in left["row"]]
        placed = pl.Series(assign(left.drop("row"), version.targets, groups, (1 - share, share, Fraction(0)), seed))
        fold = left["row"].filter(placed == "val")
        left = left.filter(placed != "val")
    groups_of_fold = rows["group"].gather(fold).drop_nulls()
    follows = (pl.col("status") == NO_PHOTO) & pl.col("group").is_in(groups_of_fold.implode())
    in_fold = pl.col("row").is_in(fold.implode()) | (follows & pl.col("split").is_in(["train", "val"]))
    split = pl.when(in_fold).then(pl.lit("val")).when(pl.col("split") == "val").then(pl.lit("train")).otherwise("split")
    return replace(version, rows=rows.with_columns(split.alias("split")).drop("row"))
