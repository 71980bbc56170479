"""Planted faults among boxes, and a detector that is as imperfect as one of a few hundred photos."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from plantml.curate.checks import box_labels
from plantml.metrics.detection import Detections

CLASSES = ("tomato", "pepper")
PHOTOS, ROWS, COLUMNS = 40, 4, 6
PER_CODE = 30
LEAST = {
    "box-missing": (0.7, 0.85),
    "box-extra": (0.55, 0.95),  # the detector is blind to one in a hundred plants, too
    "box-displaced": (0.85, 0.75),
    "box-mislabelled": (0.7, 0.8),
}
"""Precision and recall by code."""

CODES = tuple(LEAST)


def trays(seed):
    """Trays of plants, and predictions that jitter, hardly see or miss, invent and mistake some."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(COLUMNS), np.arange(ROWS)), axis=-1).reshape(-1, 2) * 100.0
    corners = np.tile(grid, (PHOTOS, 1)) + rng.uniform(5, 20, (PHOTOS * len(grid), 2))
    true = np.concatenate([corners, rng.uniform(60, 85, (len(corners), 2))], axis=1)
    photo = np.repeat(np.arange(PHOTOS), len(grid))
    labels = rng.integers(0, 2, len(true))
    seen, hard, mistaken = rng.random(len(true)) < 0.99, rng.random(len(true)) < 0.05, rng.random(len(true)) < 0.05
    moved = true + rng.normal(0, 0.05, true.shape) * np.tile(true[:, 2:], 2)
    scores = np.where(hard, rng.beta(2, 6, len(true)), rng.beta(9, 2, len(true)) - 0.4 * mistaken).clip(0.05)
    invented = np.column_stack([rng.uniform(0, 500, (3 * PHOTOS, 2)), rng.uniform(30, 80, (3 * PHOTOS, 2))])
    return Detections(
        CLASSES, PHOTOS,
        np.concatenate([moved[seen], invented]),
        np.concatenate([scores[seen], rng.beta(1.5, 6, len(invented))]),
        np.concatenate([np.where(mistaken, 1 - labels, labels)[seen], rng.integers(0, 2, len(invented))]),
        np.concatenate([photo[seen], rng.integers(0, PHOTOS, len(invented))]),
        true, labels, photo,
    )  # fmt: skip


def planted(detections, seed):
    """The detections with faults among the true boxes, and where they are: (photo, centre) by code."""
    rng = np.random.default_rng(seed)
    faulty = dict(zip(CODES, np.split(rng.permutation(len(detections.true_boxes))[: 4 * PER_CODE], 4), strict=True))
    boxes, labels = detections.true_boxes.copy(), detections.true_labels.copy()
    labels[faulty["box-mislabelled"]] = 1 - labels[faulty["box-mislabelled"]]
    moved = faulty["box-displaced"]
    boxes[moved, :2] += rng.choice([-1, 1], (PER_CODE, 2)) * rng.uniform(0.25, 0.35, (PER_CODE, 2)) * boxes[moved, 2:]
    # Beside the tray, where nothing grows.
    extra = np.column_stack(
        [rng.uniform(620, 800, PER_CODE), rng.uniform(0, 300, PER_CODE), np.full((PER_CODE, 2), 60)]
    )
    extra_photo = rng.integers(0, PHOTOS, PER_CODE)
    kept = np.setdiff1d(np.arange(len(boxes)), faulty["box-missing"])
    places = {
        "box-missing": places_of(detections.true_photo, detections.true_boxes, faulty["box-missing"]),
        "box-extra": places_of(extra_photo, extra, np.arange(PER_CODE)),
        "box-displaced": places_of(detections.true_photo, boxes, moved),
        "box-mislabelled": places_of(detections.true_photo, boxes, faulty["box-mislabelled"]),
    }
    changed = replace(
        detections,
        true_boxes=np.concatenate([boxes[kept], extra]),
        true_labels=np.concatenate([labels[kept], rng.integers(0, 2, PER_CODE)]),
        true_photo=np.concatenate([detections.true_photo[kept], extra_photo]),
    )
    return changed, places


def places_of(photo, boxes, at):
    return [(int(photo[n]), boxes[n, :2] + boxes[n, 2:] / 2) for n in at]


def centre(finding):
    facts = finding.facts
    return np.array([facts["x"] + facts["w"] / 2, facts["y"] + facts["h"] / 2])


def is_at(finding, place):
    return finding.rows == (place[0],) and np.abs(centre(finding) - place[1]).max() < 20


def by_code(findings):
    found = defaultdict(list)
    for finding in findings:
        found[finding.code].append(finding)
    return found


@pytest.mark.parametrize("seed", range(2))
def test_planted_faults_are_found_and_little_else(seed):
    detections, places = planted(trays(seed), seed)
    found = by_code(box_labels.suspects(detections, range(PHOTOS)))
    for code in CODES:
        hits = [any(is_at(finding, place) for place in places[code]) for finding in found[code]]
        recall = np.mean([any(is_at(finding, place) for finding in found[code]) for place in places[code]])
        least_precision, least_recall = LEAST[code]
        assert np.mean(hits) > least_precision, code
        assert recall > least_recall, code


def test_the_most_suspicious_come_first_and_rows_are_those_given():
    detections, _ = planted(trays(0), 0)
    found = box_labels.suspects(detections, range(100, 100 + PHOTOS))
    scores = [finding.score for finding in found]
    assert scores == sorted(scores, reverse=True)
    assert 1 >= scores[0] >= scores[-1] >= box_labels.LEAST
    assert {row for finding in found for row in finding.rows} <= set(range(100, 100 + PHOTOS))


def test_perfect_boxes_are_not_suspected():
    detections = trays(3)
    perfect = replace(
        detections, boxes=detections.true_boxes, labels=detections.true_labels, photo=detections.true_photo,
        scores=np.full(len(detections.true_boxes), 0.9),
    )  # fmt: skip
    assert box_labels.suspects(perfect, range(PHOTOS)) == []


def test_a_class_that_the_models_do_not_know_accuses_nobody():
    detections = trays(5)
    confused = replace(detections, labels=np.zeros_like(detections.labels))
    codes = {finding.code for finding in box_labels.suspects(confused, range(PHOTOS))}
    assert "box-mislabelled" in {finding.code for finding in box_labels.suspects(detections, range(PHOTOS))}
    assert "box-mislabelled" not in codes


def test_a_detector_that_finds_nothing_accuses_nobody():
    detections = trays(4)
    nothing = replace(
        detections, boxes=np.zeros((0, 4)), labels=np.zeros(0, int), photo=np.zeros(0, int), scores=np.zeros(0)
    )
    assert box_labels.suspects(nothing, range(PHOTOS)) == []


def test_dense_plants_are_paired_one_to_one():
    """A displaced box lies on its neighbour: the neighbour's prediction still belongs to the neighbour."""
    true = np.array([[0, 0, 10, 10], [8, 0, 10, 10]], float)
    seen = np.array([[0, 0, 10, 10], [12, 0, 10, 10]], float)
    filler = np.array([[100 + 20 * n, 0, 10, 10] for n in range(20)], float)
    boxes, drawn = np.concatenate([seen, filler]), np.concatenate([true, filler])
    zeros = np.zeros(len(boxes), int)
    detections = Detections(CLASSES, 1, boxes, np.full(len(boxes), 0.9), zeros, zeros, drawn, zeros, zeros)
    (finding,) = box_labels.suspects(detections, [7], least=0.3)
    assert (finding.code, finding.rows, finding.facts["x"]) == ("box-displaced", (7,), 8)
    assert finding.facts["predicted"]["x"] == 12
