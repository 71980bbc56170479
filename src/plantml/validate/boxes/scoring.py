"""Predicted boxes compared with the annotated ones: scores and their intervals.

A score of boxes whatever their class is `boxes.ap50`. With a target it is `boxes.health.ap50`, where a box is right
only if its class is, and `boxes.health.ap50[diseased]` is that of one class. `boxes.macro_ap` is the mean of
`boxes.health.ap` and the like over the targets. `health.macro_f1` and the like are about the boxes that have an
annotated one: is their class right?
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import metrics
from plantml.data import boxes
from plantml.metrics import Groups, Report, detection
from plantml.metrics.detection import DetectionReport, Detections, DetectionStatistic
from plantml.metrics.statistics import Counts, Floats, Ints, Statistic, of_target
from plantml.model.contract import Contract
from plantml.targets import Target
from plantml.validate import box_arrays, scoring
from plantml.validate.config import ValidateConfig
from plantml.validate.predictions import Predictions
from plantml.validate.scoring import Evaluation
from plantml.validate.selection import Photos, groups_of

BOXES, BOX = "boxes", "box"
"""What scores of boxes are called whatever their class, and the only class that they then have."""

MACRO_AP = f"{BOXES}.macro_ap"
"""The mean over targets of the average precision of their classes."""

HEADLINE = ("ap", "ap50", "ap75", "precision", "recall", "f1")
"""Scores of a target's boxes; the others are those of all boxes, or of a class."""


@dataclass(frozen=True)
class BoxOutcomes:
    """Annotated and predicted boxes of the readable photos, flat: those of all photos one after another.

    Attributes:
        targets: of the boxes, that were validated.
        photos: how many there are.
        threshold: score from which a predicted box counts.
        boxes: predicted, float64 [M, 4]: x, y, w, h in pixels.
        scores: of the predicted boxes, [M].
        decisions: of the predicted boxes, by their place in `box_arrays.DECISIONS`, [M].
        photo: number of each predicted box's photo, [M].
        outputs: by target, float32 [M, classes]; NaN for a target that a box is without.
        true_boxes: float64 [G, 4].
        true_photo: [G].
        truth: by target, as `Target.encode` gives it, [G].
        groups: of the photos.
        shared: by target, classes that means are over.
    """

    targets: Sequence[Target]
    photos: int
    threshold: float
    boxes: Floats
    scores: Floats
    decisions: Ints
    photo: Ints
    outputs: Mapping[str, Floats]
    true_boxes: Floats
    true_photo: Ints
    truth: Mapping[str, NDArray[Any]]
    groups: Groups
    shared: Mapping[str, frozenset[str]]

    @property
    def classified(self) -> list[Target]:
        """The targets with classes to tell apart."""
        return [target for target in self.targets if target.kind == "class" and target.size > 1]

    def known(self, target: Target) -> NDArray[np.bool_]:
        """Which annotated boxes are labelled: bool [G]."""
        return target.labelled(self.truth[target.name])

    @cached_property
    def detections(self) -> Detections:
        """All boxes, whatever their class."""
        none, none_true = np.zeros(len(self.boxes), np.int64), np.zeros(len(self.true_boxes), np.int64)
        return self._detections((BOX,), none, none_true)

    @cached_property
    def match(self) -> Ints:
        """The annotated box of each predicted one that counts, whatever their class; -1 for none, [M]."""
        matches = np.full(len(self.boxes), -1, np.int64)
        for predicted, true in self.by_photo:
            overlaps = detection.iou(self.boxes[predicted], self.true_boxes[true])
            places = detection.match(overlaps, self.scores[predicted])
            matches[predicted[places >= 0]] = true[places[places >= 0]]
        return matches

    @cached_property
    def by_photo(self) -> list[tuple[Ints, Ints]]:
        """The places of each photo's predicted boxes that count, and of its annotated ones."""
        starts = np.arange(1, self.photos)
        counted = np.flatnonzero(self.scores >= self.threshold)
        predicted = np.split(counted, np.searchsorted(self.photo[counted], starts))
        true = np.split(np.arange(len(self.true_photo)), np.searchsorted(self.true_photo, starts))
        return list(zip(predicted, true, strict=True))

    def counts(self) -> dict[str, list[Counter[str]]]:
        """By name, `boxes` and class targets: the number of predicted boxes of each photo, by class."""
        counted = [predicted for predicted, _ in self.by_photo]
        counts = {BOXES: [Counter({BOXES: len(places)}) for places in counted]}
        for target in self.classified:
            names, given = np.array(target.classes)[self.labels(target)], self.given(target)
            counts[target.name] = [Counter(names[places[given[places]]].tolist()) for places in counted]
        return counts

    def given(self, target: Target) -> NDArray[np.bool_]:
        """Which predicted boxes have a prediction for a target: bool [M]."""
        return box_arrays.given(self.outputs[target.name])

    def labels(self, target: Target) -> Ints:
        """The most likely class of a target for each predicted box, [M]; any class where it has no prediction."""
        classes: Ints = self.outputs[target.name].argmax(axis=1)
        return classes

    def detections_of(self, target: Target) -> Detections:
        """The boxes that have a prediction for a target, by their most likely class."""
        return self._detections(
            target.classes, self.labels(target), self.truth[target.name], np.flatnonzero(self.given(target))
        )

    def _detections(
        self, classes: tuple[str, ...], labels: Ints, true_labels: Ints, places: Ints | slice = slice(None)
    ) -> Detections:
        return Detections(
            classes,
            self.photos,
            self.boxes[places],
            self.scores[places],
            labels[places],
            self.photo[places],
            self.true_boxes,
            true_labels,
            self.true_photo,
        )


