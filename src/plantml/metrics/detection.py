"""Metrics of predicted boxes: average precision, precision and recall, counting errors, confusion, calibration.

Average precision follows COCO (Lin et al. 2014, "Microsoft COCO"; https://cocodataset.org/#detection-eval): boxes are
matched greedily, the most certain first, within a photo and a class. Matching does not depend on which other photos
there are, so that it is done once, and a resample only counts photos more or less often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plantml.metrics import calibration
from plantml.metrics.average_precision import Curve, Curves
from plantml.metrics.calibration import Reliability
from plantml.metrics.statistics import BINS, Bools, Counts, Floats, Ints, calibration_bins, known_mean

IOUS: Floats = np.linspace(0.5, 0.95, 10)
"""Thresholds of intersection over union that average precision is a mean over."""

SIZES: Mapping[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""COCO's ranges of a box's area in square pixels, both ends included."""

_F1_GIVEN = 0.01
"""F1 that may be given for a count without bias."""

MAX_BOXES = 300
"""Boxes of a class and photo that count for average precision; COCO's own number, 100, is too few for a field."""


@dataclass(frozen=True)
class Detections:
    """Predicted and true boxes of annotated photos, flat: the boxes of all photos one after another.

    Attributes:
        classes: names, by class number.
        photos: how many there are, those without a box included.
        boxes: predicted, float [M, 4]: x, y, w, h in pixels.
        scores: of the predicted boxes, [M], 0 to 1.
        labels: class numbers of the predicted boxes, int [M].
        photo: number of each predicted box's photo, int [M].
        true_boxes: float [G, 4].
        true_labels: int [G]; -1 for a box without a label: of no class is it known whether the box is one. A
            predicted box that matches only such a one is neither right nor wrong.
        true_photo: int [G].
    """

    classes: tuple[str, ...]
    photos: int
    boxes: Floats
    scores: Floats
    labels: Ints
    photo: Ints
    true_boxes: Floats
    true_labels: Ints
    true_photo: Ints


def of_one_class(boxes: Sequence[Floats], scores: Sequence[Floats], truth: Sequence[Floats]) -> Detections:
    """Boxes whatever their class; by photo, the predicted ones [m, 4], their scores [m] and the true ones [g, 4]."""
    photo, true_photo = (np.repeat(np.arange(len(each)), list(map(len, each))) for each in (scores, truth))
    none = np.empty((0, 4), np.float32)
    return Detections(
        ("box",),
        len(truth),
        np.concatenate([none, *boxes]),
        np.concatenate([none[:, 0], *scores]),
        np.zeros(len(photo), np.int64),
        photo,
        np.concatenate([none, *truth]),
        np.zeros(len(true_photo), np.int64),
        true_photo,
    )


@dataclass(frozen=True)
class DetectionReport:
    """How well boxes were predicted.

    Attributes:
        classes: names, in the order of the matrix, which has the background after them.
        photos: number of annotated photos.
        threshold: boxes of at least this score count for all but average precision and calibration.
        scores: numbers over all classes by name; one that the photos say nothing of is left out.
        per_class: the same by class, with the number of true boxes as `support`.
        confusion: int64 [truth, prediction], classes and background, at `threshold`, matched whatever the class.
        calibration: of all scores: is the box a true positive at an IoU of 0.5?
    """

    classes: tuple[str, ...]
    photos: int
    threshold: float
    scores: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]
    confusion: Ints
    calibration: Reliability

    def as_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {
            "photos": self.photos,
            "threshold": self.threshold,
            **self.scores,
            "classes": list(self.classes),
            "per_class": {name: dict(row) for name, row in self.per_class.items()},
            "confusion": self.confusion.tolist(),
        }


