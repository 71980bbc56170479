"""Boxes that a detector contradicts: missing, extra, displaced or mislabelled.

After ObjectLab (Tkachenko, Thyagarajan and Mueller 2023, "ObjectLab: Automated diagnosis of mislabeled images in
object detection data", arXiv 2309.00832): a confident prediction without a box, a box far from the prediction of its
own object, a box whose prediction has another class. Unlike there, predictions and boxes are matched one to one, for
photos are full of equal plants; thresholds come from the predictions themselves; and boxes that no prediction
supports are suspected, too.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from plantml.curate import out_of_fold
from plantml.curate.context import Subject
from plantml.curate.findings import Finding, count
from plantml.data import boxes
from plantml.errors import InputError
from plantml.metrics import detection
from plantml.metrics.detection import Detections
from plantml.metrics.statistics import Bools, Floats, Ints

NAME = "box-labels"

LEAST = 0.5
"""Suspicion from which a box is reported."""

_LEAST_SCORE = 0.25
"""Predictions are confident from the score with the best F1, and at least from this one."""

_SAME_PLACE = 0.1
"""IoU from which a prediction and a box may be of one object."""

_CLASS_BONUS = 0.25
"""IoU that a prediction of the box's own class may lack against one of another class."""

_TYPICAL = 3.0
"""Deviations below the median IoU from which a box is displaced."""

_LIMITS = (0.3, 0.75)
"""Bounds of the IoU below which a box is displaced."""


@dataclass(frozen=True)
class _Photo:
    """Boxes of one photo, the predictions, and how they are paired.

    Attributes:
        predicted: numbers of its predictions, int [M].
        true: numbers of its boxes, int [G].
        overlaps: IoU [M, G].
        pairs: places of paired predictions and boxes, int [P, 2].
    """

    predicted: Ints
    true: Ints
    overlaps: Floats
    pairs: Ints


@dataclass(frozen=True)
class _Usual:
    """What is usual of the pairs of all photos.

    Attributes:
        score: the median score of their predictions.
        own: by class, the mean score of the boxes' own class: that a model sees another class says little of a box if
            it is hardly ever certain of the box's class.
        limit: the IoU below which a box is displaced.
    """

    score: float
    own: Floats
    limit: float


def check(subject: Subject) -> list[Finding]:
    """Check the boxes of the photos in the folds of `subject.folds`.

    Missing, extra and displaced boxes are found whatever their class, wrong labels target by target.
    """
    assert subject.folds is not None
    photos = out_of_fold.predict(subject, out_of_fold.open_folds(subject.folds, subject.version, subject.machine))
    if not photos:
        raise InputError(
            f"No photo of {subject.version.ref} can be checked with {subject.folds}",
            "none that is annotated with boxes was held out of a fold",
            "Name a cross-validation of this dataset.",
        )
    annotated = subject.pictures.filter(pl.col("boxes").is_not_null()).height
    if annotated > len(photos):
        left = count(annotated - len(photos), "annotated photo")
        subject.notes.append(f"{NAME}: {left} in no fold, such as those of the test split, not checked.")
    rows = [photo.row for photo in photos]
    located = suspects(out_of_fold.detections(photos), rows)
    mislabelled: dict[tuple[object, ...], dict[str, Finding]] = defaultdict(dict)
    drawn = subject.pictures["boxes"].explode().drop_nulls()
    for target in boxes.targets_of(drawn, subject.version.targets):
        if target.kind == "class" and target.size > 1:
            for finding in _suspects(out_of_fold.detections_of(photos, target), rows, LEAST):
                if finding.code == "box-mislabelled":
                    place = finding.rows, *(finding.facts[side] for side in "xywh")
                    mislabelled[place][target.name] = finding
    return [*located, *(_placed(_of_targets(findings)) for findings in mislabelled.values())]


def _of_targets(findings: dict[str, Finding]) -> Finding:
    """One finding about a box whose labels of several targets are doubtful."""
    most = max(findings.values(), key=lambda finding: finding.score or 0.0)
    evidence = "; ".join(f"{target} {finding.evidence}" for target, finding in findings.items())
    labels = {
        name: {target: finding.facts[name] for target, finding in findings.items()} for name in ("label", "likely")
    }
    return replace(most, evidence=evidence, facts={**most.facts, **labels})


