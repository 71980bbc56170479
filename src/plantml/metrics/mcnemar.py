"""McNemar's test: do two models have the same accuracy on the same photos?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXACT = 1000
"""Number of differing photos up to which the exact binomial test is used."""


@dataclass(frozen=True)
class Paired:
    """Two models on the same photos.

    Attributes:
        photos: compared.
        wins: correct by the first model only.
        losses: correct by the second model only.
        p: probability of a difference at least so large between equal models, two-sided.
    """

    photos: int
    wins: int
    losses: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """The test for two models' correctness, bool [N] each, on the same photos.

    Exact up to `EXACT` photos on which they differ, else by chi-square with Edwards's correction (McNemar 1947;
    Edwards 1948). It takes photos for independent; where they come in groups, the bootstrap over groups says more.
    """
    wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
    differ = wins + losses
    if not differ:
        return Paired(len(first), 0, 0, 1.0)
    from scipy import stats

    if differ <= EXACT:
        p = stats.binomtest(wins, differ).pvalue
    else:
        p = stats.chi2.sf((abs(wins - losses) - 1) ** 2 / differ, 1)
    return Paired(len(first), wins, losses, float(p))
