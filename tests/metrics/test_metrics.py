import json
import time

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from torchmetrics import classification as tm

from plantml import metrics
from plantml.errors import InputError
from plantml.metrics import bootstrap, statistics
from plantml.targets import Target

CLASSES = ("none", "rust", "blight", "mould", "scab")
MEASURES = ("precision", "recall", "f1", "support")
many = settings(max_examples=150, deadline=None)


def class_target(size):
    return Target("disease", "class", CLASSES[:size])


def labelled_report(target, labels, outputs):
    return metrics.report(target, target.encode(labels), outputs)


def probabilities(predicted, confidence, size):
    """Rows that sum to one, with `confidence` for the predicted class and the rest shared evenly."""
    rows = np.repeat((1 - np.array(confidence, np.float32))[:, None] / (size - 1), size, axis=1)
    rows[np.arange(len(predicted)), predicted] = confidence
    return rows.astype(np.float32)


@st.composite
def answered_classes(draw):
    size = draw(st.integers(2, 5))
    photos = draw(st.integers(1, 12))
    numbers = st.lists(st.integers(0, size - 1), min_size=photos, max_size=photos)
    truth, predicted = draw(numbers), draw(numbers)
    # Off the edges of the calibration bins, where torchmetrics closes the other side of a bin.
    sure = [0.5137 + 0.01 * draw(st.integers(0, 48)) for _ in range(photos)]
    return size, np.array(truth), np.array(predicted), probabilities(predicted, sure, size)


def case(size, truth, predicted, sure=0.9):
    return size, np.array(truth), np.array(predicted), probabilities(predicted, [sure] * len(truth), size)


ONE_CLASS_MISSING = case(3, [0, 0, 1, 1], [0, 1, 1, 0])
NAMED_BUT_NEVER_THERE = case(3, [0, 0, 1], [0, 2, 2])
ALL_WRONG = case(2, [0, 1, 0, 1], [1, 0, 1, 0])
ONE_PHOTO_RIGHT = case(4, [2], [2])
ONE_PHOTO_WRONG = case(4, [2], [0])


def degenerate(test):
    for result in (ONE_CLASS_MISSING, NAMED_BUT_NEVER_THERE, ALL_WRONG, ONE_PHOTO_RIGHT, ONE_PHOTO_WRONG):
        test = example(result)(test)
    return test


# --- classes ----------------------------------------------------------------------------------


@degenerate
@given(answered_classes())
@many
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_class_scores_are_those_of_scikit_learn(found):
    size, truth, predicted, outputs = found
    report = metrics.report(class_target(size), truth, outputs)
    assert report.confusion.tolist() == sk.confusion_matrix(truth, predicted, labels=range(size)).tolist()
    assert report.photos == len(truth)
    assert report.scores["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert report.scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert report.scores["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro", zero_division=0))


@degenerate
@given(answered_classes())
@many
def test_numbers_of_each_class_are_those_of_scikit_learn(found):
    size, truth, predicted, outputs = found
    report = metrics.report(class_target(size), truth, outputs)
    theirs = sk.precision_recall_fscore_support(truth, predicted, labels=range(size), zero_division=0)
    for name, *numbers in zip(CLASSES[:size], *theirs, strict=True):
        assert list(report.per_class[name]) == ["precision", "recall", "f1", "support"]
        assert list(report.per_class[name].values()) == pytest.approx(numbers)


@degenerate
@given(answered_classes())
@many
def test_class_scores_are_those_of_torchmetrics(found):
    size, truth, _, outputs = found
    scores = metrics.report(class_target(size), truth, outputs).scores
    theirs = {
        "accuracy": tm.MulticlassAccuracy(size, average="micro"),
        "macro_f1": tm.MulticlassF1Score(size, average="macro"),
        "ece": tm.MulticlassCalibrationError(size, n_bins=15, norm="l1"),
    }
    for name, metric in theirs.items():
        assert scores[name] == pytest.approx(float(metric(torch.tensor(outputs), torch.tensor(truth))), abs=1e-6)


@st.composite
def any_probabilities(draw):
    size, photos = draw(st.integers(2, 5)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    outputs = rng.dirichlet(np.full(size, 0.6), photos).astype(np.float32)
    return size, rng.integers(0, size, photos), outputs


@given(any_probabilities())
@many
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.filterwarnings("ignore:.*values do not sum to one")
def test_scores_of_probabilities_are_those_of_scikit_learn(found):
    size, truth, outputs = found
    scores = metrics.report(class_target(size), truth, outputs).scores
    predicted, labels = outputs.argmax(axis=1), range(size)
    weighted = sk.f1_score(truth, predicted, average="weighted", zero_division=0)
    assert scores["weighted_f1"] == pytest.approx(weighted)
    hot = np.eye(size)[truth]
    exact = outputs.astype(np.float64) / outputs.astype(np.float64).sum(axis=1, keepdims=True)
    theirs = sk.brier_score_loss(hot.argmax(axis=1), exact, labels=list(labels), scale_by_half=False)
    assert scores["brier"] == pytest.approx(theirs, abs=1e-6)
    for k in (3, 5):
        if size > k:
            top = sk.top_k_accuracy_score(truth, outputs, k=k, labels=list(labels))
            assert scores[f"top{k}_accuracy"] == pytest.approx(top)
        else:
            assert f"top{k}_accuracy" not in scores
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))