@dataclass(frozen=True)
class BoxEvaluation(Evaluation):
    """The scores of one model that finds boxes: by target, or `boxes`, reports and counts of each photo."""

    detections: Mapping[str, DetectionReport]
    counts: Mapping[str, Floats]


class _OfBoxes:
    """A statistic of boxes, each of one of so many photos."""

    def __init__(self, statistic: Statistic, photo: Ints, photos: int) -> None:
        self._statistic, self._photo = statistic, photo
        self.columns: Floats = np.zeros((photos, statistic.columns.shape[1]))
        np.add.at(self.columns, photo, statistic.columns)

    def scores(self, sums: Floats, counts: Counts) -> dict[str, Floats]:
        """See `statistics.Statistic.scores`."""
        return self._statistic.scores(sums, lambda boxes: counts(self._photo[boxes]))


class _Named:
    """A statistic whose scores are called `prefix` + their own names."""

    def __init__(self, statistic: Statistic, prefix: str) -> None:
        self._statistic, self._prefix = statistic, prefix
        self.columns = statistic.columns

    def scores(self, sums: Floats, counts: Counts) -> dict[str, Floats]:
        """See `statistics.Statistic.scores`."""
        scores = self._statistic.scores(sums, counts)
        return {f"{self._prefix}{name}": values for name, values in scores.items()}


def outcomes(
    contract: Contract, targets: Sequence[Target], photos: Photos, predictions: Predictions, places: Sequence[int]
) -> BoxOutcomes:
    """Outcomes of the photos at `places`, all readable; targets have the predicting model's classes."""
    assert contract.detection is not None
    rows = photos.rows[list(places)]
    outputs = [predictions.items[at].probabilities or {} for at in places]
    true_boxes = [boxes.from_rows(photo) or () for photo in rows["boxes"].to_list()]
    drawn = [box for photo in true_boxes for box in photo]
    return BoxOutcomes(
        targets=targets,
        photos=len(places),
        threshold=contract.detection.threshold,
        # Records have two decimals.
        boxes=np.concatenate([each["boxes"] for each in outputs]).astype(np.float64).round(2),
        scores=np.concatenate([box_arrays.scores(each) for each in outputs]),
        decisions=np.concatenate([each["decision"][:, 0] for each in outputs]).astype(np.int64),
        photo=np.repeat(np.arange(len(places)), [len(each["score"]) for each in outputs]),
        outputs={
            target.name: np.concatenate([each[f"target.{target.name}"] for each in outputs]) for target in targets
        },
        true_boxes=np.array([[box.x, box.y, box.w, box.h] for box in drawn], np.float64).reshape(-1, 4),
        true_photo=np.repeat(np.arange(len(places)), [len(photo) for photo in true_boxes]),
        truth={target.name: target.encode([box.labels.get(target.name) for box in drawn]) for target in targets},
        groups=groups_of(rows),
        shared=photos.shared,
    )


