"""Scores of slices of the photos: where is the model weakest?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import metrics
from plantml.metrics import Groups, Interval
from plantml.metrics.statistics import Counts, Floats, MeanStatistic
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
        target: that was judged; `boxes` for all boxes, whatever their class.
        score: `accuracy`, `mae` of a value, or `f1` of boxes.
        number: the score here.
        rest: the score of all other photos; `None` if there are none.
        interval: of `number`.
        photos: here, labelled or annotated.
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
        return -gap / max(self.rest, 1e-9) if self.score == "mae" else gap


def slices(
    outcomes: Outcomes, rows: pl.DataFrame, learnt: Mapping[str, Mapping[str, int]], *, resamples: int, seed: int
) -> list[Slice]:
    """All slices of the photos, the worst first, small ones last.

    `learnt` are by target the training photos of each class.
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
    return _worst_first(slices_)


def box_slices(
    counts: Mapping[str, Floats], groups: Groups, rows: pl.DataFrame, *, resamples: int, seed: int
) -> list[Slice]:
    """As `slices`, of boxes.

    `counts` are right, predicted and true boxes of each photo, [N, 3], by target, or `boxes` whatever their class.
    """
    parts = [(by, value, mask) for by, value, mask in _parts(rows, ()) if mask.any() and not mask.all()]
    masks = {(by, value, name): (each, mask) for by, value, mask in parts for name, each in counts.items()}
    if not masks:
        return []
    named = {"\0".join(key): each * mask[:, None] for key, (each, mask) in masks.items()}
    drawn = metrics.replicate([_F1(named)], groups, resamples=resamples, seed=seed)
    slices_ = []
    for key, (each, mask) in masks.items():
        here, others = _f1(each[mask].sum(axis=0)), _f1(each[~mask].sum(axis=0))
        if np.isnan(here):  # nothing to find, and nothing found
            continue
        interval = metrics.interval("f1", here, drawn.get("\0".join(key)), groups.having(mask))
        slices_.append(Slice(*key, "f1", here, None if np.isnan(others) else others, interval, int(mask.sum())))
    return _worst_first(slices_)


class _F1:
    """F1 by name, of right, predicted and true boxes of each photo, [N, 3]; a `statistics.Statistic`."""

    def __init__(self, counts: Mapping[str, Floats]) -> None:
        self._names = list(counts)
        self.columns: Floats = np.hstack(list(counts.values()))

    def scores(self, sums: Floats, _: Counts) -> dict[str, Floats]:
        """See `statistics.Statistic.scores`."""
        right, predicted, true = (sums[:, at::3] for at in range(3))
        f1 = 2 * right / (predicted + true)
        return {name: f1[:, number] for number, name in enumerate(self._names)}


def _f1(counts: Floats) -> float:
    right, predicted, true = counts.tolist()
    return 2 * right / (predicted + true) if predicted + true else float("nan")


def _worst_first(slices_: Sequence[Slice]) -> list[Slice]:
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