class DetectionStatistic:
    """The scores of predicted boxes, and those of classes as `score[class]`; a `statistics.Statistic`.

    `ap`, `ap50` and `ap75` are means over classes that have true boxes, as are `ap_small`, `ap_medium` and `ap_large`.
    `precision`, `recall` and `f1` count the boxes of all classes. The errors of counting, `count_bias` (predicted
    less true), `count_mae` and `count_exact`, are means over photos.

    Args:
        detections: predicted and true boxes.
        threshold: the score from which a box counts for precision, recall, F1 and counting; if not given, the one that
            counts best, see `_counting_threshold`.
        max_boxes: of a class and photo that count for average precision.

    Attributes:
        columns: float64 [photos, K]; see `statistics.Statistic`.
        threshold: see above.
        partner: the true box that each predicted one matches at an IoU of 0.5; -1 for none, int [M].
        counts: right boxes, boxes that count, and true boxes by photo: float64 [photos, 3].
    """

    def __init__(self, detections: Detections, *, threshold: float | None = None, max_boxes: int = MAX_BOXES) -> None:
        self.classes, self._photos = detections.classes, detections.photos
        self._detections = detections
        matches = _match_all(detections)
        self.partner = matches.partner
        right, known = matches.right[0, 0], ~matches.ignored[0, 0]
        self._right, self._known = right, known
        labelled = detections.true_labels >= 0
        if threshold is None:
            threshold = _counting_threshold(detections.scores[known], right[known], int(labelled.sum()))
        self.threshold = threshold
        counted = known & (detections.scores >= self.threshold)
        predicted = self._count(detections.photo[counted], detections.labels[counted])
        hits = self._count(detections.photo[counted & right], detections.labels[counted & right])
        true = self._count(detections.true_photo[labelled], detections.true_labels[labelled])
        # Counting errors by class, and in total.
        errors = np.column_stack([predicted - true, (predicted - true).sum(axis=1)])
        gaps = np.zeros((self._photos, BINS))
        bins = calibration_bins(detections.scores[known])
        np.add.at(gaps, (detections.photo[known], bins), right[known] - detections.scores[known])
        self.counts: Floats = np.column_stack([each.sum(axis=1) for each in (hits, predicted, true)])
        self._curves = _curves(detections, matches, max_boxes)
        self._blocks: Mapping[str, Floats] = {
            "hits": hits,
            "predicted": predicted,
            "true": true,
            "bias": errors,
            "mae": np.abs(errors),
            "exact": (errors == 0).astype(np.float64),
            "gaps": gaps,
            "boxes": np.bincount(detections.photo[known], minlength=self._photos)[:, None].astype(np.float64),
            "photos": np.ones((self._photos, 1)),
        }
        self.columns: Floats = np.column_stack(list(self._blocks.values()))

    def scores(self, sums: Floats, counts: Counts) -> dict[str, Floats]:
        """See `statistics.Statistic.scores`."""
        overall, by_class = self.measure(sums, counts)
        of_classes = {
            f"{score}[{name}]": values[:, number]
            for score, values in by_class.items()
            if score != "support"
            for number, name in enumerate(self.classes)
        }
        return overall | of_classes

    def measure(self, sums: Floats, counts: Counts) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Scores [R], and those of classes with their `support` [R, classes]; NaN where nothing is said of one."""
        ends = np.cumsum([block.shape[1] for block in self._blocks.values()])
        part = dict(zip(self._blocks, np.split(sums, ends[:-1], axis=1), strict=True))
        hits, predicted, true, photos = part["hits"], part["predicted"], part["true"], part["photos"]
        curves = self._average_precisions(counts(np.arange(self._photos)))
        average = {score: known_mean(values) for score, values in curves.items()}
        total, named, support = hits.sum(axis=1), predicted.sum(axis=1), true.sum(axis=1)
        overall = {
            **average,
            "precision": total / named,
            "recall": total / support,
            "f1": 2 * total / (named + support),
            **{f"count_{score}": (part[score] / photos)[:, -1] for score in ("bias", "mae", "exact")},
            "ece": np.abs(part["gaps"]).sum(axis=1) / part["boxes"][:, 0],
        }
        by_class = {
            **{score: curves[score] for score in ("ap", "ap50", "ap75")},
            "precision": hits / predicted,
            "recall": hits / true,
            "f1": 2 * hits / (predicted + true),
            **{f"count_{score}": (part[score] / photos)[:, :-1] for score in ("bias", "mae", "exact")},
            "support": true,
        }
        return overall, by_class

    def of_all(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Scores of all photos, and by class its scores; those that the photos say nothing of are left out."""
        with np.errstate(divide="ignore", invalid="ignore"):
            overall, by_class = self.measure(
                self.columns.sum(axis=0, keepdims=True), lambda photos: np.ones((1, len(photos)), np.int64)
            )
        scores = {score: float(values[0]) for score, values in overall.items() if not np.isnan(values[0])}
        rows = {
            name: {score: float(v[0, number]) for score, v in by_class.items() if not np.isnan(v[0, number])}
            for number, name in enumerate(self.classes)
        }
        for row in rows.values():
            row["support"] = int(row["support"])
        return scores, rows

    def report(self) -> DetectionReport:
        """All numbers of all photos."""
        scores, per_class = self.of_all()
        return DetectionReport(
            self.classes,
            self._photos,
            self.threshold,
            scores,
            per_class,
            confusion(self._detections, self.threshold),
            calibration.reliability(self._detections.scores[self._known], self._right[self._known]),
        )

    def _average_precisions(self, weights: Ints) -> dict[str, Floats]:
        """Average precision by score and class [R, classes], of photos counted `weights` [R, photos] times."""
        shape = len(weights), len(SIZES), len(self.classes), len(IOUS)
        by_size = dict(zip(SIZES, self._curves.average_precision(weights).reshape(shape).swapaxes(0, 1), strict=True))
        whole = by_size.pop("all")  # [R, classes, IoU]
        means = {f"ap_{size}": values.mean(axis=2) for size, values in by_size.items()}
        return {"ap": whole.mean(axis=2), "ap50": whole[..., 0], "ap75": whole[..., 5], **means}

    def _count(self, photo: Ints, labels: Ints) -> Floats:
        """Number of boxes by photo and class: float64 [photos, classes]."""
        size = len(self.classes)
        counts = np.bincount(photo * size + labels, minlength=self._photos * size)
        return counts.reshape(self._photos, size).astype(np.float64)