@given(any_probabilities())
@many
def test_selective_scores_are_those_of_a_loop_over_thresholds(found):
    size, truth, outputs = found
    scores = metrics.report(class_target(size), truth, outputs).scores
    confidence, wrong = outputs.max(axis=1), outputs.argmax(axis=1) != truth
    order = np.argsort(-confidence, kind="stable")
    risks = np.cumsum(wrong[order]) / np.arange(1, len(truth) + 1)
    if len(set(confidence.tolist())) == len(truth):
        assert scores["aurc"] == pytest.approx(risks.mean())
    for name, risk in (("coverage_at_1pct", 0.01), ("coverage_at_5pct", 0.05)):
        shares = [(confidence >= t).mean() for t in confidence if wrong[confidence >= t].mean() <= risk]
        assert scores[name] == pytest.approx(max(shares, default=0))


@pytest.mark.parametrize("found", [ALL_WRONG, ONE_PHOTO_WRONG])
def test_all_wrong_is_the_worst_risk_and_no_coverage(found):
    size, truth, _, outputs = found
    scores = metrics.report(class_target(size), truth, outputs).scores
    assert (scores["aurc"], scores["coverage_at_5pct"], scores["accuracy"]) == (1, 0, 0)


def test_shared_classes_are_those_that_means_are_over():
    size, truth, predicted, outputs = NAMED_BUT_NEVER_THERE
    result = metrics.report(class_target(size), truth, outputs, shared={"none", "rust"})
    theirs = sk.f1_score(truth, predicted, labels=[0, 1], average="macro", zero_division=0)
    assert result.scores["macro_f1"] == pytest.approx(theirs)


def test_the_joint_score_wants_every_target_right():
    right = [np.array([True, True, False, True]), np.array([True, False, True, True])]
    known = [np.array([True, True, True, True]), np.array([True, True, True, False])]
    assert metrics.joint_accuracy(right, known) == pytest.approx(1 / 3)
    assert metrics.joint_accuracy(right, [known[0], ~known[0]]) is None


def test_right_answers_leave_out_what_is_not_labelled():
    outputs = probabilities([0, 1, 0], [0.9, 0.8, 0.7], 2)
    assert metrics.correct_predictions(class_target(2), np.array([0, 0, -1]), outputs).tolist() == [True, False, False]
    spots = Target("symptoms", "multilabel", ("spots",))
    result = metrics.correct_predictions(spots, np.array([[1.0], [np.nan]]), np.array([[0.9], [0.9]]))
    assert result.tolist() == [True, False]
    with pytest.raises(ValueError, match="not right or wrong"):
        metrics.correct_predictions(VALUE, np.zeros(1), np.zeros((1, 1)))


def test_calibration_error_by_hand():
    # Bins are open below and closed above: 1.0 and 0.95 share the last one, 0.6 = 9/15 ends the ninth.
    confidence, right = np.array([1.0, 0.95, 0.6, 0.55]), [True, False, False, True]
    by_hand = abs(1.0 + 0.95 - 1) / 4 + abs(0.6 + 0.55 - 1) / 4
    assert metrics.calibration_error(confidence, np.array(right)) == pytest.approx(by_hand)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    assert metrics.calibration_error(np.ones(3), np.ones(3, bool)) == 0
    assert metrics.calibration_error(np.ones(3), np.zeros(3, bool)) == 1


