"""The photos of a training. Imports nothing heavy, so that input errors are reported at once."""

from collections.abc import Callable
from dataclasses import replace

import polars as pl

from plantml import storage
from plantml.data import versions
from plantml.data.filters import where
from plantml.data.manifest import Version, narrow_targets
from plantml.errors import InputError
from plantml.registry import references
from plantml.train import folds
from plantml.train.config import TrainConfig
from plantml.train.run_folder import PLAN


def select(dataset: str | Version, config: TrainConfig) -> Version:
    """The version with the configured photos and their classes; for a fold, with the fold's split."""
    version = versions.load(dataset) if isinstance(dataset, str) else dataset
    if config.where:
        rows = where(version.rows, config.where)
        version = replace(version, rows=rows, targets=narrow_targets(rows, version.targets))
    return folds.of_fold(version, config.fold, config.folds, config.seed) if config.fold else version


def leaks(version: Version) -> str:
    """What train shares with val and test, as a sentence; empty if they are apart. Copies are those of equal bytes."""
    rows, train = version.usable(), pl.col("split") == "train"
    others = rows.filter(pl.col("split").is_in(["val", "test"]))
    copies = rows.filter(train & pl.col("image_id").is_in(others["image_id"].implode())).height
    torn = rows.filter(train & pl.col("group").is_in(others["group"].drop_nulls().implode()))["group"].n_unique()
    counts = {"photo": copies, "group": torn}
    shared = [f"{number} {name}{'' if number == 1 else 's'}" for name, number in counts.items() if number]
    if not shared:
        return ""
    return (
        f"Leak: {' and '.join(shared)} of train also in val or test, so scores will be too high. "
        f"Split anew: plantml dataset split {version.url} --resplit"
    )


def load_checked(ref: str, config: TrainConfig, out: str, warn: Callable[[str], None] = lambda _: None) -> Version:
    """Load a dataset version, and check it and the model to start from.

    Args:
        ref: of the dataset.
        config: of the training.
        out: URL of the run; the plan of an existing run names the model it started from.
        warn: called with what `leaks` says of the photos.

    Raises:
        InputError: one of them is missing, `where` does not fit the dataset, or `out` lies in it.
    """
    version = versions.load(ref)
    if storage.is_within(storage.absolute(out), version.url):
        raise InputError(
            f"The run {storage.absolute(out)} would lie in the dataset {version.url}",
            "a dataset's folder contains no other files",
            "Choose another --out.",
        )
    if leak := leaks(select(version, config)):
        warn(leak)
    run = storage.join(storage.absolute(out), "fold-1") if config.folds else storage.absolute(out)
    if config.warm_start and not storage.exists(storage.join(run, PLAN)):
        references.find(config.warm_start)
    return version