def report(detections: Detections, *, threshold: float | None = None, max_boxes: int = MAX_BOXES) -> DetectionReport:
    """All numbers of predicted boxes; see `DetectionStatistic`."""
    return DetectionStatistic(detections, threshold=threshold, max_boxes=max_boxes).report()


def iou(one: Floats, other: Floats) -> Floats:
    """Intersection over union of boxes x, y, w, h [M, 4] and [G, 4]: float64 [M, G]; 0 for boxes without area."""
    one, other = np.asarray(one, np.float64)[:, None], np.asarray(other, np.float64)[None]
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., :2] + one[..., 2:], other[..., :2] + other[..., 2:])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    union = one[..., 2:].prod(axis=-1) + other[..., 2:].prod(axis=-1) - shared
    shares: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return shares


def match(overlaps: Floats, scores: Floats, threshold: float = 0.5) -> Ints:
    """The true box of each predicted box of one photo, by COCO's greedy rule: int64 [M], -1 without one.

    The most certain box takes the true box that it overlaps most, if by `threshold` at least; then the next one, of
    those that are left.

    Args:
        overlaps: IoU of predicted and true boxes [M, G].
        scores: of the predicted boxes, [M].
        threshold: the least IoU of a match.
    """
    matches = np.full(len(scores), -1, np.int64)
    order = _falling(scores)
    none_ignored = np.zeros((1, overlaps.shape[1]), bool)
    matches[order] = _match_photo(overlaps[order], np.array([threshold]), none_ignored)[0, 0]
    return matches


def true_positives(detections: Detections, threshold: float = 0.5) -> Bools:
    """Which predicted boxes match a true box of their class, at this IoU: bool [M]."""
    right = np.zeros(len(detections.scores), bool)
    for predicted, true in by_photo(detections):
        overlaps = _overlaps(detections, predicted, true)
        right[predicted] = match(overlaps, detections.scores[predicted], threshold) >= 0
    return right


def best_threshold(detections: Detections) -> float:
    """The score from which the F1 of all boxes at an IoU of 0.5 is best; of equal ones the highest; 0 without boxes."""
    if not len(detections.scores):
        return 0.0
    scores, f1 = _f1_from(detections.scores, true_positives(detections), len(detections.true_boxes))
    return _at_least(scores[int(f1.argmax())])