def suspects(detections: Detections, rows: Sequence[int], *, least: float = LEAST) -> list[Finding]:
    """Find boxes that out-of-fold predictions contradict, most suspicious first.

    The suspicion of a missing box is the score of its prediction. Of a displaced box it is that score as a share of the
    usual one, less up to half of it the nearer the box is to its object; of a mislabelled box, the score of the other
    class, or the usual score of the box's own class if that is lower, less the score of its own class here; of an
    extra box, the share of its class's boxes that predictions support, less the support that it has itself.

    Args:
        detections: true boxes, and predictions of all scores from models that were trained without the photo. A
            class without a name is that of boxes whatever their class.
        rows: row number of each photo.
        least: suspicion from which a box is reported.

    Returns:
        Findings of one box each, with its `x`, `y`, `w`, `h` as facts, and of a displaced box those `predicted`.
    """
    return [_placed(finding) for finding in _suspects(detections, rows, least)]


def _suspects(detections: Detections, rows: Sequence[int], least: float) -> list[Finding]:
    """The same, with evidence that does not yet say where."""
    threshold = max(detection.best_threshold(detections), _LEAST_SCORE)
    confident = detections.scores >= threshold
    photos = [_paired(detections, predicted, true, confident) for predicted, true in detection.by_photo(detections)]
    usual = _usual(detections, photos)
    support = _support(detections, photos, threshold, usual.limit)
    labels = detections.true_labels
    supported = np.bincount(labels, support >= 0.5, len(detections.classes))
    trust = supported / np.maximum(np.bincount(labels, minlength=len(detections.classes)), 1)
    findings: list[Finding] = []
    for row, photo in zip(rows, photos, strict=True):
        findings += _missing(detections, photo, confident, row)
        findings += _contradicted(detections, photo, usual, row)
        findings += _extra(detections, photo, trust[labels[photo.true]] - support[photo.true], row)
    reported = [finding for finding in findings if (finding.score or 0.0) >= least]
    return sorted(reported, key=lambda finding: (-(finding.score or 0.0), finding.rows))


def _paired(detections: Detections, predicted: Ints, true: Ints, confident: Bools) -> _Photo:
    """Pair confident predictions with boxes so that they overlap most in total, preferring the same class."""
    from scipy.optimize import linear_sum_assignment

    overlaps = detection.iou(detections.boxes[predicted], detections.true_boxes[true])
    same = detections.labels[predicted][:, None] == detections.true_labels[true][None]
    eligible = (overlaps >= _SAME_PLACE) & confident[predicted][:, None]
    pairs = np.stack(linear_sum_assignment(eligible * (overlaps + _CLASS_BONUS * same), maximize=True), axis=1)
    return _Photo(predicted, true, overlaps, pairs[eligible[pairs[:, 0], pairs[:, 1]]])


def _displaced_below(detections: Detections, photos: Sequence[_Photo]) -> float:
    """The IoU below which a box is displaced: far below that of most pairs of one class."""
    same = []
    for photo in photos:
        one, other = photo.pairs.T
        alike = detections.labels[photo.predicted[one]] == detections.true_labels[photo.true[other]]
        same.append(photo.overlaps[one, other][alike])
    overlaps = np.concatenate([[], *same])
    if not len(overlaps):
        return _LIMITS[0]
    median = np.median(overlaps)
    deviation = 1.4826 * np.median(np.abs(overlaps - median))
    return float(np.clip(median - _TYPICAL * deviation, *_LIMITS))


def _usual(detections: Detections, photos: Sequence[_Photo]) -> _Usual:
    own, paired = np.zeros(len(detections.classes)), np.zeros(len(detections.classes))
    scores: list[float] = []
    for photo in photos:
        for one, other in photo.pairs:
            label = detections.true_labels[photo.true[other]]
            own[label] += _own_score(detections, photo, other)
            paired[label] += 1
            scores.append(float(detections.scores[photo.predicted[one]]))
    middle = float(np.median(scores)) if scores else 1.0
    return _Usual(middle, own / np.maximum(paired, 1), _displaced_below(detections, photos))


