"""Cross-validation's folds: the train and val photos dealt out anew, groups kept together."""

from dataclasses import replace
from fractions import Fraction

import polars as pl

from plantml.data.manifest import OK, Version
from plantml.data.splits import assign, linked_groups
from plantml.errors import InputError


def of_fold(version: Version, number: int, folds: int, seed: int) -> Version:
    """The version with one fold as val and the others as train; photos in test stay away.

    Groups and near-duplicates stay together, classes are spread evenly: each fold is carved from what is left
    as `dataset split` makes its splits.
    """
    rows = version.rows.with_row_index("row")
    left = rows.filter((pl.col("status") == OK) & pl.col("split").is_in(["train", "val"]))
    keys = dict(zip(left["row"], linked_groups(left), strict=True))
    if len(set(keys.values())) < folds:
        raise InputError(
            f"{version.ref} has too few groups for {folds} folds",
            f"its train and val photos are of {len(set(keys.values()))} groups",
            "Take fewer folds.",
        )
    chosen = pl.Series([], dtype=pl.UInt32)
    for carved in range(1, number + 1):
        share = Fraction(1, folds - carved + 1)
        here = [keys[row] for row in left["row"]]
        placed = pl.Series(assign(left.drop("row"), version.targets, here, (1 - share, share, Fraction(0)), seed))
        chosen = left["row"].filter(placed == "val")
        left = left.filter(placed != "val")
    mine = pl.col("row").is_in(chosen.implode())
    split = pl.when(mine).then(pl.lit("val")).when(pl.col("split") == "val").then(pl.lit("train")).otherwise("split")
    return replace(version, rows=rows.with_columns(split.alias("split")).drop("row"))