def _counting_threshold(scores: Floats, right: Bools, true: int) -> float:
    """The score from which as many boxes count as there are true ones, as far as it costs at most `_F1_GIVEN` of F1.

    Where boxes are found but drawn too large or too small, the best F1 counts too few of them: on nursery trays it has
    the exact number in 50 % of the photos, and this one in 69 %, with the same F1.
    """
    if not len(scores):
        return 0.0
    scores, f1 = _f1_from(scores, right, true)
    near = np.flatnonzero(f1 >= f1.max() - _F1_GIVEN)
    errors = np.abs(near + 1 - true)
    near = near[errors == errors.min()]
    return _at_least(scores[near[int(f1[near].argmax())]])


def _f1_from(scores: Floats, right: Bools, true: int) -> tuple[Floats, Floats]:
    """Falling scores [M], and F1 of the boxes of at least each; -1 where the next one has the same."""
    order = _falling(scores)
    scores = scores[order]
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(scores) + 1) + true)
    ends = np.append(scores[1:] != scores[:-1], True)  # boxes of equal score are accepted together
    return scores, np.where(ends, f1, -1.0)


def _at_least(score: float) -> float:
    """A threshold that boxes of a score reach: records have six decimals, and half of the last is left to rounding."""
    return max(0.0, round(float(score) - 5e-7, 6))


def confusion(detections: Detections, threshold: float) -> Ints:
    """True and predicted classes of matched boxes, with the background: int64 [classes + 1, classes + 1].

    Boxes of at least this score are matched at an IoU of 0.5, whatever their class. A missed true box is predicted
    as background, the last column; a predicted box that matches none is background in truth, the last row. Boxes
    without a label are left out, and what matches them.
    """
    background = len(detections.classes)
    truth, prediction = [], []
    for photo, true in by_photo(detections):
        predicted = photo[detections.scores[photo] >= threshold]
        overlaps = iou(detections.boxes[predicted], detections.true_boxes[true])
        matches = match(overlaps, detections.scores[predicted])
        true_labels = np.append(detections.true_labels[true], background)
        missed = np.delete(true_labels[:-1], matches[matches >= 0])
        missed, known = missed[missed >= 0], true_labels[matches] >= 0
        truth += [true_labels[matches[known]], missed]
        prediction += [detections.labels[predicted[known]], np.full(len(missed), background)]
    pairs = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(pairs, (np.concatenate([[], *truth]).astype(int), np.concatenate([[], *prediction]).astype(int)), 1)
    return pairs


def by_photo(detections: Detections) -> list[tuple[Ints, Ints]]:
    """The places of the predicted and of the true boxes of each photo, each int [n]."""
    numbers = np.arange(detections.photos + 1)
    sides = []
    for photo in (detections.photo, detections.true_photo):
        order = np.argsort(photo, kind="stable")
        sides.append(np.split(order, np.searchsorted(photo[order], numbers))[1:-1])
    return list(zip(*sides, strict=True))


@dataclass(frozen=True)
class _Matches:
    """What COCO's matching says of each box, for all sizes S and IoU thresholds T.

    Attributes:
        right: bool [S, T, M]: matches a true box that counts.
        ignored: bool [S, T, M]: says nothing of boxes of this size, or matches one without a label.
        true: labels of the true boxes that count, int [S, G]; -1 for others.
        partner: the true box that a predicted one matches, of all sizes and at an IoU of 0.5; -1 for none, [M].
    """

    right: Bools
    ignored: Bools
    true: Ints
    partner: Ints


def _match_all(detections: Detections) -> _Matches:
    limits = np.array(list(SIZES.values()))
    area, true_area = detections.boxes[:, 2:].prod(axis=1), detections.true_boxes[:, 2:].prod(axis=1)
    other_size = (area < limits[:, :1]) | (area > limits[:, 1:])
    true_other_size = (true_area < limits[:, :1]) | (true_area > limits[:, 1:])
    true = np.where(true_other_size, -1, detections.true_labels)
    right = np.zeros((len(limits), len(IOUS), len(area)), bool)
    ignored = np.repeat(other_size[:, None], len(IOUS), axis=1)
    partner = np.full(len(area), -1, np.int64)
    for predicted, drawn in by_photo(detections):
        order = predicted[_falling(detections.scores[predicted])]
        # A box without a label may be of any class: each class has one of its own, which is ignored.
        labelled = detections.true_labels[drawn] >= 0
        classes = np.unique(detections.labels[order])
        truth = np.append(drawn[labelled], np.repeat(drawn[~labelled], len(classes)))
        labels = np.append(detections.true_labels[drawn[labelled]], np.tile(classes, np.count_nonzero(~labelled)))
        overlaps = iou(detections.boxes[order], detections.true_boxes[truth])
        overlaps[detections.labels[order][:, None] != labels] = -1.0
        counts = true[:, truth] >= 0
        matches = _match_photo(overlaps, IOUS, ~counts)
        matched = matches >= 0
        if len(truth):
            of_counted = counts[np.arange(len(limits))[:, None, None], matches]
            right[:, :, order] = matched & of_counted
            ignored[:, :, order] = np.where(matched, ~of_counted, ignored[:, :, order])
            partner[order] = np.where(matched[0, 0], truth[matches[0, 0]], -1)
    return _Matches(right, ignored, true, partner)


