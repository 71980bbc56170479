"""Scores of slices of the photos: where is the model weakest?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import metrics
from plantml.metrics import Interval
from plantml.metrics.statistics import MeanStatistic
from plantml.targets import Target
from plantml.validate.scoring import Outcomes

Bools = NDArray[np.bool_]

SMALL = 10
"""Photos below which a slice is listed after the others: chance alone makes it look bad, or good."""

_NAMED = {"dataset": "dataset", "source": "source", "camera": "camera"}
_MEASURED = {"size": "pixels", "light": "brightness", "blur": "sharpness"}
_BINS, _BIN = 4, 10
_MOST = 20
"""Values of one column that have a slice of their own, the commonest first. Columns that came along may not have
more."""


@dataclass(frozen=True)
class Slice:
    """The score of one target on one slice of the photos.

    Attributes:
        by: what the photos have in common: `source`, `camera`, `size`, `light`, `blur`, `frequency` of their class, or
            a column that came along with them.
        value: of it.
        target: that was judged.
        score: `accuracy`, or `mae` of a value.
        number: the score here.
        rest: the score of all other photos; `None` if there are none.
        interval: of `number`.
        photos: here, labelled.
    """

    by: str
    value: str
    target: str
    score: str
    number: float
    rest: float | None
    interval: Interval | None
    photos: int

    @property
    def gap(self) -> float:
        """By how much it is worse than the other photos, as a share for errors."""
        if self.rest is None:
            return 0.0
        gap = self.rest - self.number
        return gap if self.score == "accuracy" else -gap / max(self.rest, 1e-9)


def slices(
    outcomes: Outcomes, rows: pl.DataFrame, learnt: Mapping[str, Mapping[str, int]], *, resamples: int, seed: int
) -> list[Slice]:
    """All slices of the photos, the worst first, small ones last.

    Args:
        outcomes: the photos.
        rows: of the photos, with the columns of `validate.photos`.
        learnt: by target, training photos of each class.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    parts = list(_parts(rows, outcomes.targets))
    masks: dict[tuple[str, str, str], tuple[Any, Bools]] = {}
    judged: dict[tuple[str, str, str], tuple[Target, Bools]] = {}
    for target in outcomes.targets:
        known, quality = outcomes.known(target), outcomes.quality(target)
        for by, value, mask in [*parts, *_frequencies(target, outcomes, learnt.get(target.name, {}))]:
            if (mask & known).any() and not (mask | ~known).all():
                key = (by, value, target.name)
                masks[key], judged[key] = (quality, mask & known), (target, known)
    if not masks:
        return []
    named = {"\0".join(key): value for key, value in masks.items()}
    drawn = metrics.replicate([MeanStatistic(named)], outcomes.groups, resamples=resamples, seed=seed)
    slices_ = []
    for key, (quality, mask) in masks.items():
        target, known = judged[key]
        score = "mae" if target.kind == "value" else "accuracy"
        number, rest = float(quality[mask].mean()), known & ~mask
        interval = metrics.interval(score, number, drawn.get("\0".join(key)), outcomes.groups.having(mask))
        others = float(quality[rest].mean()) if rest.any() else None
        slices_.append(Slice(*key, score, number, others, interval, int(mask.sum())))
    return sorted(slices_, key=lambda each: (each.photos < SMALL, -each.gap, -each.photos))


def _parts(rows: pl.DataFrame, targets: Sequence[Target]) -> Iterator[tuple[str, str, Bools]]:
    own = {
        name.removeprefix("meta_"): name
        for name in rows.columns
        if name.startswith("meta_") and not any(_tells(rows, name, target) for target in targets)
    }
    for by, column in {**own, **_NAMED}.items():
        values = rows[column].replace("", None).fill_null("unknown")
        counts = values.value_counts(sort=True)
        if 1 < counts.height <= (_MOST if column in own.values() else rows.height):
            for value in counts[column].head(_MOST):
                yield by, str(value), (values == value).to_numpy()
    wide = rows.with_columns(pixels=pl.max_horizontal("width", "height").cast(pl.Float64))
    for by, column in _MEASURED.items():
        yield from _binned(by, column, wide[column].cast(pl.Float64).to_numpy())


def _tells(rows: pl.DataFrame, column: str, target: Target) -> bool:
    """True for a column that repeats a label, as the name of a photo's folder may."""
    known = rows.filter(pl.col(column).is_not_null() & pl.col(target.name).is_not_null())
    if target.kind != "class" or known[target.name].n_unique() < 2:
        return False
    return known.select(pl.struct(column, target.name)).n_unique() == known[column].n_unique()


def _binned(by: str, column: str, numbers: NDArray[np.float64]) -> Iterator[tuple[str, str, Bools]]:
    """Quarters of the photos by a measure, fewer where there are few photos or few values."""
    known = numbers[~np.isnan(numbers)]
    bins = min(_BINS, len(known) // _BIN)
    if bins < 2:
        return
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)))
    for number, (low, high) in enumerate(pairwise(edges)):
        mask = (numbers <= high) & ((numbers >= low) if number == 0 else (numbers > low))
        if len(edges) > 2:
            yield by, f"{column} {_short(low)} to {_short(high)}", mask


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _frequencies(target: Target, outcomes: Outcomes, learnt: Mapping[str, int]) -> Iterator[tuple[str, str, Bools]]:
    """Photos of rare classes and of common ones: thirds of the classes by their training photos."""
    if target.kind != "class" or len(learnt) < 3:
        return
    ranked = sorted((learnt.get(name, 0), name) for name in target.classes)
    if ranked[0][0] == ranked[-1][0]:
        return
    truth = outcomes.truth[target.name]
    for part, name in zip(np.array_split(np.arange(len(ranked)), 3), ("rare", "middle", "common"), strict=True):
        classes = [ranked[at] for at in part]
        mask = np.isin(truth, [target.classes.index(label) for _, label in classes])
        least, most = classes[0][0], classes[-1][0]
        range_ = f"{least}" if least == most else f"{least} to {most}"
        yield "frequency", f"{name} classes ({range_} training photos each)", mask


def as_json(slices: Sequence[Slice]) -> list[dict[str, Any]]:
    """Slices as JSON types."""
    return [
        {
            "by": each.by,
            "value": each.value,
            "target": each.target,
            each.score: each.number,
            "rest": each.rest,
            "interval": each.interval,
            "photos": each.photos,
        }
        for each in slices
    ]
