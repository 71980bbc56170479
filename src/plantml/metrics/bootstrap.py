"""Bootstrap intervals: whole groups are resampled, because photos of one group are not independent.

Photos of one plant err together, so groups are drawn with replacement, as many as there are, and not photos (the
cluster bootstrap; Davison and Hinkley 1997, "Bootstrap methods and their application", section 3.8). A statistic
keeps sums by group, counts of the confusion matrix for one, so that a resample is a product of two matrices and
not another look at all photos. Every statistic of a call sees the same resamples: differences of two models
are paired.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plantml.metrics.statistics import Bools, Floats, Ints, Statistic

Replicates = Mapping[str, Floats]
"""By score: its value in every resample, float64 [R]; NaN where a resample says nothing of it."""

LEVEL = 0.95

FEW = 10
"""With fewer groups, resampling is not informative."""

_CHUNK = 1 << 20
"""Weights per chunk; with more, the curves' running sums leave the processor's cache."""


class Interval(NamedTuple):
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


def replicate(statistics: Sequence[Statistic], groups: Groups, *, resamples: int, seed: int) -> Replicates:
    """All statistics in the same resamples; nothing with fewer than two groups, which say nothing of others."""
    if groups.count < 2:
        return {}
    sums = [groups.sums(statistic.columns) for statistic in statistics]
    parts: dict[str, list[Floats]] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for draw in groups.draws(resamples, seed):
            for statistic, by_group in zip(statistics, sums, strict=True):
                for name, values in statistic.scores(draw.sums(by_group), draw.of).items():
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
        return exact(point, groups)
    return Interval(low, high)


def exact(share: float, groups: int) -> Interval:
    """The interval of a share of independent groups (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    hits, misses = share * groups, (1 - share) * groups
    low = float(betaincinv(hits, misses + 1, (1 - LEVEL) / 2)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, misses, (1 + LEVEL) / 2)) if misses > 0 else 1.0
    return Interval(low, high)


_SHARES = frozenset({
    "accuracy", "joint_accuracy", "balanced_accuracy", "macro_f1", "weighted_f1",
    "precision", "recall", "f1", "top3_accuracy", "top5_accuracy", "count_exact",
    "sensitivity", "false_alarms",
})  # fmt: skip
