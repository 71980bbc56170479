"""Distances of two samples: the population stability index, and a kernel two-sample test.

Photos of one plant are not independent. Both measures respect groups: the p-value of the index uses the effective
number of photos, and the kernel test permutes whole groups.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

BINS = 10
"""Bins of a number, each with a tenth of the first sample (Siddiqi 2006)."""

MODERATE, LARGE = 0.10, 0.25
"""Below the first limit there is no change, above the second a large one: the rule of thumb of Siddiqi 2006, "Credit
Risk Scorecards". It is meant for many thousands of cases. With few photos the index is large by chance, hence the
p-value."""

FEW = 5
"""Minimum effective number of photos on each side for a p-value."""

MOST = 1000
"""Photos per side in the kernel test at most: time and memory grow with their square."""

PERMUTATIONS = 1000
_AT_ONCE = 100


@dataclass(frozen=True)
class Index:
    """The population stability index of one column.

    Attributes:
        psi: sum over bins of (b - a) ln(b / a), for the bins' shares a before and b after.
        p: probability of an index this large without a change; `None` with too few photos.
        bins: names of the bins.
        before: photos in each bin.
        after: photos in each bin.
    """

    psi: float
    p: float | None
    bins: tuple[str, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class TwoSample:
    """The result of the kernel two-sample test.

    `mmd2` is the unbiased estimate of the squared maximum mean discrepancy, which may be below 0; `null` has it for
    each permutation. `bandwidth` is that of the Gaussian kernel.
    """

    mmd2: float
    p: float
    bandwidth: float
    photos: tuple[int, int]
    groups: tuple[int, int]
    null: Floats


def effective(groups: Sequence[Hashable]) -> float:
    """Return the effective number of photos: (sum of group sizes)² / sum of squared group sizes.

    Kish 1965, "Survey Sampling", with an intraclass correlation of 1, the most conservative assumption.
    """
    sizes = Counter(groups).values()
    return len(groups) ** 2 / sum(size**2 for size in sizes) if sizes else 0.0


def labels_index(before: Sequence[str], after: Sequence[str], photos: tuple[float, float]) -> Index:
    """Compute the index of labels; all labels that are new in `after` share a bin.

    The labels are [N] and [M]; `photos` is the effective number of each side.
    """
    names, counts = np.unique(np.asarray(before, object).astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    place = {str(names[at]): number for number, at in enumerate(order)}
    new_counts = np.zeros(len(names) + 1, np.int64)
    for label in after:
        new_counts[place.get(label, len(names))] += 1
    bins = (*place, "(new)") if new_counts[-1] else tuple(place)
    return _index(bins, np.append(counts[order], 0)[: len(bins)], new_counts[: len(bins)], photos)


def numbers_index(before: Floats, after: Floats, photos: tuple[float, float]) -> Index:
    """Compute the index of numbers, in bins that each hold a tenth of `before`, as far as ties allow.

    The numbers are float64 [N] and [M], finite; `photos` is the effective number of each side.
    """
    marks, times = np.unique(np.quantile(before, np.arange(1, BINS) / BINS, method="lower"), return_counts=True)
    # A value that fills whole bins gets its own bin, so that a shifted constant is detected.
    edges = np.unique(np.concatenate([marks, np.nextafter(marks[(times > 1) | (len(marks) == 1)], np.inf)]))
    bins = _names(edges)
    counts = [np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(bins)) for side in (before, after)]
    return _index(bins, counts[0], counts[1], photos)


def _names(edges: Floats) -> tuple[str, ...]:
    """Name the bins between the edges; a bin of minimal width is a single value."""
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
            names.append(f"{low:.3g} to {after:.3g}")
        before = edge
    return tuple(names)


def _index(bins: tuple[str, ...], before: NDArray[Any], after: NDArray[Any], photos: tuple[float, float]) -> Index:
    """Compute the index and its p-value: without a change it is about (1/N + 1/M) chi-square, B - 1 degrees of freedom.

    Yurdakul 2018, "Statistical Properties of Population Stability Index". Half a photo is added to every bin,
    because an empty one would make the index infinite.
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
    """Run the kernel two-sample test on up to `MOST` photos per side.

    See Gretton et al. 2012, "A Kernel Two-Sample Test". The Gaussian kernel's bandwidth is the median distance.
    The p-value is the rank of the unbiased estimate (their lemma 6) among permutations of whole groups.

    Args:
        before: float32 [N, D].
        after: float32 [M, D].
        groups: group of each row, for both sides.
        seed: random seed of the sample and the permutations.
        permutations: number of permutations.

    Returns:
        `None` with fewer than two groups on a side.
    """
    rng = np.random.default_rng(seed)
    samples = [np.sort(rng.permutation(len(side))[:MOST]) for side in (before, after)]
    units = [_numbered([each[row] for row in rows]) for each, rows in zip(groups, samples, strict=True)]
    sizes = [np.bincount(each) for each in units]
    if min(len(each) for each in sizes) < 2:
        return None
    pooled = np.concatenate([before[samples[0]], after[samples[1]]]).astype(np.float32)
    kernel, bandwidth = _kernel(pooled)
    of_row = np.concatenate([units[0], units[1] + len(sizes[0])])
    # Which groups are on the first side: the actual assignment, then the permutations.
    assignments = np.zeros((permutations + 1, len(sizes[0]) + len(sizes[1])), np.float32)
    assignments[:, : len(sizes[0])] = 1
    for row in assignments[1:]:
        rng.shuffle(row)
    estimates = np.concatenate(
        [
            _mmd2(kernel, assignments[start : start + _AT_ONCE][:, of_row])
            for start in range(0, len(assignments), _AT_ONCE)
        ]
    )
    null = estimates[1:][~np.isnan(estimates[1:])]
    p = float((1 + (null >= estimates[0] - 1e-12).sum()) / (1 + len(null)))
    photos, group_counts = (len(samples[0]), len(samples[1])), (len(sizes[0]), len(sizes[1]))
    return TwoSample(float(estimates[0]), p, bandwidth, photos, group_counts, null)


def _kernel(rows: Vectors) -> tuple[NDArray[np.float32], float]:
    """Return the Gaussian kernel of all pairs, 0 on the diagonal, and its bandwidth."""
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2.0 * (rows @ rows.T), 0)
    median = float(np.median(distance[np.triu_indices(len(rows), 1)]))
    scale = median if median > 0 else max(float(distance.mean()), 1e-12)
    kernel = np.exp(-distance / (2 * scale)).astype(np.float32)
    np.fill_diagonal(kernel, 0)
    return kernel, float(np.sqrt(scale))


def _mmd2(kernel: NDArray[np.float32], first: NDArray[np.float32]) -> Floats:
    """Return the unbiased estimate for each row of `first`, float32 [P, N]: 1 if on the first side, otherwise 0."""
    reach = first @ kernel
    within = (reach * first).sum(axis=1, dtype=np.float64)
    across = reach.sum(axis=1, dtype=np.float64) - within
    rest = float(kernel.sum(dtype=np.float64)) - within - 2 * across
    m = first.sum(axis=1, dtype=np.float64)
    n = first.shape[1] - m
    with np.errstate(divide="ignore", invalid="ignore"):
        estimates: Floats = within / (m * (m - 1)) + rest / (n * (n - 1)) - 2 * across / (m * n)
    return np.where((m < 2) | (n < 2), np.nan, estimates)


def _numbered(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(group, len(known)) for group in groups], np.int64)
