"""Selective classification: coverage, risk, and bounds of the risk.

Selective classification after Geifman and El-Yaniv 2017, "Selective classification for deep neural networks". A
photo is *accepted* if its score reaches a threshold; *coverage* is the share of accepted photos, *risk* the share
of wrong predictions among them. Photos of equal score are always accepted together.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import ranking

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

DELTA = 0.05
"""Probability with which a bound of the risk may be wrong."""


@dataclass(frozen=True)
class Curve:
    """Risk by coverage: one point for each distinct score, from the surest photos to all of them.

    Attributes:
        scores: thresholds, falling, float64 [M].
        accepted: photos whose score is at least that, rising, int64 [M].
        errors: wrong predictions among them, int64 [M].
        photos: all of them.
    """

    scores: Floats
    accepted: NDArray[np.int64]
    errors: NDArray[np.int64]
    photos: int

    @property
    def coverage(self) -> Floats:
        """Share of photos that are accepted, rising to 1: [M]."""
        return self.accepted / max(1, self.photos)

    @property
    def risk(self) -> Floats:
        """Share of wrong predictions among the accepted: [M]."""
        return self.errors / np.maximum(1, self.accepted)


def risk_coverage(scores: Floats, right: Bools) -> Curve:
    """The risk-coverage curve of predictions with these scores [N], correct or not [N]."""
    scores = np.asarray(scores, np.float64)
    ranked = ranking.ranked(scores, ~np.asarray(right, bool))
    ends, errors = ranked.ends.astype(np.int64), np.cumsum(ranked.flagged, dtype=np.int64)
    return Curve(scores[ranked.order][ends], ends + 1, errors[ends], len(scores))


def aurc(scores: Floats, right: Bools) -> float:
    """Area under the risk-coverage curve: the mean risk over all coverages, 0 at best; 0 without photos.

    Geifman, Uziel and El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural classifiers". Within
    photos of equal score the errors count as spread evenly.
    """
    return float(np.nan_to_num(ranking.area(*_counted(scores, right))[0]))


def coverage_at(scores: Floats, right: Bools, risk: float) -> float:
    """The largest coverage whose risk on these photos is at most `risk`; 0 if there is none."""
    return float(np.nan_to_num(ranking.coverage(*_counted(scores, right), risk)[0]))


def _counted(scores: Floats, right: Bools) -> tuple[Floats, Floats]:
    return ranking.ranked(scores, ~np.asarray(right, bool)).counted(np.ones((1, len(scores)), np.int64))


def risk_bound(errors: int, n: int, delta: float = DELTA, searched: int = 1) -> float:
    """The true risk that n accepted photos with that many errors do not exceed, with probability 1 - delta.

    The binomial tail bound of Geifman and El-Yaniv 2017, lemma 3.1 (of Gascuel and Caraux 1992), which is the one-sided
    limit of Clopper and Pearson 1934. It is exact for a threshold that was fixed before; one that was searched
    for among `searched` thresholds on the same photos is paid for by delta / searched (union bound).

    Args:
        errors: wrong predictions among the accepted.
        n: accepted photos; without any, the bound is 1.
        delta: probability that the true risk is higher after all.
        searched: thresholds that were looked at on these photos: 1 if it was fixed before, `search_steps(photos)`
            as in the paper, or the number of distinct scores to be safe whatever the search.
    """
    if errors >= n:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(errors + 1, n - errors, 1 - delta / searched))


def search_steps(photos: int) -> int:
    """Steps of a binary search for the threshold among `photos`, as counted by the paper's algorithm SGR."""
    return max(1, math.ceil(math.log2(max(1, photos))))
