"""Ranking scores, for many weightings of the same photos at once.

Weights are whole numbers [R, N]: how often a resample holds a photo. Photos of equal score form one block, so that
no order among them is made up.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Ranked:
    """Photos from the highest score to the lowest.

    Attributes:
        order: int64 [N], places of the photos.
        flagged: bool [N], in that order: what is counted, such as wrong predictions.
        ends: int64 [B], the last photo of each block of equal scores.
    """

    order: Ints
    flagged: Bools
    ends: Ints

    def counted(self, weights: Ints) -> tuple[Floats, Floats]:
        """Photos, and flagged photos, from the top to each block's end: float64 [R, B + 1], 0 first.

        Args:
            weights: whole numbers [R, N], of the photos in this order.
        """
        return _with_zero(np.cumsum(weights, axis=1, dtype=np.int32)[:, self.ends]), _with_zero(
            np.cumsum(weights * self.flagged, axis=1, dtype=np.int32)[:, self.ends]
        )


def ranked(scores: Floats, flagged: Bools) -> Ranked:
    """Photos with these scores [N] and flags [N], ranked."""
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)[: len(falling)])
    return Ranked(order, np.asarray(flagged, bool)[order], ends)


def area(photos: Floats, wrong: Floats) -> Floats:
    """Area under the risk-coverage curve [R], as `selective.aurc` defines it, from `Ranked.counted`.

    Within a block from a to b photos the errors grow evenly by s a photo, so that the risks of its ranks sum up to
    (errors before it - a s) (H(b) - H(a)) + s (b - a), with the harmonic numbers H.
    """
    before, after = photos[:, :-1], photos[:, 1:]
    size = after - before
    slope = (wrong[:, 1:] - wrong[:, :-1]) / np.maximum(size, 1)
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, int(photos.max(initial=0)) + 1)))
    logs = harmonic[after.astype(np.int64)] - harmonic[before.astype(np.int64)]
    risks = (wrong[:, :-1] - before * slope) * logs + slope * size
    total = photos[:, -1]
    areas: Floats = np.where(total > 0, risks.sum(axis=1) / np.maximum(total, 1), np.nan)
    return areas


def coverage(photos: Floats, wrong: Floats, risk: float) -> Floats:
    """The largest coverage [R] whose risk is at most `risk`, from `Ranked.counted`; 0 where there is none."""
    good = wrong[:, 1:] <= risk * photos[:, 1:] * (1 + 1e-12)
    total = photos[:, -1]
    shares: Floats = np.where(
        total > 0, np.where(good, photos[:, 1:], 0).max(axis=1, initial=0) / np.maximum(total, 1), np.nan
    )
    return shares


def average_precision(photos: Floats, positives: Floats) -> Floats:
    """Mean of the precisions at which recall grows [R], as scikit-learn has it; NaN where nothing is positive."""
    gained = np.diff(positives, axis=1)
    total = positives[:, -1]
    summed = (gained * positives[:, 1:] / np.maximum(photos[:, 1:], 1)).sum(axis=1)
    precisions: Floats = np.where(total > 0, summed / np.maximum(total, 1), np.nan)
    return precisions


def auroc(photos: Floats, positives: Floats) -> Floats:
    """Probability that a positive photo is ranked before another one [R], ties counting half; NaN without either.

    From `Ranked.counted`; it is the area under the receiver operating characteristic (Fawcett 2006).
    """
    negatives = photos - positives
    rise = (positives[:, 1:] + positives[:, :-1]) / 2
    pairs = positives[:, -1] * negatives[:, -1]
    areas: Floats = np.where(pairs > 0, (np.diff(negatives, axis=1) * rise).sum(axis=1) / np.maximum(pairs, 1), np.nan)
    return areas


def _with_zero(counts: Ints) -> Floats:
    return np.concatenate([np.zeros((len(counts), 1)), counts], axis=1)