def evaluate(outcomes: BoxOutcomes, config: ValidateConfig) -> BoxEvaluation:
    """Scores with their intervals."""
    detections = {BOXES: outcomes.detections} | {
        each.name: outcomes.detections_of(each) for each in outcomes.classified
    }
    statistics = {name: DetectionStatistic(each, threshold=outcomes.threshold) for name, each in detections.items()}
    done = {name: statistic.report() for name, statistic in statistics.items()}
    measured: list[Statistic] = [_Named(statistic, _prefix(name)) for name, statistic in statistics.items()]
    truth, outputs, photo = matched(outcomes)
    judged = [target for target in outcomes.targets if target.size > 1 or target.kind != "class"]
    reports = metrics.reports_of(judged, truth, outputs, outcomes.shared)
    measured += [
        _OfBoxes(
            of_target(target, truth[target.name], outputs[target.name], outcomes.shared.get(target.name)),
            photo,
            outcomes.photos,
        )
        for target in judged
        if target.labelled(truth[target.name]).any()
    ]
    scores, every = _scores(done, reports)
    replicates = metrics.replicate(measured, outcomes.groups, resamples=config.resamples, seed=config.seed)
    replicates = {
        **replicates,
        **metrics.mean_scores(replicates, (report.target for report in reports)),
        **_macro_ap(replicates, done),
    }
    intervals = scoring.intervals(every, replicates, outcomes.groups.count, class_groups(outcomes))
    counts = {name: statistic.counts for name, statistic in statistics.items()}
    return BoxEvaluation(reports, scores, every, intervals, replicates, done, counts)


def matched(outcomes: BoxOutcomes) -> tuple[dict[str, NDArray[Any]], dict[str, Floats], Ints]:
    """Labels and outputs by target of the predicted boxes that have an annotated one, and their photos.

    A box without a prediction for a target counts as not labelled.
    """
    right = np.flatnonzero(outcomes.match >= 0)
    truth = {name: labels[outcomes.match[right]] for name, labels in outcomes.truth.items()}
    outputs = {name: np.nan_to_num(numbers[right]) for name, numbers in outcomes.outputs.items()}
    for target in outcomes.targets:
        truth[target.name][~outcomes.given(target)[right]] = target.encode([None])[0]
    return truth, outputs, outcomes.photo[right]


def class_groups(outcomes: BoxOutcomes) -> dict[str, int]:
    """The number of groups behind each score of a class: those with boxes of it."""
    sizes: dict[str, int] = {}
    for target in outcomes.classified:
        for number, name in enumerate(target.classes):
            photos = np.zeros(outcomes.photos, bool)
            photos[outcomes.true_photo[outcomes.truth[target.name] == number]] = True
            there = outcomes.groups.having(photos)
            sizes |= {f"{_prefix(target.name)}{score}[{name}]": there for score in (*HEADLINE, "count_exact")}
            sizes |= {f"{target.name}.{score}[{name}]": there for score in ("precision", "recall", "f1")}
    return sizes


def _macro_ap(scores: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The mean over targets of their average precision, of numbers or of resamples [R], where there are any."""
    parts = [scores[f"{_prefix(name)}ap"] for name in names if name != BOXES and f"{_prefix(name)}ap" in scores]
    return {MACRO_AP: sum(parts) / len(parts)} if parts else {}


def _prefix(name: str) -> str:
    return f"{BOXES}." if name == BOXES else f"{BOXES}.{name}."


def _scores(
    detections: Mapping[str, DetectionReport], reports: Sequence[Report]
) -> tuple[dict[str, float], dict[str, float]]:
    """The headline, and all numbers that a gate can name."""
    scores: dict[str, float] = {}
    every: dict[str, float] = {}  # of classes
    for name, report in detections.items():
        prefix = _prefix(name)
        scores |= {f"{prefix}{k}": v for k, v in report.scores.items() if name == BOXES or k in HEADLINE}
        if name != BOXES:
            for label, row in report.per_class.items():
                every |= {f"{prefix}{k}[{label}]": value for k, value in row.items()}
    scores |= _macro_ap(scores, detections)
    return scores | metrics.headline(reports), scores | every | metrics.every_score(reports)
