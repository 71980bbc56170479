import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics import classification as tm

from plantml import metrics
from plantml.errors import InputError
from plantml.targets import Target

CLASSES = ("none", "rust", "blight", "mould", "scab")
many = settings(max_examples=150, deadline=None)


def class_target(size):
    return Target("disease", "class", CLASSES[:size])


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
    for found in (ONE_CLASS_MISSING, NAMED_BUT_NEVER_THERE, ALL_WRONG, ONE_PHOTO_RIGHT, ONE_PHOTO_WRONG):
        test = example(found)(test)
    return test


# --- classes ----------------------------------------------------------------------------------


@degenerate
@given(answered_classes())
@many
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_class_scores_are_those_of_scikit_learn(found):
    size, truth, predicted, outputs = found
    report = metrics.report_encoded(class_target(size), truth, outputs)
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
    report = metrics.report_encoded(class_target(size), truth, outputs)
    theirs = sk.precision_recall_fscore_support(truth, predicted, labels=range(size), zero_division=0)
    for name, *numbers in zip(CLASSES[:size], *theirs, strict=True):
        assert list(report.per_class[name]) == ["precision", "recall", "f1", "support"]
        assert list(report.per_class[name].values()) == pytest.approx(numbers)


@degenerate
@given(answered_classes())
@many
def test_class_scores_are_those_of_torchmetrics(found):
    size, truth, _, outputs = found
    scores = metrics.report_encoded(class_target(size), truth, outputs).scores
    theirs = {
        "accuracy": tm.MulticlassAccuracy(size, average="micro"),
        "macro_f1": tm.MulticlassF1Score(size, average="macro"),
        "ece": tm.MulticlassCalibrationError(size, n_bins=15, norm="l1"),
    }
    for name, metric in theirs.items():
        assert scores[name] == pytest.approx(float(metric(torch.tensor(outputs), torch.tensor(truth))), abs=1e-6)


def test_calibration_error_by_hand():
    # Bins are open below and closed above: 1.0 and 0.95 share the last one, 0.6 = 9/15 ends the ninth.
    confidence, right = np.array([1.0, 0.95, 0.6, 0.55]), [True, False, False, True]
    outputs = np.stack([confidence, 1 - confidence], axis=1)
    by_hand = abs(1.0 + 0.95 - 1) / 4 + abs(0.6 + 0.55 - 1) / 4
    assert metrics.calibration_error(outputs, np.where(right, 0, 1)) == pytest.approx(by_hand)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    outputs = probabilities([0, 0, 0], [1.0, 1.0, 1.0], 2)
    assert metrics.calibration_error(outputs, np.array([0, 0, 0])) == 0
    assert metrics.calibration_error(outputs, np.array([1, 1, 1])) == 1


def test_photos_without_a_label_do_not_count():
    target = class_target(3)
    outputs = probabilities([0, 1, 2, 1], [0.9, 0.8, 0.7, 0.6], 3)
    with_gaps = metrics.report(target, ["none", None, "rust", None], outputs)
    without = metrics.report(target, ["none", "rust"], outputs[[0, 2]])
    assert with_gaps.photos == 2
    assert with_gaps.scores == without.scores


@pytest.mark.parametrize(
    "target", [class_target(2), Target("symptoms", "multilabel", ("a", "b")), Target("severity", "value")]
)
def test_no_labels_give_no_report(target):
    assert metrics.report(target, [None, None], np.full((2, target.size), 0.5, np.float32)) is None