def _support(detections: Detections, photos: Sequence[_Photo], threshold: float, limit: float) -> Floats:
    """How much predictions of any class support each box, 1 for a confident one in its place: [G]."""
    support = np.zeros(len(detections.true_boxes))
    for photo in photos:
        if photo.overlaps.size:
            # The root, because even a low score at its place tells a hard object from none.
            certainty = np.sqrt(np.minimum(detections.scores[photo.predicted] / threshold, 1))
            support[photo.true] = (np.minimum(photo.overlaps / limit, 1) * certainty[:, None]).max(axis=0)
    return support


def _missing(detections: Detections, photo: _Photo, confident: Bools, row: int) -> Iterator[Finding]:
    paired = np.isin(np.arange(len(photo.predicted)), photo.pairs[:, 0])
    covered = (photo.overlaps >= _LIMITS[0]).any(axis=1)
    for at in photo.predicted[confident[photo.predicted] & ~paired & ~covered]:
        score, label = float(detections.scores[at]), detections.classes[detections.labels[at]]
        evidence = f"no box where {_object(label)} is predicted ({score:.0%})"
        facts = {**_sides(detections.boxes[at]), **_known(likely=label)}
        yield Finding("box-missing", (row,), evidence, score, facts)


def _contradicted(detections: Detections, photo: _Photo, usual: _Usual, row: int) -> Iterator[Finding]:
    for one, other in photo.pairs:
        at, box = photo.predicted[one], photo.true[other]
        score, overlap = float(detections.scores[at]), float(photo.overlaps[one, other])
        label = detections.classes[detections.true_labels[box]]
        likely = detections.classes[detections.labels[at]]
        facts = {**_sides(detections.true_boxes[box]), **_known(label=label, likely=likely)}
        if label != likely and overlap >= _LIMITS[0]:
            own = _own_score(detections, photo, other)
            evidence = f"{label!r} ({own:.0%}), more likely {likely!r} ({score:.0%})"
            suspicion = max(0.0, min(score, float(usual.own[detections.true_labels[box]])) - own)
            yield Finding("box-mislabelled", (row,), evidence, suspicion, facts)
        elif label == likely and overlap < usual.limit:
            predicted = _sides(detections.boxes[at])
            evidence = f"{_object(label)} is predicted ({score:.0%}) with an IoU of {overlap:.2f} to the box"
            suspicion = min(1.0, score / usual.score) * (1 - overlap / usual.limit / 2)
            yield Finding("box-displaced", (row,), evidence, suspicion, {**facts, "predicted": predicted})


def _own_score(detections: Detections, photo: _Photo, box: int) -> float:
    """The highest score at this box of a prediction of its own class."""
    own = detections.labels[photo.predicted] == detections.true_labels[photo.true[box]]
    there = own & (photo.overlaps[:, box] >= 0.5)
    return float(detections.scores[photo.predicted[there]].max(initial=0.0))


def _extra(detections: Detections, photo: _Photo, suspicion: Floats, row: int) -> Iterator[Finding]:
    paired = np.isin(np.arange(len(photo.true)), photo.pairs[:, 1])
    for place in np.flatnonzero(~paired):
        box = photo.true[place]
        label = detections.classes[detections.true_labels[box]]
        evidence = f"nothing is predicted at the box{f' {label!r}' if label else ''}"
        facts = {**_sides(detections.true_boxes[box]), **_known(label=label)}
        yield Finding("box-extra", (row,), evidence, max(0.0, float(suspicion[place])), facts)


def _sides(xywh: Floats) -> dict[str, float]:
    return {side: round(float(value), 1) for side, value in zip("xywh", xywh, strict=True)}


def _object(label: str) -> str:
    return repr(label) if label else "an object"


def _known(**labels: str) -> dict[str, str]:
    return {name: label for name, label in labels.items() if label}


def _placed(finding: Finding) -> Finding:
    """The finding with the place of its box in the evidence."""
    place = "x {:.0f}, y {:.0f}, {:.0f} x {:.0f}".format(*(finding.facts[side] for side in "xywh"))
    return replace(finding, evidence=f"{finding.evidence}, {place}")
