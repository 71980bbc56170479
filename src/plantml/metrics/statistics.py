"""Scores of predictions, each defined once: for all photos, and for many resamples of them at a time.

A statistic keeps columns by photo, such as right predictions of a class. A score is made of their sums over photos,
and, for curves, of the photos in the order of their scores.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import ranking
from plantml.targets import Target

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

Counts = Callable[[Ints], Ints]
"""How often each of R samples holds photos at these places [P]: whole numbers [R, P]."""

BINS = 15
"""Bins of the calibration error."""

TOP = (3, 5)
"""Values of k for top-k accuracy, used where there are more than k classes."""

RISKS = {"coverage_at_1pct": 0.01, "coverage_at_5pct": 0.05}
"""Coverage scores, and the risk at which each is taken."""


class Statistic(Protocol):
    """Scores that are made of sums over photos.

    Attributes:
        columns: [N, K], what is summed.
    """

    columns: Floats

    def scores(self, sums: Floats, counts: Counts) -> dict[str, Floats]:
        """Scores by name, float64 [R], of sums [R, K] of the columns; NaN where a sample says nothing of one."""
        ...


class TargetStatistic:
    """The scores of a target, `target.score`, and of its classes, `target.score[class]`.

    Attributes:
        target: that was predicted.
        known: places of the labelled photos.
        columns: see `Statistic`; zero for photos without a label.
    """

    def __init__(self, target: Target, known: Ints, photos: int, *blocks: Floats | Bools) -> None:
        self.target, self.known = target, known
        values = np.column_stack(blocks)
        self.columns: Floats = np.zeros((photos, values.shape[1]))
        self.columns[known] = values

    def measure(self, sums: Floats, counts: Counts) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Scores of the target [R], and of its classes with their `support` [R, classes]; see `Statistic.scores`."""
        raise NotImplementedError

    def scores(self, sums: Floats, counts: Counts) -> dict[str, Floats]:
        """See `Statistic.scores`."""
        overall, by_class = self.measure(sums, counts)
        scores = {f"{self.target.name}.{score}": values for score, values in overall.items()}
        for score, values in by_class.items():
            if score != "support":
                scores |= {f"{self.target.name}.{score}[{n}]": values[:, i] for i, n in enumerate(self.target.classes)}
        return scores

    def of_all(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Scores of all photos, and by class its scores; 0 where the photos say nothing of one."""
        with np.errstate(divide="ignore", invalid="ignore"):
            overall, by_class = self.measure(
                self.columns.sum(axis=0, keepdims=True), lambda photos: np.ones((1, len(photos)), np.int64)
            )
        rows = {
            name: {score: float(np.nan_to_num(values[0, number])) for score, values in by_class.items()}
            for number, name in enumerate(self.target.classes)
        }
        for row in rows.values():
            row["support"] = int(row["support"])
        return {score: float(np.nan_to_num(values[0])) for score, values in overall.items()}, rows


class ClassStatistic(TargetStatistic):
    """The scores of a class target: class numbers [N], -1 without a label, and probabilities [N, classes]."""

    def __init__(self, target: Target, truth: Ints, outputs: Floats, shared: frozenset[str] | None = None) -> None:
        known = np.flatnonzero(target.labelled(truth))
        size = len(target.classes)
        self._shared = np.array([shared is None or name in shared for name in target.classes])
        photos, truth, outputs = len(truth), truth[known], outputs[known]
        predicted, confidence = outputs.argmax(axis=1), outputs.max(axis=1)
        right = predicted == truth
        gaps = np.zeros((len(known), BINS))
        gaps[np.arange(len(known)), calibration_bins(confidence)] = right - confidence.astype(np.float64)
        self._tops = [k for k in TOP if size > k]
        # Classes from the most probable to the least, equal ones in their order.
        order = np.argsort(-outputs, axis=1, kind="stable")
        wide = outputs.astype(np.float64)
        true, named = np.eye(size)[truth], np.eye(size)[predicted]
        super().__init__(
            target,
            known,
            photos,
            true * right[:, None],
            true,
            named,
            gaps,
            ((wide - true) ** 2).sum(axis=1),  # of Brier 1950, 0 to 2
            *((order[:, :k] == truth[:, None]).any(axis=1) for k in self._tops),
        )
        self._ranked = ranking.ranked(confidence, ~right)

    def measure(self, sums: Floats, counts: Counts) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """See `TargetStatistic.measure`.

        Calibration error after Naeini et al. 2015 and Guo et al. 2017, of the top class.
        """
        size = len(self.target.classes)
        hits, support, named = sums[:, :size], sums[:, size : 2 * size], sums[:, 2 * size : 3 * size]
        gaps, rest = sums[:, 3 * size : 3 * size + BINS], sums[:, 3 * size + BINS :]
        photos = support.sum(axis=1)
        recall, f1 = hits / support, 2 * hits / (support + named)  # NaN where there is nothing to divide by
        by_score, wrong = self._ranked.counted(counts(self.known[self._ranked.order]))
        scores = {
            "accuracy": hits.sum(axis=1) / photos,
            "balanced_accuracy": known_mean(recall),
            # A class that is neither there nor named says nothing; scikit-learn leaves it out of the mean too.
            "macro_f1": known_mean(np.where(self._shared, f1, np.nan)),
            "weighted_f1": np.nansum(f1 * support, axis=1) / photos,
            **{f"top{k}_accuracy": rest[:, 1 + at] / photos for at, k in enumerate(self._tops)},
            "ece": np.abs(gaps).sum(axis=1) / photos,
            "brier": rest[:, 0] / photos,
            "aurc": ranking.area(by_score, wrong),
            **{key: ranking.coverage(by_score, wrong, risk) for key, risk in RISKS.items()},
        }
        return scores, {"precision": hits / named, "recall": recall, "f1": f1, "support": support}


class MultilabelStatistic(TargetStatistic):
    """The scores of a multilabel target: labels and probabilities [N, classes], each on its own at probability 0.5."""

    def __init__(self, target: Target, truth: Floats, outputs: Floats) -> None:
        known = np.flatnonzero(target.labelled(truth))
        there, wide = truth[known] > 0.5, outputs[known].astype(np.float64)
        predicted = wide >= 0.5
        super().__init__(
            target,
            known,
            len(truth),
            there & predicted,
            there,
            predicted,
            (there == predicted).all(axis=1),
            ((wide - there) ** 2).mean(axis=1),
            np.ones(len(known)),
        )
        self._ranked = [ranking.ranked(wide[:, at], there[:, at]) for at in range(len(target.classes))]

    def measure(self, sums: Floats, counts: Counts) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """See `TargetStatistic.measure`. `average_precision` is the mean over classes that some photo has."""
        size = len(self.target.classes)
        hits, support, named = sums[:, :size], sums[:, size : 2 * size], sums[:, 2 * size : 3 * size]
        same, brier, photos = sums[:, -3], sums[:, -2], sums[:, -1]
        f1 = 2 * hits / (support + named)
        precisions = np.column_stack(
            [ranking.average_precision(*each.counted(counts(self.known[each.order]))) for each in self._ranked]
        )
        scores = {
            "accuracy": same / photos,
            "macro_f1": np.nan_to_num(f1).mean(axis=1),
            "weighted_f1": np.nansum(f1 * support, axis=1) / support.sum(axis=1),
            "average_precision": known_mean(precisions),
            "brier": brier / photos,
        }
        by_class = {"precision": hits / named, "recall": hits / support, "f1": f1, "support": support}
        return scores, by_class | {"average_precision": precisions}


class ValueStatistic(TargetStatistic):
    """The scores of a value target: numbers [N], NaN without a label, and outputs [N, 1]."""

    def __init__(self, target: Target, truth: Floats, outputs: Floats) -> None:
        known = np.flatnonzero(target.labelled(truth))
        true, predicted = truth[known].astype(np.float64), outputs[known, 0].astype(np.float64)
        centred = true - true.mean() if len(true) else true  # sums of squares stay small, and float32 enough
        error = predicted - true
        super().__init__(target, known, len(truth), np.ones(len(true)), centred, centred**2, np.abs(error), error**2)

    def measure(
        self,
        sums: Floats,
        counts: Counts,  # noqa: ARG002 - sums are enough
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """See `TargetStatistic.measure`. R2 says nothing where the truth does not vary."""
        photos, linear, square, absolute, squared = sums.T
        spread = square - linear**2 / photos
        r2 = np.where(spread > 1e-9 * square, 1 - squared / spread, np.nan)
        return {"r2": r2, "mae": absolute / photos, "rmse": np.sqrt(squared / photos), "mse": squared / photos}, {}


class MeanStatistic:
    """Means of photo columns over some of the photos: the joint score, the scores of slices.

    Args:
        means: by name: values [N], and which photos count, bool [N].
    """

    def __init__(self, means: Mapping[str, tuple[Floats | Bools, Bools]]) -> None:
        self._names = list(means)
        values = [np.where(mask, value, 0.0) for value, mask in means.values()]
        self.columns: Floats = np.stack([*values, *(mask.astype(float) for _, mask in means.values())], axis=1)

    def scores(self, sums: Floats, counts: Counts) -> dict[str, Floats]:  # noqa: ARG002 - sums are enough
        """See `Statistic.scores`."""
        count = len(self._names)
        return dict(zip(self._names, (sums[:, :count] / sums[:, count:]).T, strict=True))


def of_target(
    target: Target, truth: NDArray[Any], outputs: Floats, shared: frozenset[str] | None = None
) -> TargetStatistic:
    """The statistic of a target.

    Args:
        target: what was predicted.
        truth: labels as `Target.encode` gives them.
        outputs: probabilities [N, classes], or values [N, 1].
        shared: classes over which means are taken; those that are there or named, if not given.
    """
    if target.kind == "class":
        return ClassStatistic(target, truth, outputs, shared)
    return (MultilabelStatistic if target.kind == "multilabel" else ValueStatistic)(target, truth, outputs)


def calibration_bins(confidence: Floats) -> Ints:
    """The bin, 0 to BINS - 1, of each confidence [N]; bins are open below and closed above."""
    numbers: Ints = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    return numbers


def calibration_error(confidence: Floats, right: Bools) -> float:
    """Expected calibration error over bins of equal width (Naeini et al. 2015; Guo et al. 2017).

    Args:
        confidence: in 0 to 1, [N].
        right: whether the predictions are correct, [N].
    """
    gaps = np.bincount(calibration_bins(confidence), right - confidence.astype(np.float64), BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def known_mean(values: Floats) -> Floats:
    """Mean of each row [R] over what is not NaN [R, C]; NaN where all is."""
    known = ~np.isnan(values)
    means: Floats = np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)
    return means
