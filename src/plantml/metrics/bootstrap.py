"""Bootstrap intervals: whole groups are resampled, because photos of one group are not independent.

Photos of one plant err together, so groups are drawn with replacement, as many as there are, and not photos (the
cluster bootstrap; Davison and Hinkley 1997, "Bootstrap methods and their application", section 3.8). A statistic
keeps sums by group, counts of the confusion matrix for one, so that a resample is a product of two matrices and
not another look at all photos. Every statistic of a call sees the same resamples: differences of two models
are paired.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import ranking, reports
from plantml.targets import Target

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]
Replicates = Mapping[str, Floats]
"""By score: its value in every resample, float64 [R]; NaN where a resample says nothing of it."""

LEVEL = 0.95

FEW = 10
"""With fewer groups, resampling is not informative."""

_CHUNK = 1 << 20
"""Weights per chunk; with more, the curves' running sums leave the processor's cache."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of level `LEVEL`."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """From end to end."""
        return self.high - self.low


class Groups:
    """Which photos are drawn together.

    Args:
        keys: by photo; photos with the same key are one group.
    """

    def __init__(self, keys: Sequence[Any]) -> None:
        _, number = np.unique(np.asarray(keys, dtype=object).astype(str), return_inverse=True)
        self.number: Ints = number.astype(np.int64)
        self.count = int(self.number.max(initial=-1)) + 1

    def sums(self, columns: Floats | Bools) -> NDArray[np.float32]:
        """Sums of photo columns [N, K] by group: float32 [G, K]."""
        from scipy.sparse import csr_array

        photos = len(self.number)
        membership = csr_array((np.ones(photos), (self.number, np.arange(photos))), shape=(self.count, photos))
        sums: NDArray[np.float32] = np.asarray(membership @ columns.astype(np.float64), np.float32)
        return sums

    def having(self, photos: Bools) -> int:
        """Groups with at least one of these photos: bool [N]."""
        return len(np.unique(self.number[photos]))

    def draws(self, resamples: int, seed: int) -> Iterator["Draw"]:
        """The resamples in chunks, reproducible by seed."""
        rng = np.random.default_rng(seed)
        left = resamples
        while left:
            size = min(left, max(1, _CHUNK // max(1, self.count)))
            left -= size
            drawn = rng.integers(0, self.count, (size, self.count), dtype=np.int32)
            drawn += np.arange(size, dtype=np.int32)[:, None] * self.count
            counts = np.bincount(drawn.ravel(), minlength=size * self.count).astype(np.int32)
            counts = counts.reshape(size, self.count)
            yield Draw(counts, counts.astype(np.float32), self)


@dataclass(frozen=True)
class Draw:
    """Some resamples: how often each holds each group, [r, G], as whole numbers and as float32."""

    counts: Ints
    weights: NDArray[np.float32]
    groups: Groups

    def sums(self, by_group: NDArray[np.float32]) -> Floats:
        """Sums over the photos of each resample, float64 [r, K], of sums by group [G, K]."""
        return (self.weights @ by_group).astype(np.float64)

    def of(self, photos: Ints) -> Ints:
        """How often each resample holds these photos: [r, P]."""
        counts: Ints = self.counts[:, self.groups.number[photos]]
        return counts


class Statistic(Protocol):
    """A score that is computed for many resamples at once."""

    def replicate(self, draw: Draw) -> dict[str, Floats]:
        """Scores by name, float64 [r]; NaN where a resample says nothing of it."""
        ...


def replicate(statistics: Sequence[Statistic], groups: Groups, *, resamples: int, seed: int) -> Replicates:
    """All statistics in the same resamples; nothing with fewer than two groups, which say nothing of others."""
    if groups.count < 2:
        return {}
    parts: dict[str, list[Floats]] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for draw in groups.draws(resamples, seed):
            for statistic in statistics:
                for name, values in statistic.replicate(draw).items():
                    parts.setdefault(name, []).append(values)
    return {name: np.concatenate(chunks) for name, chunks in parts.items()}


def interval(name: str, point: float, replicates: Floats | None, groups: int = 0) -> Interval | None:
    """The interval of a score; `None` where the photos do not allow one.

    By percentiles; the calibration error, which resampling makes larger than it is, by the basic method, which
    turns that around. Where every resample is without a mistake, or without a hit, no percentile knows how rare the
    next one may be, and fewer than `FEW` groups, resampled, look alike: then shares have the exact limits of as many
    independent groups (Clopper and Pearson 1934).

    Args:
        name: of the score.
        point: the score of all photos.
        replicates: the score of every resample, float64 [R].
        groups: that the score is made of.
    """
    if replicates is None:
        return None
    known = replicates[~np.isnan(replicates)]
    if len(known) < 0.5 * len(replicates) or not len(known):
        return None
    low, high = (float(end) for end in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    score = name.partition("[")[0].rpartition(".")[2]
    if score == "ece":
        low, high = max(0.0, 2 * point - high), max(0.0, 2 * point - low)
    if score in _SHARES and groups and (groups < FEW or (low == high and point in {0.0, 1.0})):
        return _exact(point, groups)
    return Interval(low, high)


def _exact(share: float, groups: int) -> Interval:
    from scipy.special import betaincinv

    hits, misses = share * groups, (1 - share) * groups
    low = float(betaincinv(hits, misses + 1, (1 - LEVEL) / 2)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, misses, (1 + LEVEL) / 2)) if misses > 0 else 1.0
    return Interval(low, high)


_SHARES = frozenset({
    "accuracy", "joint_accuracy", "balanced_accuracy", "macro_f1", "weighted_f1",
    "precision", "recall", "f1", "top3_accuracy", "top5_accuracy",
})  # fmt: skip


class ClassStatistic:
    """The scores of a class target."""

    def __init__(
        self, target: Target, truth: Ints, outputs: Floats, groups: Groups, shared: frozenset[str] | None = None
    ) -> None:
        known = np.flatnonzero(truth >= 0)
        self._target, self._known = target, known
        size = len(target.classes)
        self._shared = np.array([shared is None or name in shared for name in target.classes])
        truth, outputs = truth[known], outputs[known]
        predicted, confidence = outputs.argmax(axis=1), outputs.max(axis=1)
        right = predicted == truth
        gaps = np.zeros((len(known), reports.BINS))
        gaps[np.arange(len(known)), reports.calibration_bins(confidence)] = right - confidence.astype(np.float64)
        self._tops = [k for k in reports.TOP if size > k]
        blocks = [
            np.eye(size)[truth] * right[:, None],
            np.eye(size)[truth],
            np.eye(size)[predicted],
            gaps,
            reports.squared_distance(truth, outputs)[:, None],
            *(reports.in_top(truth, outputs, k)[:, None] for k in self._tops),
        ]
        columns = np.zeros((len(groups.number), sum(block.shape[1] for block in blocks)))
        columns[known] = np.concatenate(blocks, axis=1)
        self._sums, self._size = groups.sums(columns), size
        self._ranked = ranking.ranked(confidence, ~right)

    def replicate(self, draw: Draw) -> dict[str, Floats]:
        """See `Statistic.replicate`."""
        size, name = self._size, self._target.name
        sums = draw.sums(self._sums)
        hits, support, named = sums[:, :size], sums[:, size : 2 * size], sums[:, 2 * size : 3 * size]
        gaps, rest = sums[:, 3 * size : 3 * size + reports.BINS], sums[:, 3 * size + reports.BINS :]
        photos = support.sum(axis=1)
        recall, f1 = hits / support, 2 * hits / (support + named)  # NaN where there is nothing to divide by
        photos_by_score, wrong = self._ranked.counted(draw.of(self._known[self._ranked.order]))
        scores = {
            "accuracy": hits.sum(axis=1) / photos,
            "balanced_accuracy": _mean(recall),
            "macro_f1": _mean(np.where(self._shared, f1, np.nan)),
            "weighted_f1": np.nansum(f1 * support, axis=1) / photos,
            **{f"top{k}_accuracy": rest[:, 1 + at] / photos for at, k in enumerate(self._tops)},
            "ece": np.abs(gaps).sum(axis=1) / photos,
            "brier": rest[:, 0] / photos,
            "aurc": ranking.area(photos_by_score, wrong),
            **{key: ranking.coverage(photos_by_score, wrong, risk) for key, risk in reports.RISKS.items()},
        }
        overall = {f"{name}.{key}": values for key, values in scores.items()}
        return overall | _by_class(self._target, {"precision": hits / named, "recall": recall, "f1": f1})


class MultilabelStatistic:
    """The scores of a multilabel target."""

    def __init__(self, target: Target, truth: Floats, outputs: Floats, groups: Groups) -> None:
        self._target = target
        self._known = known = np.flatnonzero(~np.isnan(truth).any(axis=1))
        there, outputs = truth[known] > 0.5, outputs[known].astype(np.float64)
        predicted = outputs >= 0.5
        blocks = [
            there & predicted,
            there,
            predicted,
            (there == predicted).all(axis=1)[:, None],
            ((outputs - there) ** 2).mean(axis=1)[:, None],
            np.ones((len(known), 1)),
        ]
        columns = np.zeros((len(groups.number), 3 * len(target.classes) + 3))
        columns[known] = np.concatenate(blocks, axis=1)
        self._sums = groups.sums(columns)
        self._ranked = [ranking.ranked(outputs[:, at], there[:, at]) for at in range(len(target.classes))]

    def replicate(self, draw: Draw) -> dict[str, Floats]:
        """See `Statistic.replicate`."""
        size, name = len(self._target.classes), self._target.name
        sums = draw.sums(self._sums)
        hits, support, named = sums[:, :size], sums[:, size : 2 * size], sums[:, 2 * size : 3 * size]
        same, brier, photos = sums[:, -3], sums[:, -2], sums[:, -1]
        f1 = 2 * hits / (support + named)
        precisions = np.stack(
            [ranking.average_precision(*each.counted(draw.of(self._known[each.order]))) for each in self._ranked],
            axis=1,
        )
        scores = {
            "accuracy": same / photos,
            "macro_f1": np.nan_to_num(f1).mean(axis=1),
            "weighted_f1": np.nansum(f1 * support, axis=1) / support.sum(axis=1),
            "average_precision": _mean(precisions),
            "brier": brier / photos,
        }
        chunks = {f"{name}.{key}": values for key, values in scores.items()}
        by_class = {"precision": hits / named, "recall": hits / support, "f1": f1, "average_precision": precisions}
        return chunks | _by_class(self._target, by_class)


class ValueStatistic:
    """The scores of a value target."""

    def __init__(self, target: Target, truth: Floats, outputs: Floats, groups: Groups) -> None:
        self._name = target.name
        known = ~np.isnan(truth)
        true, predicted = truth[known].astype(np.float64), outputs[known, 0].astype(np.float64)
        centred = true - true.mean() if len(true) else true  # sums of squares stay small, and float32 enough
        error = predicted - true
        columns = np.zeros((len(truth), 5))
        columns[known] = np.stack([np.ones(len(true)), centred, centred**2, np.abs(error), error**2], axis=1)
        self._sums = groups.sums(columns)

    def replicate(self, draw: Draw) -> dict[str, Floats]:
        """See `Statistic.replicate`."""
        photos, linear, square, absolute, squared = draw.sums(self._sums).T
        spread = square - linear**2 / photos
        return {
            f"{self._name}.r2": np.where(spread > 1e-9 * square, 1 - squared / spread, np.nan),
            f"{self._name}.mae": absolute / photos,
            f"{self._name}.mse": squared / photos,
        }


class MeanStatistic:
    """Means of photo columns over some of the photos: the joint score, the scores of slices.

    Args:
        means: by name: values [N], and which photos count, bool [N].
        groups: of the photos.
    """

    def __init__(self, means: Mapping[str, tuple[Floats | Bools, Bools]], groups: Groups) -> None:
        self._names = list(means)
        values = [np.where(mask, value, 0.0) for value, mask in means.values()]
        masks = [mask.astype(float) for _, mask in means.values()]
        self._sums = groups.sums(np.stack([*values, *masks], axis=1)) if means else None

    def replicate(self, draw: Draw) -> dict[str, Floats]:
        """See `Statistic.replicate`."""
        if self._sums is None:
            return {}
        sums = draw.sums(self._sums)
        count = len(self._names)
        return dict(zip(self._names, (sums[:, :count] / sums[:, count:]).T, strict=True))


def of_target(
    target: Target, truth: NDArray[Any], outputs: Floats, groups: Groups, shared: frozenset[str] | None = None
) -> Statistic:
    """The statistic that has the scores of a target's report, called `target.score`."""
    if target.kind == "class":
        return ClassStatistic(target, truth, outputs, groups, shared)
    if target.kind == "multilabel":
        return MultilabelStatistic(target, truth, outputs, groups)
    return ValueStatistic(target, truth, outputs, groups)


def with_means(replicates: Replicates, targets: Sequence[str]) -> Replicates:
    """With `macro_f1` and `accuracy`, which are means over targets, added as `reports.headline` adds them."""
    extended = dict(replicates)
    for score in ("macro_f1", "accuracy"):
        parts = [replicates[f"{name}.{score}"] for name in targets if f"{name}.{score}" in replicates]
        if parts:
            extended[score] = np.mean(parts, axis=0)
    return extended


def _by_class(target: Target, scores: Mapping[str, Floats]) -> dict[str, Floats]:
    return {
        f"{target.name}.{score}[{name}]": values[:, at]
        for score, values in scores.items()
        for at, name in enumerate(target.classes)
    }


def _mean(values: Floats) -> Floats:
    """Mean of each row [R] over what is not NaN [R, C]; NaN where all is."""
    known = ~np.isnan(values)
    means: Floats = np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)
    return means