def _match_photo(overlaps: Floats, thresholds: Floats, ignored: Bools) -> Ints:
    """Match the boxes of one photo, sorted by falling score: the true box of each, int64 [S, T, M], -1 for none.

    Args:
        overlaps: float64 [M, G].
        thresholds: of IoU, [T].
        ignored: true boxes that are matched only if no other is left, bool [S, G].
    """
    matches = np.full((len(ignored), len(thresholds), len(overlaps)), -1, np.int64)
    if not overlaps.size:
        return matches
    free = np.ones((len(ignored), len(thresholds), overlaps.shape[1]), bool)
    sizes, cuts = np.ogrid[: len(ignored), : len(thresholds)]
    last = overlaps.shape[1] - 1
    # One ulp below the threshold, as COCO does for IoUs of 1.
    least = np.minimum(thresholds, 1 - 1e-10)[None, :, None]
    for at in np.flatnonzero(overlaps.max(axis=1) >= least.min()):
        open_ = free & (overlaps[at] >= least)
        # Of ignored boxes none goes before another; of equal overlaps COCO takes the last.
        rank = np.where(open_, overlaps[at] + 2.0 * ~ignored[:, None], -1.0)
        best = last - rank[..., ::-1].argmax(axis=2)
        some = open_.any(axis=2)
        matches[:, :, at] = np.where(some, best, -1)
        free[sizes, cuts, best] &= ~some
    return matches


def _curves(detections: Detections, matches: _Matches, max_boxes: int) -> Curves:
    """The curves by size, class and IoU threshold."""
    kept = _rank_in_photo(detections) < max_boxes
    by_score = np.lexsort((detections.photo, -detections.scores))
    by_score = by_score[kept[by_score]]
    of_class = [by_score[detections.labels[by_score] == number] for number in range(len(detections.classes))]
    true, curves = [], []
    for rights, ignoreds, labels in zip(matches.right, matches.ignored, matches.true, strict=True):
        for number, order in enumerate(of_class):
            true.append(np.bincount(detections.true_photo[labels == number], minlength=detections.photos))
            counted, photo = order, detections.photo[order]
            for right, ignored in zip(rights, ignoreds, strict=True):
                if not np.array_equal(others := order[~ignored[order]], counted):
                    counted, photo = others, detections.photo[others]
                curves.append(Curve(len(true) - 1, photo, right[counted]))
    return Curves(np.stack(true, axis=1), curves)


def _rank_in_photo(detections: Detections) -> Ints:
    """The place of each predicted box among those of its photo and class, by falling score, from 0: [M]."""
    order = np.lexsort((-detections.scores, detections.labels, detections.photo))
    key = np.stack([detections.photo[order], detections.labels[order]])
    first = np.append(True, (key[:, 1:] != key[:, :-1]).any(axis=0))[: len(order)]
    starts = np.flatnonzero(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return rank


def _overlaps(detections: Detections, predicted: Ints, true: Ints) -> Floats:
    """IoU of these boxes [M, G]; -1 for boxes of different classes, which never match."""
    same = detections.labels[predicted][:, None] == detections.true_labels[true][None]
    overlaps: Floats = np.where(same, iou(detections.boxes[predicted], detections.true_boxes[true]), -1.0)
    return overlaps


def _falling(scores: Floats) -> Ints:
    """Places from the highest score to the lowest, equal ones in their order."""
    order: Ints = np.argsort(-scores, kind="stable")
    return order
