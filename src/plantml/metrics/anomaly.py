"""Scores of a model that separates anomalous photos from normal ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import ranking
from plantml.metrics.statistics import Counts, Floats

NAME = "anomaly"
"""What the names of the scores begin with: `anomaly.auroc`."""


class AnomalyStatistic:
    """The scores of one model, in all photos and in resamples of them; see `statistics.Statistic`.

    `auroc`, `average_precision`, `sensitivity` (share of anomalous photos above the threshold) and `false_alarms`
    (share of normal ones), and the first and third for each kind of anomaly.

    Args:
        values: how anomalous each photo is: [N].
        truth: 1 for anomalous, 0 for normal, -1 for unlabelled photos: [N].
        kinds: of the anomalous photos, anything of the others: [N].
        threshold: above which a photo is called anomalous.

    Attributes:
        kinds: of anomalies, in alphabetical order.
        columns: see `statistics.Statistic`.
        support: anomalous photos of each kind.
    """

    def __init__(self, values: Floats, truth: NDArray[np.integer[Any]], kinds: Sequence[str | None], threshold: float):
        is_normal, is_anomalous, is_alarm = truth == 0, truth == 1, values > threshold
        names = np.array([kind if kind is not None else "" for kind in kinds], dtype=object)
        self.kinds = sorted({str(name) for name in names[is_anomalous]} - {""})
        masks = [is_anomalous, *(is_anomalous & (names == kind) for kind in self.kinds)]
        self.support = [int(mask.sum()) for mask in masks[1:]]
        self.columns: Floats = np.column_stack(
            [is_normal & is_alarm, is_normal, *(column for mask in masks for column in (mask & is_alarm, mask))]
        ).astype(np.float64)
        self._ranked = []
        for mask in masks:
            places = np.flatnonzero(is_normal | mask)
            self._ranked.append((places, ranking.ranked(values[places], mask[places])))

    def scores(self, sums: Floats, counts: Counts) -> dict[str, Floats]:
        """See `statistics.Statistic.scores`."""
        scores: dict[str, Floats] = {}
        for number, (places, ranked) in enumerate(self._ranked):
            photos, anomalous = ranked.counted(counts(places[ranked.order]))
            ending = f"[{self.kinds[number - 1]}]" if number else ""
            scores[f"{NAME}.auroc{ending}"] = ranking.auroc(photos, anomalous)
            if not number:
                scores[f"{NAME}.average_precision"] = ranking.average_precision(photos, anomalous)
            hits, total = sums[:, 2 + 2 * number], sums[:, 3 + 2 * number]
            scores[f"{NAME}.sensitivity{ending}"] = hits / total
            if not number:
                scores[f"{NAME}.false_alarms"] = sums[:, 0] / sums[:, 1]
        return scores

    def of_all(self) -> dict[str, float]:
        """The scores of all photos, without those that the photos say nothing of."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = self.scores(
                self.columns.sum(axis=0, keepdims=True), lambda photos: np.ones((1, len(photos)), np.int64)
            )
        return {name: float(values[0]) for name, values in scores.items() if not np.isnan(values[0])}
