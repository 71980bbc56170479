"""The validation report of a model that finds boxes: charts, and the worst photos with their boxes."""

import contextlib
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plantml import imaging
from plantml.concurrency import Progress, silent
from plantml.data import photos
from plantml.imaging.drawing import MISSED, RIGHT, WRONG, DrawnBox, draw_boxes
from plantml.metrics import ClassReport, ValueReport, detection
from plantml.reporting import charts, documents
from plantml.validate import report
from plantml.validate.boxes import scoring, tables
from plantml.validate.boxes.scoring import BOXES, BoxOutcomes
from plantml.validate.report import Photo
from plantml.validate.results import Validation

_SIDE = 560
_WORST, _CHANGED = 12, 12
"""Photos that are shown."""

_CLASS = "#8e24aa"
"""Colour of boxes with the wrong class."""


def pictures(validation: Validation[BoxOutcomes]) -> dict[str, bytes]:
    """All charts as PNG, by file name."""
    outcomes, detections = validation.outcomes, validation.result.detections
    right = detection.true_positives(outcomes.detections)
    applied = report.threshold_on(outcomes.threshold, outcomes.scores, right)
    files = {
        "counting_boxes.png": charts.counting(tables.true_counts(outcomes), tables.counts(outcomes)),
        "confusion_boxes.png": charts.box_confusion(BOXES, detections[BOXES]),
    }
    if len(outcomes.scores):
        files |= {
            "precision_recall_boxes.png": charts.precision_recall(outcomes.detections, outcomes.threshold),
            "reliability_boxes.png": charts.reliability(
                BOXES, (outcomes.scores, right), None, detections[BOXES].calibration, applied
            ),
        }
    for name, each in detections.items():
        files[f"confusion_{name}.png"] = charts.box_confusion(name, each)
    truth, outputs, _ = scoring.matched(outcomes)
    for values in validation.result.reports:
        if isinstance(values, ValueReport):
            name = values.target
            known = ~np.isnan(truth[name])
            drawn = charts.agreement(name, values.unit, truth[name][known], outputs[name][known, 0], of=BOXES)
            files[f"agreement_{name}.png"] = drawn
    return files


def render(validation: Validation[BoxOutcomes], drawn: Mapping[str, bytes], progress: Progress = silent) -> bytes:
    """The page as UTF-8 bytes, with charts as `pictures` gives them."""
    result = validation.result
    overall = {
        name: value for name, value in result.scores.items() if name.startswith(f"{BOXES}.") and name.count(".") == 1
    }
    return report.fill(
        result,
        drawn,
        headline=report.headline(result, overall),
        targets=_sections(validation),
        worst=_worst(validation, progress),
        furthest=[],
        changed=_changed(validation),
        next=[],
    )


def _sections(validation: Validation[BoxOutcomes]) -> list[dict[str, Any]]:
    """Charts of all boxes, then a table per target: one row per class, one column per score."""
    result = validation.result
    sections: list[dict[str, Any]] = [{"name": BOXES, "unit": "", "head": [], "rows": []}]
    for target in validation.photos.targets:
        rows, head = [], []
        of_boxes = result.detections.get(target.name)
        of_matched = next((each for each in result.reports if each.target == target.name), None)
        if of_boxes is not None:
            head = ["AP", "AP 50", "precision", "recall", "f1", "count bias", "count MAE"]
            scores = ("ap", "ap50", "precision", "recall", "f1", "count_bias", "count_mae")
            if isinstance(of_matched, ClassReport):
                head.append("f1 of matched boxes")
            for name, row in of_boxes.per_class.items():
                cells = [(f"{BOXES}.{target.name}.{score}[{name}]", row.get(score)) for score in scores]
                if isinstance(of_matched, ClassReport):
                    cells.append((f"{target.name}.f1[{name}]", of_matched.per_class[name]["f1"]))
                rows.append((name, cells, row["support"]))
        if rows or of_matched is not None:
            sections.append({"name": target.name, "unit": target.unit, "head": head, "rows": rows})
    return sections


# --- photos -----------------------------------------------------------------------------------


def _worst(validation: Validation[BoxOutcomes], progress: Progress) -> list[Photo]:
    """Photos with the most missed, false and wrongly classified boxes."""
    outcomes = validation.outcomes
    errors = [sum(box.colour != RIGHT for box in _drawn(outcomes, at)) for at in range(outcomes.photos)]
    places = [at for at in np.argsort(-np.array(errors), kind="stable")[:_WORST].tolist() if errors[at]]
    return report.draw_photos(functools.partial(_photo, validation), places, validation.pipeline.threads, progress)


