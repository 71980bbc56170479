"""How far two samples are apart: the population stability index, and a kernel two-sample test.

Photos of one plant are no independent witnesses. Both measures know groups: the index's p-value counts effective
photos, and the kernel test moves whole groups.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

BINS = 10
"""Of a number, each with a tenth of the photos it is measured against (Siddiqi 2006)."""

MODERATE, LARGE = 0.10, 0.25
"""An index below the first says no change, above the second a large one: the rule of thumb of Siddiqi 2006, "Credit
Risk Scorecards". It was made for many thousands of cases; with few photos the index is large by chance, which is what
its p-value is for."""

FEW = 5
"""Effective photos on a side below which nothing is said about chance."""

MOST = 1000
"""Photos a side that the kernel test looks at, drawn with its seed: its time and memory grow with their square."""

PERMUTATIONS = 1000
_AT_ONCE = 100


@dataclass(frozen=True)
class Index:
    """The population stability index of one column.

    Attributes:
        psi: sum over bins of (b - a) ln(b / a), for the bins' shares a before and b after.
        p: probability of such an index if nothing changed; `None` with too few photos to say.
        bins: their names.
        before: photos in each.
        after: photos in each.
    """

    psi: float
    p: float | None
    bins: tuple[str, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class TwoSample:
    """The kernel two-sample test.

    Attributes:
        mmd2: unbiased estimate of the squared maximum mean discrepancy; may be below 0.
        p: of the permutation test.
        bandwidth: of the Gaussian kernel.
        photos: that were looked at, on each side.
        groups: that were moved, on each side.
        null: what `mmd2` is where the sides are drawn anew, by permutation.
    """

    mmd2: float
    p: float
    bandwidth: float
    photos: tuple[int, int]
    groups: tuple[int, int]
    null: Floats


def effective(groups: Sequence[Hashable]) -> float:
    """Photos that say as much as these, if those of one group all say the same: (sum of sizes)² / sum of squares.

    Kish 1965, "Survey Sampling", with an intraclass correlation of 1, the most careful one.
    """
    sizes = _sizes(groups)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def labels_index(before: Sequence[str], after: Sequence[str], photos: tuple[float, float]) -> Index:
    """The index of labels; labels that only came after share a bin.

    Args:
        before: labels [N].
        after: labels [M].
        photos: effective number of each side.
    """
    names, counts = np.unique(np.asarray(before, object).astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    place = {str(names[at]): number for number, at in enumerate(order)}
    found = np.zeros(len(names) + 1, np.int64)
    for label in after:
        found[place.get(label, len(names))] += 1
    bins = (*place, "(new)") if found[-1] else tuple(place)
    return _index(bins, np.append(counts[order], 0)[: len(bins)], found[: len(bins)], photos)


def numbers_index(before: Floats, after: Floats, photos: tuple[float, float]) -> Index:
    """The index of numbers in bins that each hold a tenth of those before, as far as ties allow.

    Args:
        before: float64 [N], finite.
        after: float64 [M], finite.
        photos: effective number of each side.
    """
    marks, times = np.unique(np.quantile(before, np.arange(1, BINS) / BINS, method="lower"), return_counts=True)
    # A value that fills whole bins gets one of its own, so that a constant that moved is seen to move.
    edges = np.unique(np.concatenate([marks, np.nextafter(marks[(times > 1) | (len(marks) == 1)], np.inf)]))
    bins = _names(edges)
    counts = [np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(bins)) for side in (before, after)]
    return _index(bins, counts[0], counts[1], photos)


def _names(edges: Floats) -> tuple[str, ...]:
    """Of the bins between edges; one as narrow as numbers can be is a single value."""
    names = [f"< {edges[0]:.3g}"]
    before = -np.inf
    for edge, after in zip(edges, [*edges[1:], np.inf], strict=True):
        beside = edge == np.nextafter(before, np.inf)  # the bin after a single value
        low = before if beside else edge
        if after == np.nextafter(edge, np.inf):
            names.append(f"{edge:.3g}")
        elif after == np.inf:
            names.append(f"{'>' if beside else '≥'} {low:.3g}")
        else:
            names.append(f"{low:.3g}–{after:.3g}")
        before = edge
    return tuple(names)


def _index(bins: tuple[str, ...], before: NDArray[Any], after: NDArray[Any], photos: tuple[float, float]) -> Index:
    """The index, and its p: about (1/N + 1/M) chi-square with B - 1 degrees of freedom if nothing changed.

    Yurdakul 2018, "Statistical Properties of Population Stability Index". Half a photo is added to every bin, as an
    empty one would make the index infinite.
    """
    from scipy.stats import chi2

    used = (before + after) > 0
    one, other = (side[used] + 0.5 for side in (before, after))
    one, other = one / one.sum(), other / other.sum()
    psi = float(((other - one) * np.log(other / one)).sum())
    p = None
    if min(photos) >= FEW:
        p = float(chi2.sf(psi / (1 / photos[0] + 1 / photos[1]), used.sum() - 1)) if used.sum() > 1 else 1.0
    return Index(psi, p, bins, tuple(before.tolist()), tuple(after.tolist()))


def two_sample(
    before: Vectors,
    after: Vectors,
    groups: tuple[Sequence[Hashable], Sequence[Hashable]],
    *,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> TwoSample | None:
    """The kernel two-sample test of Gretton et al. 2012, "A Kernel Two-Sample Test", on at most `MOST` photos a side.

    The Gaussian kernel's bandwidth is the median distance. The p-value is that of the unbiased estimate (their lemma
    6) among those where whole groups change sides.

    Args:
        before: float32 [N, D].
        after: float32 [M, D].
        groups: of the rows of each side.
        seed: of the draw and of the permutations.
        permutations: number of them.

    Returns:
        `None` with fewer than two photos or groups on a side: then nothing can be said.
    """
    rng = np.random.default_rng(seed)
    units = [_numbered(each) for each in groups]
    chosen = [np.sort(rng.permutation(len(side))[:MOST]) for side in (before, after)]
    units = [_numbered(each[rows].tolist()) for each, rows in zip(units, chosen, strict=True)]
    sizes = [np.bincount(each) for each in units]
    if min(len(each) for each in sizes) < 2:
        return None
    pooled = np.concatenate([before[chosen[0]], after[chosen[1]]]).astype(np.float32)
    kernel, bandwidth = _kernel(pooled)
    of_row = np.concatenate([units[0], units[1] + len(sizes[0])])
    # Which groups are on the first side: as they are, then as chance deals them.
    dealt = np.zeros((permutations + 1, len(sizes[0]) + len(sizes[1])), np.float32)
    dealt[:, : len(sizes[0])] = 1
    for row in dealt[1:]:
        rng.shuffle(row)
    found = np.concatenate(
        [_mmd2(kernel, dealt[start : start + _AT_ONCE][:, of_row]) for start in range(0, len(dealt), _AT_ONCE)]
    )
    null = found[1:][~np.isnan(found[1:])]
    p = float((1 + (null >= found[0] - 1e-12).sum()) / (1 + len(null)))
    photos, moved = (len(chosen[0]), len(chosen[1])), (len(sizes[0]), len(sizes[1]))
    return TwoSample(float(found[0]), p, bandwidth, photos, moved, null)


def _kernel(rows: Vectors) -> tuple[NDArray[np.float32], float]:
    """The Gaussian kernel of all pairs, 0 on the diagonal, and its bandwidth."""
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2.0 * (rows @ rows.T), 0)
    median = float(np.median(distance[np.triu_indices(len(rows), 1)]))
    scale = median if median > 0 else max(float(distance.mean()), 1e-12)
    kernel = np.exp(-distance / (2 * scale)).astype(np.float32)
    np.fill_diagonal(kernel, 0)
    return kernel, float(np.sqrt(scale))


def _mmd2(kernel: NDArray[np.float32], first: NDArray[np.float32]) -> Floats:
    """The unbiased estimate for each row of `first`, float32 [P, N] of 1 and 0: who is on the first side."""
    reach = first @ kernel
    within = (reach * first).sum(axis=1, dtype=np.float64)
    across = reach.sum(axis=1, dtype=np.float64) - within
    rest = float(kernel.sum(dtype=np.float64)) - within - 2 * across
    m = first.sum(axis=1, dtype=np.float64)
    n = first.shape[1] - m
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = within / (m * (m - 1)) + rest / (n * (n - 1)) - 2 * across / (m * n)
    return np.where((m < 2) | (n < 2), np.nan, found)


def _numbered(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(group, len(known)) for group in groups], np.int64)


def _sizes(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    return np.bincount(_numbered(groups)) if len(groups) else np.zeros(0, np.int64)