def test_photos_without_a_label_do_not_count():
    target = class_target(3)
    outputs = probabilities([0, 1, 2, 1], [0.9, 0.8, 0.7, 0.6], 3)
    with_gaps = labelled_report(target, ["none", None, "rust", None], outputs)
    without = labelled_report(target, ["none", "rust"], outputs[[0, 2]])
    assert with_gaps.photos == 2
    assert with_gaps.scores == without.scores


@pytest.mark.parametrize(
    "target", [class_target(2), Target("symptoms", "multilabel", ("a", "b")), Target("severity", "value")]
)
def test_no_labels_give_no_report(target):
    assert labelled_report(target, [None, None], np.full((2, target.size), 0.5, np.float32)) is None


def test_unknown_label_is_named():
    with pytest.raises(InputError, match="mildew"):
        labelled_report(class_target(2), ["mildew"], np.full((1, 2), 0.5, np.float32))


# --- sets of labels ---------------------------------------------------------------------------


@st.composite
def answered_sets(draw):
    size, photos = draw(st.integers(2, 4)), draw(st.integers(1, 8))
    flags = st.lists(st.booleans(), min_size=size * photos, max_size=size * photos)
    score = st.sampled_from([0.0, 0.1, 0.49, 0.51, 0.9, 1.0])
    truth = np.array(draw(flags)).reshape(photos, size)
    outputs = np.array([draw(score) for _ in range(size * photos)], np.float32).reshape(photos, size)
    return truth, outputs