def test_unknown_label_is_named():
    with pytest.raises(InputError, match="mildew"):
        metrics.report(class_target(2), ["mildew"], np.full((1, 2), 0.5, np.float32))


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
    report = metrics.report(target, labels, outputs)

    predicted = outputs > 0.5
    theirs = sk.precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    for name, *numbers in zip(target.classes, *theirs, strict=True):
        assert list(report.per_class[name].values()) == pytest.approx(numbers)
    assert report.scores["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    macro = tm.MultilabelF1Score(size, average="macro")(torch.tensor(outputs), torch.tensor(truth).long())
    assert report.scores["macro_f1"] == pytest.approx(float(macro), abs=1e-6)


def test_a_label_is_present_from_one_half():
    target = Target("symptoms", "multilabel", ("spots",))
    assert metrics.report(target, [["spots"]], np.array([[0.5]], np.float32)).scores["accuracy"] == 1
    assert metrics.report(target, [["spots"]], np.array([[0.4999]], np.float32)).scores["accuracy"] == 0


# --- values -----------------------------------------------------------------------------------

VALUE = Target("severity", "value", unit="days")
days = st.floats(-1000, 1000, width=32)


@given(st.lists(st.tuples(days, days), min_size=2, max_size=12))
@many
def test_value_scores_are_those_of_scikit_learn(pairs):
    truth, said = np.array(pairs, np.float32).T
    scores = metrics.report(VALUE, truth.tolist(), said[:, None]).scores
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(truth, said), rel=1e-5)
    assert scores["mse"] == pytest.approx(sk.mean_squared_error(truth, said), rel=1e-5)
    if np.ptp(truth) > 1e-2:  # below, the float32 labels themselves are rounding
        assert scores["r2"] == pytest.approx(sk.r2_score(truth.astype(float), said.astype(float)), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.1, 5.3, -123.4])
@pytest.mark.parametrize("photos", [1, 7, 1000])
def test_r2_is_zero_where_the_truth_does_not_vary(constant, photos):
    scores = metrics.report(VALUE, [constant] * photos, np.full((photos, 1), constant + 1, np.float32)).scores
    assert scores["r2"] == 0
    assert scores["mae"] == pytest.approx(1, rel=1e-4)


def test_perfect_values_have_r2_one_and_no_error():
    truth = [0.1, 0.5, 0.9]
    scores = metrics.report(VALUE, truth, np.array(truth, np.float32)[:, None]).scores
    assert scores == {"r2": 1, "mae": 0, "mse": 0}


# --- over all targets -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports():
    disease = metrics.report(class_target(2), ["none", "rust"], probabilities([0, 0], [0.9, 0.8], 2))
    symptoms = Target("symptoms", "multilabel", ("spots",))
    return [
        disease,
        metrics.report(symptoms, [["spots"], []], np.array([[0.9], [0.1]], np.float32)),
        metrics.report(VALUE, [1.0, 2.0], np.array([[1.0], [2.5]], np.float32)),
    ]


def test_headline_is_the_mean_over_targets_and_each_score_by_name(reports):
    scores = metrics.headline(reports)
    assert list(scores) == [
        "macro_f1",
        "accuracy",
        "disease.accuracy",
        "disease.balanced_accuracy",
        "disease.macro_f1",
        "disease.ece",
        "symptoms.accuracy",
        "symptoms.macro_f1",
        "severity.r2",
        "severity.mae",
        "severity.mse",
    ]
    assert scores["disease.macro_f1"] == pytest.approx(1 / 3)
    assert scores["macro_f1"] == pytest.approx((1 / 3 + 1) / 2)
    assert scores["accuracy"] == pytest.approx((1 / 2 + 1) / 2)


def test_headline_of_values_alone_has_no_classification_score(reports):
    assert list(metrics.headline(reports[2:])) == ["severity.r2", "severity.mae", "severity.mse"]
    assert metrics.headline([]) == {}


def test_every_score_adds_each_class_by_name(reports):
    scores = metrics.every_score(reports)
    added = scores.keys() - metrics.headline(reports).keys()
    measures = ("precision", "recall", "f1", "support")
    labels = [("disease", "none"), ("disease", "rust"), ("symptoms", "spots")]
    assert added == {f"{target}.{score}[{name}]" for target, name in labels for score in measures}
    assert scores["disease.recall[none]"] == 1
    assert scores["disease.recall[rust]"] == 0
    assert scores["disease.precision[none]"] == 0.5
    assert scores["symptoms.support[spots]"] == 1


def test_checkpoints_are_chosen_by_f1_and_r2_alike(reports):
    assert metrics.selection_score(reports) == pytest.approx((1 / 3 + 1 + 0.5) / 3)
    assert metrics.selection_score([]) == 0


def test_reports_are_plain_json(reports):
    disease, symptoms, severity = (json.loads(json.dumps(metrics.as_json(found))) for found in reports)
    assert disease["confusion"] == [[1, 0], [1, 0]]
    assert disease["classes"] == ["none", "rust"]
    assert disease["per_class"]["rust"]["support"] == 1
    assert "confusion" not in symptoms
    assert severity == {"photos": 2, "unit": "days", "r2": 0.5, "mae": 0.25, "mse": 0.125}
