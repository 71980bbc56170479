"""Leaks: near-duplicates of training photos, and photos of their groups, among the validated photos."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import storage
from plantml.data import duplicates, versions
from plantml.data.manifest import Version
from plantml.errors import PlantmlError
from plantml.metrics import Interval
from plantml.model.contract import Contract, Origin
from plantml.validate.scoring import Evaluation
from plantml.validate.selection import DATASET

_COLUMNS = ("image_id", "phash", "entropy", "contrast", "group", "home")


@dataclass(frozen=True)
class Leaks:
    """The score without photos that have a near-duplicate in training, beside the raw one.

    Attributes:
        photos: with a prediction.
        leaked: of them with a copy, a near-duplicate, or a photo of their group among the training photos.
        trained: training photos that were compared with, those without labels included.
        raw: headline scores of all.
        clean: headline scores of the others; empty if there are none, or nothing leaked.
        intervals: of the clean scores.
    """

    photos: int
    leaked: int
    trained: int
    raw: dict[str, float]
    clean: dict[str, float]
    intervals: dict[str, Interval]


def training_rows(judged: Sequence[Version], contract: Contract) -> pl.DataFrame:
    """A model's training photos: the train split of its own version or, if that cannot be read, those of `judged`."""
    own = _load(contract.dataset, judged)
    tables = [_with_home(version.usable("train"), version) for version in ([own] if own else judged)]
    tables = [table for table in tables if not table.is_empty()]
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def unlabelled_rows(judged: Sequence[Version], contract: Contract) -> pl.DataFrame:
    """The photos that a model learnt from without their labels; none if their version cannot be read."""
    version = _load(contract.unlabelled, judged) if contract.unlabelled else None
    if version is None:
        return pl.DataFrame()
    rows, own = version.usable(), _load(contract.dataset, judged)
    return _with_home(apart_from_judging(rows, version, own) if own else rows, version)


def judging_rows(version: Version) -> pl.DataFrame:
    """The usable photos that judge a training on a version: those of val and test."""
    return version.usable().filter(pl.col("split").is_in(["val", "test"]))


def apart_from_judging(rows: pl.DataFrame, version: Version, labelled: Version) -> pl.DataFrame:
    """Rows of a version but those that judge a training on `labelled`, and near-duplicates of these."""
    judging = judging_rows(labelled)
    rows = rows.filter(~pl.col("image_id").is_in(judging["image_id"].implode()))
    near = leaked_rows(rows.with_columns(pl.lit(version.ref).alias(DATASET)), _with_home(judging, labelled))
    return rows.filter(~pl.Series(near, dtype=pl.Boolean))


def _load(origin: Origin, judged: Sequence[Version]) -> Version | None:
    """A version, if it can be read. A dataset that nobody named is not asked for over the network."""
    named = {_home(version) for version in judged}
    if origin.url and (storage.is_local(origin.url) or storage.absolute(origin.url) in named):
        with contextlib.suppress(PlantmlError):
            return versions.load(f"{origin.url}@{origin.version}")
    return None


def leaked_rows(rows: pl.DataFrame, trained: pl.DataFrame) -> NDArray[np.bool_]:
    """Which rows have a near-duplicate, or a photo of their group, in training: bool [N].

    Near-duplicates are found by their hashes, flips and right turns included; see `data.near`.
    """
    homes = {ref: storage.absolute(re.sub(r"@\d+$", "", ref)) for ref in rows["dataset"].unique()}
    ours = rows.with_columns(home=pl.col("dataset").replace_strict(homes)).select(_COLUMNS)
    both = pl.concat([trained.select(_COLUMNS), ours], how="vertical_relaxed").with_columns(
        pl.col("phash").fill_null(0), pl.col("entropy").fill_null(0.0)
    )
    group = duplicates.find(both).group
    count = trained.height
    near = np.isin(group[count:], group[:count])
    keys = both.select(pl.format("{} {}", "home", "group")).to_series()
    together = ours["group"].is_not_null() & keys[count:].is_in(keys[:count].drop_nulls().unique().to_list())
    leaked: NDArray[np.bool_] = near | together.fill_null(value=False).to_numpy()
    return leaked


def leaks(
    trained: pl.DataFrame,
    rows: pl.DataFrame,
    readable: Sequence[int],
    raw: Evaluation,
    evaluate: Callable[[Sequence[int]], Evaluation],
) -> Leaks | None:
    """The leaks among the readable photos, with the scores of all and of the others; `None` without training photos.

    `evaluate` gives the scores of the photos at some places.
    """
    if trained.is_empty():
        return None
    leaked = leaked_rows(rows[list(readable)], trained)
    rest = [at for at, is_leaked in zip(readable, leaked, strict=True) if not is_leaked]
    scores, intervals = {}, {}
    if leaked.any() and rest:
        clean = evaluate(rest)
        scores = dict(clean.scores)
        intervals = {name: each for name, each in clean.intervals.items() if name in scores}
    return Leaks(len(leaked), int(leaked.sum()), trained.height, dict(raw.scores), scores, intervals)


def as_json(result: Leaks) -> dict[str, Any]:
    """The leaks as JSON types."""
    return {
        "photos": result.photos,
        "leaked": result.leaked,
        "training_photos": result.trained,
        "raw": result.raw,
        "clean": result.clean,
        "intervals": result.intervals,
    }


def _with_home(rows: pl.DataFrame, version: Version) -> pl.DataFrame:
    return rows.with_columns(home=pl.lit(_home(version)))


def _home(version: Version) -> str:
    return storage.absolute(version.url)
