import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml import metrics
from plantml.metrics import bootstrap, detection
from plantml.metrics.detection import Detections, DetectionStatistic

CLASSES = ("apple", "leaf", "flower")
few = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def random_detections(seed, photos=6, *, extra=0.3, ties=True):
    """True boxes of all sizes, and predictions that move, mislabel, miss and invent some of them."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 12 * photos))
    true = np.column_stack([rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(2, 5.5, (count, 2)))])
    labels, photo = rng.integers(0, len(CLASSES), count), rng.integers(0, photos, count)
    source = rng.permutation(np.repeat(np.arange(count), 2))[: int(1.3 * count)]
    moved = true[source] + rng.normal(0, 0.12, (len(source), 4)) * np.tile(true[source, 2:], 2)
    moved[:, 2:] = np.abs(moved[:, 2:])
    named = np.where(rng.random(len(source)) < 0.85, labels[source], rng.integers(0, len(CLASSES), len(source)))
    at = photo[source]
    at = np.where(rng.random(len(at)) < extra, rng.integers(0, photos, len(at)), at)
    scores = rng.random(len(source))
    if ties:
        scores = np.round(scores, 1)
    return Detections(CLASSES, photos, moved, scores, named, at, true, labels, photo)


def coco(detections, max_boxes=300):
    """The oracle: precision [IoU, recall, class, size], and its summary."""
    images = [{"id": number + 1, "width": 900, "height": 900} for number in range(detections.photos)]
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)]
    # A box without a label is one of each class, and ignored for an area that is in no range.
    drawn = [
        (b, each, p, int(c < 0))
        for b, c, p in zip(detections.true_boxes, detections.true_labels, detections.true_photo, strict=True)
        for each in (range(len(CLASSES)) if c < 0 else [c])
    ]
    truth = [
        {"id": at + 1, "image_id": int(p) + 1, "category_id": int(c) + 1, "bbox": b.tolist(),
         "area": 1e12 if ignored else float(b[2] * b[3]), "iscrowd": 0}
        for at, (b, c, p, ignored) in enumerate(drawn)
    ]  # fmt: skip
    predicted = [
        {"image_id": int(p) + 1, "category_id": int(c) + 1, "bbox": b.tolist(), "score": float(s)}
        for b, c, p, s in zip(detections.boxes, detections.labels, detections.photo, detections.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO({"images": images, "categories": categories, "annotations": truth})
        evaluation = COCOeval_faster(dataset, dataset.loadRes(predicted), "bbox", print_function=lambda *_: None)
        evaluation.params.maxDets = [max_boxes]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]


def without_labels(detections, share):
    known = np.random.default_rng(1).random(len(detections.true_labels)) >= share
    return replace(detections, true_labels=np.where(known, detections.true_labels, -1))


def mean_of(precision):
    return precision[precision > -1].mean() if (precision > -1).any() else None


@few
@given(seeds, st.sampled_from([0.0, 0.4]))
def test_average_precision_is_that_of_faster_coco_eval(seed, unlabelled):
    detections = without_labels(random_detections(seed), unlabelled)
    if not len(detections.scores):
        return
    scores, per_class = DetectionStatistic(detections, threshold=0.5).of_all()
    precision = coco(detections)
    expected = {"ap": precision[..., 0], "ap50": precision[0, ..., 0], "ap75": precision[5, ..., 0]}
    expected |= {f"ap_{size}": precision[..., at] for at, size in enumerate(detection.SIZES) if at}
    for name, of_score in expected.items():
        assert scores.get(name) == pytest.approx(mean_of(of_score), abs=1e-6), name
    for number, name in enumerate(CLASSES):
        assert per_class[name].get("ap") == pytest.approx(mean_of(precision[:, :, number, 0]), abs=1e-6)


def test_only_the_most_certain_boxes_of_a_photo_and_class_count_for_average_precision():
    detections = random_detections(4, photos=3)
    limited, _ = DetectionStatistic(detections, threshold=0.5, max_boxes=2).of_all()
    whole, _ = DetectionStatistic(detections, threshold=0.5).of_all()
    assert limited["ap"] == pytest.approx(mean_of(coco(detections, 2)[..., 0]), abs=1e-6)
    assert limited["ap"] != whole["ap"]
    assert limited["recall"] == whole["recall"]


@few
@given(seeds)
def test_a_resample_has_the_scores_of_its_photos_repeated(seed):
    detections = without_labels(random_detections(seed, ties=False), 0.2)
    weights = np.random.default_rng(seed).integers(0, 3, detections.photos)
    statistic = DetectionStatistic(detections, threshold=0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        weighted = statistic.scores(weights @ statistic.columns[None], lambda photos: weights[None, photos])
    scores, per_class = DetectionStatistic(repeated(detections, weights), threshold=0.5).of_all()
    expected = scores | {f"{s}[{n}]": v for n, row in per_class.items() for s, v in row.items() if s != "support"}
    known = {name: values[0] for name, values in weighted.items() if not np.isnan(values[0])}
    if weights.any():
        assert known == pytest.approx(expected, abs=1e-9)


def repeated(detections, weights):
    copies = np.repeat(np.arange(detections.photos), weights)
    predicted = [np.flatnonzero(detections.photo == photo) for photo in copies]
    true = [np.flatnonzero(detections.true_photo == photo) for photo in copies]
    number, true_number = (np.repeat(np.arange(len(copies)), [len(at) for at in side]) for side in (predicted, true))
    order, true_order = (np.concatenate([*side, np.array([], int)]).astype(int) for side in (predicted, true))
    return Detections(
        CLASSES, len(copies), detections.boxes[order], detections.scores[order], detections.labels[order], number,
        detections.true_boxes[true_order], detections.true_labels[true_order], true_number,
    )  # fmt: skip


def test_intervals_come_from_the_bootstrap_of_all_metrics():
    detections = random_detections(1, photos=40)
    statistic = DetectionStatistic(detections, threshold=0.5)
    scores, _ = statistic.of_all()
    replicates = metrics.replicate([statistic], metrics.Groups(range(40)), resamples=200, seed=0)
    for name in ("ap", "ap50", "ap[leaf]", "f1", "count_mae"):
        interval = metrics.interval(name, scores.get(name, 0), replicates[name])
        assert interval.low < interval.high
        if name in scores:
            assert interval.low < scores[name] < interval.high


@few
@given(seeds)
def test_the_true_boxes_predicted_are_perfect(seed):
    detections = random_detections(seed)
    perfect = replace(
        detections, boxes=detections.true_boxes, labels=detections.true_labels, photo=detections.true_photo,
        scores=np.ones(len(detections.true_boxes)),
    )  # fmt: skip
    scores, _ = DetectionStatistic(perfect, threshold=0.5).of_all()
    if len(detections.true_boxes):
        assert {scores[name] for name in scores if name.startswith(("ap", "prec", "rec", "f1"))} == {1.0}
        assert scores["ece"] == 0
    assert scores["count_exact"] == 1
    assert scores["count_bias"] == scores["count_mae"] == 0
    diagonal = np.diag(np.append(np.bincount(perfect.labels, minlength=3), 0))
    assert (detection.confusion(perfect, 0.5) == diagonal).all()


@few
@given(seeds)
def test_the_order_of_boxes_does_not_matter(seed):
    detections = random_detections(seed, ties=False)
    rng = np.random.default_rng(seed)
    one, other = rng.permutation(len(detections.scores)), rng.permutation(len(detections.true_boxes))
    shuffled = replace(
        detections, boxes=detections.boxes[one], scores=detections.scores[one], labels=detections.labels[one],
        photo=detections.photo[one], true_boxes=detections.true_boxes[other],
        true_labels=detections.true_labels[other], true_photo=detections.true_photo[other],
    )  # fmt: skip
    before, after = (DetectionStatistic(each, threshold=0.5).of_all() for each in (detections, shuffled))
    assert after[0] == pytest.approx(before[0])
    assert after[1] == {name: pytest.approx(row) for name, row in before[1].items()}
    assert (detection.confusion(shuffled, 0.5) == detection.confusion(detections, 0.5)).all()


@few
@given(seeds)
def test_iou_is_symmetric_and_one_for_the_same_box(seed):
    detections = random_detections(seed)
    one, other = detections.boxes, detections.true_boxes
    overlaps = detection.iou(one, other)
    assert overlaps == pytest.approx(detection.iou(other, one).T)
    assert np.diag(detection.iou(other, other)) == pytest.approx(1)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()


def test_iou_of_known_boxes():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [3, 3, 0, 0]])
    assert detection.iou(boxes[:1], boxes)[0] == pytest.approx([1, 50 / 150, 0, 0])
    assert detection.iou(boxes[3:], boxes[3:]) == 0


def test_the_most_certain_box_is_matched_first():
    overlaps = np.array([[0.9, 0.6], [0.8, 0.0], [0.6, 0.55]])
    assert detection.match(overlaps, np.array([0.5, 0.9, 0.7])).tolist() == [-1, 0, 1]
    assert detection.match(overlaps, np.array([0.5, 0.9, 0.7]), 0.7).tolist() == [-1, 0, -1]
    assert detection.match(np.zeros((2, 0)), np.array([0.5, 0.9])).tolist() == [-1, -1]


def two_photos():
    """An apple seen, one missed, a leaf called a flower, and a box on nothing; scores 0.9, 0.8, 0.3."""
    true = np.array([[0, 0, 10, 10], [50, 50, 10, 10], [0, 0, 10, 10]], float)
    boxes = np.array([[1, 0, 10, 10], [0, 0, 10, 10], [30, 30, 5, 5]], float)
    return Detections(
        CLASSES, 3, boxes, np.array([0.9, 0.8, 0.3]), np.array([0, 2, 0]), np.array([0, 1, 1]),
        true, np.array([0, 0, 1]), np.array([0, 0, 1]),
    )  # fmt: skip


def test_numbers_at_a_threshold():
    report = detection.report(two_photos(), threshold=0.5)
    assert report.scores["precision"] == 0.5
    assert report.scores["recall"] == pytest.approx(1 / 3)
    assert report.scores["f1"] == pytest.approx(0.4)
    assert report.per_class["apple"]["recall"] == 0.5
    assert report.per_class["apple"]["support"] == 2
    assert report.confusion.tolist() == [[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert (report.scores["count_bias"], report.scores["count_mae"]) == pytest.approx((-1 / 3, 1 / 3))
    assert report.scores["count_exact"] == pytest.approx(2 / 3)
    assert report.per_class["leaf"]["count_bias"] == pytest.approx(-1 / 3)
    assert "ap_large" not in report.scores, "no true box is large"
    assert "ap" not in report.per_class["flower"], "no true box is a flower"
    lower = detection.report(two_photos(), threshold=0.3)
    assert lower.confusion[-1].tolist() == [1, 0, 0, 0]
    assert lower.scores["count_bias"] == 0
    assert lower.scores["count_mae"] == pytest.approx(2 / 3)


def test_a_box_without_a_label_is_neither_right_nor_wrong():
    empty_cell = replace(two_photos(), true_labels=np.array([0, 0, -1]))  # the leaf that is called a flower
    report = detection.report(empty_cell, threshold=0.3)
    assert report.scores["precision"] == 0.5  # an apple, and a box on nothing
    assert report.scores["recall"] == 0.5
    assert report.per_class["flower"]["count_bias"] == 0
    assert report.confusion.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert report.calibration.ece == pytest.approx((0.1 + 0.3) / 2)
    alone = replace(empty_cell, true_labels=np.full(3, -1))
    assert "ap" not in detection.report(alone, threshold=0.3).scores


def test_boxes_are_calibrated_if_scores_are_the_share_of_true_positives():
    report = detection.report(two_photos(), threshold=0.5)
    assert report.calibration.ece == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert report.scores["ece"] == pytest.approx(report.calibration.ece)
    assert report.as_json()["confusion"][0] == [1, 0, 0, 1]


@few
@given(seeds)
def test_no_threshold_has_a_better_f1_than_the_best(seed):
    detections = random_detections(seed)
    if not len(detections.scores):
        assert detection.best_threshold(detections) == DetectionStatistic(detections).threshold == 0
        return
    best = detection.best_threshold(detections)
    right, true = detection.true_positives(detections), len(detections.true_boxes)
    f1 = [2 * right[kept].sum() / (kept.sum() + true) for kept in (detections.scores >= at for at in detections.scores)]
    scores, _ = DetectionStatistic(detections, threshold=best).of_all()
    assert scores["f1"] == pytest.approx(max(f1))
    # As many boxes count as are true, as far as F1 allows it.
    allowed = [at for at, each in zip(detections.scores, f1, strict=True) if each >= max(f1) - detection._F1_GIVEN]
    bias = min(abs((detections.scores >= at).sum() - true) for at in allowed)
    assert abs((detections.scores >= DetectionStatistic(detections).threshold).sum() - true) == bias


def test_a_plant_whose_box_fits_badly_is_counted_all_the_same():
    plants = np.array([[20.0 * number, 0, 10, 10] for number in range(100)])
    boxes = np.vstack([plants[:99], [[1987, 0, 10, 10]], [[0, 40, 10, 10]]])  # one beside its plant, one on nothing
    scores = np.array([*np.linspace(0.9, 0.8, 99), 0.5, 0.1])
    detections = detection.of_one_class([boxes], [scores], [plants])
    assert detection.best_threshold(detections) == pytest.approx(0.8, abs=1e-5)
    assert DetectionStatistic(detections).threshold == pytest.approx(0.5, abs=1e-5)
    assert detection.report(detections).scores["count_exact"] == 1


def test_a_photo_without_boxes_is_counted():
    nothing = np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros(0, int)
    empty = Detections(CLASSES, 2, *nothing, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, int))
    report = detection.report(empty)
    assert report.scores == {"count_bias": 0, "count_mae": 0, "count_exact": 1}
    assert report.confusion.sum() == 0


def test_counting_errors_are_better_when_small():
    assert not metrics.higher_is_better("count_mae[apple]")
    assert metrics.higher_is_better("count_exact")
    assert "count_exact" in bootstrap._SHARES