def _changed(validation: Validation[BoxOutcomes]) -> list[Photo]:
    """Photos in which two models find different numbers of boxes, those that this one counts worse first."""
    comparison, other = validation.result.comparison, validation.other
    if comparison is None or other is None:
        return []
    true, ours, theirs = (
        tables.true_counts(validation.outcomes),
        *map(tables.counts, (validation.outcomes, other.outcomes)),
    )
    lost = np.abs(ours - true) - np.abs(theirs - true)
    places = sorted(comparison.changed, key=lambda at: (-lost[at], at))[:_CHANGED]
    return [
        _photo(
            validation,
            at,
            [("boxes", f"{true[at]} annotated; this model: {ours[at]}, other model: {theirs[at]}")],
            "lost" if lost[at] > 0 else "won" if lost[at] < 0 else "changed",
        )
        for at in places
    ]


def _photo(
    validation: Validation[BoxOutcomes], at: int, lines: Sequence[tuple[str, str]] = (), badge: str = ""
) -> Photo:
    """A photo with its boxes, and how many are right and wrong."""
    row = validation.photos.rows.row(validation.readable[at], named=True)
    boxes = _drawn(validation.outcomes, at)
    colours = [box.colour for box in boxes]
    words = ((RIGHT, "found"), (_CLASS, "with the wrong class"), (WRONG, "false"), (MISSED, "missed"))
    summary = ", ".join(f"{colours.count(colour)} {word}" for colour, word in words if colour in colours)
    confused = ", ".join(f"{number} × {pair}" for pair, number in _confusions(validation.outcomes, at).most_common())
    picture = ""
    with contextlib.suppress(*photos.UNREADABLE):
        small = imaging.thumbnail(photos.read(row["image_id"], row["url"], validation.photo_cache), _SIDE)
        across, down = small.width / row["width"], small.height / row["height"]
        scaled = [
            DrawnBox(box.x * across, box.y * down, box.w * across, box.h * down, box.colour, box.words, box.dashed)
            for box in boxes
        ]
        draw_boxes(small, scaled)
        picture = documents.jpeg_url(small)
    counted = [("boxes" if not lines else "of them", summary), *([("wrong class", confused)] if confused else [])]
    return Photo(row["name"], picture, "", [*lines, *counted], badge)


def _drawn(outcomes: BoxOutcomes, at: int) -> list[DrawnBox]:
    """The boxes of a photo in its pixels: right ones first, then the errors."""
    predicted, true = outcomes.by_photo[at]
    boxes = []
    for place in np.setdiff1d(true, outcomes.match[predicted]).tolist():
        x, y, w, h = outcomes.true_boxes[place].tolist()
        boxes.append(DrawnBox(x, y, w, h, MISSED, dashed=True))
    for place in predicted.tolist():
        x, y, w, h = outcomes.boxes[place].tolist()
        match, score = int(outcomes.match[place]), outcomes.scores[place]
        wrong = _wrong_classes(outcomes, place)
        colour = WRONG if match < 0 else _CLASS if wrong else RIGHT
        boxes.append(DrawnBox(x, y, w, h, colour, "; ".join(wrong) or f"{score:.2f}"))
    return sorted(boxes, key=lambda box: box.colour != RIGHT)


def _confusions(outcomes: BoxOutcomes, at: int) -> Counter[str]:
    """The wrong classes of a photo's boxes, counted."""
    return Counter(pair for place in outcomes.by_photo[at][0].tolist() for pair in _wrong_classes(outcomes, place))


def _wrong_classes(outcomes: BoxOutcomes, predicted: int) -> list[str]:
    """Classes of a predicted box that are not those of its annotated one, in words; none if it has none."""
    true, pairs = int(outcomes.match[predicted]), []
    for target in outcomes.classified if true >= 0 else ():
        ours, theirs = int(outcomes.outputs[target.name][predicted].argmax()), int(outcomes.truth[target.name][true])
        if theirs not in {-1, ours} and outcomes.given(target)[predicted]:
            pairs.append(f"{target.classes[ours]} for {target.classes[theirs]}")
    return pairs