@given(answered_sets())
@example((np.zeros((3, 2), bool), np.zeros((3, 2), np.float32)))
@example((np.ones((3, 2), bool), np.zeros((3, 2), np.float32)))
@example((np.array([[True, False]]), np.array([[1.0, 0.0]], np.float32)))
@many
def test_multilabel_scores_are_those_of_scikit_learn_and_torchmetrics(found):
    truth, outputs = found
    size = truth.shape[1]
    target = Target("symptoms", "multilabel", CLASSES[:size])
    labels = [[name for name, there in zip(target.classes, row, strict=True) if there] for row in truth]
    report = labelled_report(target, labels, outputs)

    predicted = outputs > 0.5
    theirs = sk.precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    for name, *numbers in zip(target.classes, *theirs, strict=True):
        assert [report.per_class[name][score] for score in MEASURES] == pytest.approx(numbers)
    assert report.scores["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    weighted = sk.f1_score(truth, predicted, average="weighted", zero_division=0)
    assert report.scores["weighted_f1"] == pytest.approx(weighted)
    assert report.scores["brier"] == pytest.approx(float(((outputs - truth) ** 2).mean()), abs=1e-6)
    macro = tm.MultilabelF1Score(size, average="macro")(torch.tensor(outputs), torch.tensor(truth).long())
    assert report.scores["macro_f1"] == pytest.approx(float(macro), abs=1e-6)


@given(answered_sets())
@example((np.zeros((3, 2), bool), np.zeros((3, 2), np.float32)))
@example((np.ones((3, 2), bool), np.zeros((3, 2), np.float32)))
@many
@pytest.mark.filterwarnings("ignore:No positive class found")
def test_average_precision_is_that_of_scikit_learn(found):
    truth, outputs = found
    target = Target("symptoms", "multilabel", CLASSES[: truth.shape[1]])
    report = metrics.report(target, truth.astype(np.float32), outputs)
    there = []
    for name, true, predicted in zip(target.classes, truth.T, outputs.T, strict=True):
        theirs = sk.average_precision_score(true, predicted)
        assert report.per_class[name]["average_precision"] == pytest.approx(theirs)
        if true.any():
            there.append(theirs)
    assert report.scores["average_precision"] == pytest.approx(np.mean(there) if there else 0)


def test_a_label_is_present_from_one_half():
    target = Target("symptoms", "multilabel", ("spots",))
    assert labelled_report(target, [["spots"]], np.array([[0.5]], np.float32)).scores["accuracy"] == 1
    assert labelled_report(target, [["spots"]], np.array([[0.4999]], np.float32)).scores["accuracy"] == 0


# --- values -----------------------------------------------------------------------------------

VALUE = Target("severity", "value", unit="days")
days = st.floats(-1000, 1000, width=32)


@given(st.lists(st.tuples(days, days), min_size=2, max_size=12))
@many
def test_value_scores_are_those_of_scikit_learn(pairs):
    truth, predicted = np.array(pairs, np.float32).T
    scores = labelled_report(VALUE, truth.tolist(), predicted[:, None]).scores
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(truth, predicted), rel=1e-5)
    assert scores["mse"] == pytest.approx(sk.mean_squared_error(truth, predicted), rel=1e-5)
    assert scores["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, predicted), rel=1e-5)
    if np.ptp(truth) > 1e-2:  # below, the float32 labels themselves are rounding
        assert scores["r2"] == pytest.approx(
            sk.r2_score(truth.astype(float), predicted.astype(float)), rel=1e-3, abs=1e-3
        )


@pytest.mark.parametrize("constant", [0.0, 0.1, 5.3, -123.4])
@pytest.mark.parametrize("photos", [1, 7, 1000])
def test_r2_is_zero_where_the_truth_does_not_vary(constant, photos):
    scores = labelled_report(VALUE, [constant] * photos, np.full((photos, 1), constant + 1, np.float32)).scores
    assert scores["r2"] == 0
    assert scores["mae"] == pytest.approx(1, rel=1e-4)


def test_perfect_values_have_r2_one_and_no_error():
    truth = [0.1, 0.5, 0.9]
    scores = labelled_report(VALUE, truth, np.array(truth, np.float32)[:, None]).scores
    assert scores == {"r2": 1, "mae": 0, "rmse": 0, "mse": 0}


# --- over all targets -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports():
    disease = labelled_report(class_target(2), ["none", "rust"], probabilities([0, 0], [0.9, 0.8], 2))
    symptoms = Target("symptoms", "multilabel", ("spots",))
    return [
        disease,
        labelled_report(symptoms, [["spots"], []], np.array([[0.9], [0.1]], np.float32)),
        labelled_report(VALUE, [1.0, 2.0], np.array([[1.0], [2.5]], np.float32)),
    ]


def test_headline_is_the_mean_over_targets_and_each_score_by_name(reports):
    scores = metrics.headline(reports)
    assert list(scores) == [
        "macro_f1",
        "accuracy",
        "disease.accuracy",
        "disease.balanced_accuracy",
        "disease.macro_f1",
        "disease.weighted_f1",
        "disease.ece",
        "disease.brier",
        "disease.aurc",
        "disease.coverage_at_1pct",
        "disease.coverage_at_5pct",
        "symptoms.accuracy",
        "symptoms.macro_f1",
        "symptoms.weighted_f1",
        "symptoms.average_precision",
        "symptoms.brier",
        "severity.r2",
        "severity.mae",
        "severity.rmse",
        "severity.mse",
    ]
    assert scores["disease.macro_f1"] == pytest.approx(1 / 3)
    assert scores["macro_f1"] == pytest.approx((1 / 3 + 1) / 2)
    assert scores["accuracy"] == pytest.approx((1 / 2 + 1) / 2)


def test_headline_of_values_alone_has_no_classification_score(reports):
    assert list(metrics.headline(reports[2:])) == ["severity.r2", "severity.mae", "severity.rmse", "severity.mse"]
    assert metrics.headline([]) == {}


def test_every_score_adds_each_class_by_name(reports):
    scores = metrics.every_score(reports)
    added = scores.keys() - metrics.headline(reports).keys()
    labels = [("disease", "none"), ("disease", "rust"), ("symptoms", "spots")]
    expected = {f"{target}.{score}[{name}]" for target, name in labels for score in MEASURES}
    assert added == expected | {"symptoms.average_precision[spots]"}
    assert scores["disease.recall[none]"] == 1
    assert scores["disease.recall[rust]"] == 0
    assert scores["disease.precision[none]"] == 0.5
    assert scores["symptoms.support[spots]"] == 1


def test_checkpoints_are_chosen_by_f1_and_r2_alike(reports):
    assert metrics.selection_score(reports) == pytest.approx((1 / 3 + 1 + 0.5) / 3)
    assert metrics.selection_score([]) == 0


def test_reports_are_plain_json(reports):
    disease, symptoms, severity = (json.loads(json.dumps(metrics.as_json(result))) for result in reports)
    assert disease["confusion"] == [[1, 0], [1, 0]]
    assert disease["classes"] == ["none", "rust"]
    assert disease["per_class"]["rust"]["support"] == 1
    assert "confusion" not in symptoms
    assert severity == {"photos": 2, "unit": "days", "r2": 0.5, "mae": 0.25, "rmse": 0.125**0.5, "mse": 0.125}


# --- how sure: the bootstrap over groups ------------------------------------------------------

SYMPTOMS = Target("symptoms", "multilabel", ("spots", "holes", "dust"))


@pytest.fixture(scope="module")
def answered():
    """Sixty photos in groups, three targets, each with photos that are not labelled, and answers."""
    rng = np.random.default_rng(3)
    photos = 60
    groups = metrics.Groups([f"plant{number}" for number in rng.integers(0, 17, photos)])
    disease = class_target(4)
    truth = rng.integers(-1, 4, photos)
    outputs = rng.dirichlet(np.ones(4), photos).astype(np.float32)
    outputs[: photos // 2] = np.round(outputs[: photos // 2], 1)  # equal scores
    outputs /= outputs.sum(axis=1, keepdims=True)
    sets = rng.integers(0, 2, (photos, 3)).astype(np.float32)
    sets[:5] = np.nan
    values = rng.normal(5, 2, photos).astype(np.float32)
    values[7] = np.nan
    return groups, [
        (disease, truth, outputs),
        (SYMPTOMS, sets, rng.random((photos, 3)).astype(np.float32)),
        (VALUE, values, (values + rng.normal(0, 1, photos))[:, None].astype(np.float32)),
    ]


def drawn_photos(groups, draw, row):
    return np.repeat(np.arange(len(groups.number)), draw.counts[row][groups.number])


def test_every_resample_has_the_scores_of_the_photos_in_it(answered):
    groups, targets = answered
    measured = [statistics.of_target(*each) for each in targets]
    result = metrics.replicate(measured, groups, resamples=40, seed=5)
    (draw,) = groups.draws(40, 5)
    compared = 0
    for row in range(40):
        photos = drawn_photos(groups, draw, row)
        reports = [metrics.report(target, truth[photos], outputs[photos]) for target, truth, outputs in targets]
        scores = metrics.every_score(reports)
        assert set(result) <= set(scores)
        for name, values in result.items():
            if not np.isnan(values[row]):  # where the report says 0 for want of photos
                assert values[row] == pytest.approx(scores[name], abs=2e-4), name
                compared += 1
    assert compared > 40 * len(result) * 0.9
    headline = metrics.headline(reports)
    assert {name for name in headline if "." in name} <= set(result)


def test_groups_are_drawn_whole():
    groups = metrics.Groups(["a", "a", "b", "c", "c", "c"])
    (draw,) = groups.draws(200, 0)
    drawn = draw.of(np.arange(6))
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (draw.counts.sum(axis=1) == 3).all()
    assert draw.counts.mean() == pytest.approx(1)
    assert groups.having(np.array([True, True, False, True, False, False])) == 2


def test_the_same_seed_gives_the_same_intervals_however_many_are_held_at_a_time(answered, monkeypatch):
    groups, targets = answered
    measured = [statistics.of_target(*each) for each in targets]
    first = metrics.replicate(measured, groups, resamples=50, seed=1)
    again = metrics.replicate(measured, groups, resamples=50, seed=1)
    other = metrics.replicate(measured, groups, resamples=50, seed=2)
    assert all(np.array_equal(first[name], again[name], equal_nan=True) for name in first)
    assert not np.array_equal(first["disease.accuracy"], other["disease.accuracy"])
    monkeypatch.setattr(bootstrap, "_CHUNK", 100)
    chunked = metrics.replicate(measured, groups, resamples=50, seed=1)
    assert np.allclose(first["severity.mae"], chunked["severity.mae"])


def test_photos_of_one_group_make_the_interval_wider():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(60) < 0.8, 10)  # ten photos a plant, right or wrong together
    truth = np.zeros(600, np.int64)
    outputs = probabilities(np.where(right, 0, 1), [0.9] * 600, 2)
    widths = {}
    for name, keys in (("plants", np.repeat(np.arange(60), 10)), ("photos", np.arange(600))):
        groups = metrics.Groups(keys)
        result = metrics.replicate(
            [statistics.of_target(class_target(2), truth, outputs)], groups, resamples=2000, seed=0
        )
        widths[name] = metrics.interval("disease.accuracy", right.mean(), result["disease.accuracy"]).width
    assert widths["plants"] == pytest.approx(widths["photos"] * np.sqrt(10), rel=0.15)


@pytest.mark.parametrize("plants", [40, 150])
def test_intervals_hold_the_truth_about_as_often_as_they_say(plants):
    content = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        skill = rng.beta(8, 2, plants)  # each plant is easier or harder, 0.8 on average
        right = rng.random((plants, 5)) < skill[:, None]
        groups = metrics.Groups(np.repeat(np.arange(plants), 5))
        whole = np.ones(plants * 5, bool)
        result = metrics.replicate([statistics.MeanStatistic({"accuracy": (right.ravel(), whole)})], groups,
                                  resamples=500, seed=seed)  # fmt: skip
        interval = metrics.interval("accuracy", right.mean(), result["accuracy"])
        content += interval.low <= 0.8 <= interval.high
    assert content >= 0.9 * 150


def test_no_mistake_among_few_is_not_certainty():
    groups = metrics.Groups(range(20))
    outputs = probabilities([0, 1] * 10, [0.9] * 20, 2)
    statistic = statistics.of_target(class_target(2), np.array([0, 1] * 10), outputs)
    result = metrics.replicate([statistic], groups, resamples=100, seed=0)
    interval = metrics.interval("disease.accuracy", 1.0, result["disease.accuracy"], groups=20)
    assert interval.high == 1
    assert interval.low == pytest.approx(stats.binomtest(20, 20).proportion_ci(method="exact").low)
    worst = metrics.interval("disease.recall[none]", 0.0, np.zeros(100), groups=20)
    assert (worst.low, worst.high) == (0, pytest.approx(1 - interval.low))


def test_few_groups_have_the_limits_of_so_many_trials():
    resampled = np.linspace(0.7, 0.8, 100)  # two plants, whose shares are alike
    interval = metrics.interval("disease.recall[rust]", 0.75, resampled, groups=4)
    theirs = stats.binomtest(3, 4).proportion_ci(method="exact")
    assert (interval.low, interval.high) == (pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert metrics.interval("disease.recall[rust]", 0.75, resampled, groups=40).width < 0.1


def test_one_group_has_no_interval():
    groups = metrics.Groups(["a"] * 5)
    statistic = statistics.of_target(VALUE, np.arange(5.0), np.zeros((5, 1)))
    assert metrics.replicate([statistic], groups, resamples=10, seed=0) == {}
    assert metrics.interval("severity.mae", 1.0, None) is None
    assert metrics.interval("severity.mae", 1.0, np.full(10, np.nan)) is None


def test_one_photo_and_a_missing_class_go_through(answered):
    groups = metrics.Groups(["a", "b"])
    statistic = statistics.of_target(class_target(3), np.array([0, -1]), probabilities([0, 1], [0.9, 0.9], 3))
    result = metrics.replicate([statistic], groups, resamples=20, seed=0)
    assert np.isnan(result["disease.recall[rust]"]).all()
    assert np.nanmin(result["disease.accuracy"]) == 1


def test_ten_thousand_photos_take_seconds():
    rng = np.random.default_rng(0)
    groups = metrics.Groups(np.arange(10_000))
    outputs = rng.dirichlet(np.ones(10), 10_000).astype(np.float32)
    target = Target("disease", "class", tuple(f"d{number}" for number in range(10)))
    statistic = statistics.of_target(target, rng.integers(0, 10, 10_000), outputs)
    start = time.process_time()
    metrics.replicate([statistic], groups, resamples=1000, seed=0)
    assert time.process_time() - start < 10  # about 2 on the machine it was written on


# --- two models -------------------------------------------------------------------------------


def test_mcnemar_is_the_exact_binomial_test():
    first = np.array([True] * 9 + [False] * 2 + [True] * 30)
    second = np.array([False] * 9 + [True] * 2 + [True] * 30)
    result = metrics.mcnemar(first, second)
    assert (result.photos, result.wins, result.losses) == (41, 9, 2)
    assert result.p == pytest.approx(2 * stats.binom.cdf(2, 11, 0.5))
    assert metrics.mcnemar(first, first).p == 1
    assert metrics.mcnemar(np.zeros(0, bool), np.zeros(0, bool)).p == 1


def test_mcnemar_of_many_is_close_to_exact():
    first = np.r_[np.ones(600, bool), np.zeros(500, bool)]
    result = metrics.mcnemar(first, ~first)
    assert result.p == pytest.approx(stats.binomtest(600, 1100).pvalue, rel=0.02)
