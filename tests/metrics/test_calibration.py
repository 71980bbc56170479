"""Thresholds and calibration errors do what their definitions say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml import metrics
from plantml.metrics import calibration
from plantml.targets import Target, Threshold

DISEASE = Target("disease", "class", ("a", "b", "c"))
SYMPTOMS = Target("symptoms", "multilabel", ("spots", "curl"))
SEVERITY = Target("severity", "value", unit="fraction")

ANSWERS = st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=40)


def calibrated(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probabilities are true, and labels drawn from them."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(count, 3)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = [draw.choice(3, p=row) for row in probabilities]
    return logits, np.array(labels)


def test_a_value_has_no_threshold() -> None:
    values, labels = np.zeros((4, 1)), np.zeros(4, np.float32)
    assert calibration.accept_thresholds([SEVERITY], {"severity": values}, {"severity": labels}, 0.05) == {}


@given(ANSWERS, st.sampled_from([0.0, 0.05, 0.3]))
def test_accepted_answers_keep_the_risk_and_a_lower_threshold_would_not(photos, risk) -> None:
    scores, right = np.array([s for s, _ in photos]), np.array([r for _, r in photos])
    chosen = calibration.threshold(scores, right, risk)

    def risk_from(bound: float) -> float:
        return float((~right[scores >= bound]).mean()) if (scores >= bound).any() else 0.0

    assert risk_from(chosen.score) <= risk
    assert all(risk_from(lower) > risk for lower in set(scores[scores < chosen.score]))
    assert chosen.risk == pytest.approx(risk_from(chosen.score), abs=1e-6)
    assert chosen.coverage == pytest.approx(float((scores >= chosen.score).mean()), abs=1e-6)
    assert chosen.risk <= chosen.bound <= 1


@pytest.mark.parametrize(("photos", "provisional"), [(199, True), (200, False)])
def test_a_threshold_from_few_photos_is_provisional(photos, provisional) -> None:
    result = calibration.threshold(np.linspace(0.5, 1, photos), np.ones(photos, bool), 0.05)
    assert (result.photos, result.provisional, result.coverage) == (photos, provisional, 1.0)


def test_nothing_is_accepted_where_every_answer_is_wrong() -> None:
    result = calibration.threshold(np.array([0.9, 1.0]), np.zeros(2, bool), 0.05)
    assert result == Threshold(calibration.NOTHING, 0.0, 0.0, 1.0, 2, provisional=True)


def test_thresholds_are_of_labelled_photos_only() -> None:
    answers = {"disease": np.array([[0.8, 0.1, 0.1], [0.1, 0.9, 0.0], [0.6, 0.2, 0.2]], np.float32)}
    labels = {"disease": np.array([0, -1, 1])}
    result = calibration.accept_thresholds([DISEASE], answers, labels, 0.05)["disease"]
    assert result.photos == 2
    assert result.score == pytest.approx(0.8, abs=1e-5)
    assert calibration.accept_thresholds([DISEASE], answers, {"disease": np.full(3, -1)}, 0.05) == {}


def test_a_set_of_labels_is_as_sure_as_its_least_sure_and_right_as_a_whole() -> None:
    answers = np.array([[0.9, 0.3], [0.9, 0.9], [0.5, 0.5]])
    labels = np.array([[1, 0], [1, 0], [np.nan, np.nan]], np.float32)
    scores, right = calibration.judged(SYMPTOMS, answers, labels)
    assert scores == pytest.approx([0.7, 0.9])
    assert right.tolist() == [True, False]
    scores, right = calibration.confidences(SYMPTOMS, answers, labels)
    assert scores == pytest.approx([0.9, 0.7, 0.9, 0.9])
    assert right.tolist() == [True, True, True, False]


def test_unknown_threshold_keeps_99_of_100_known() -> None:
    unknown = np.linspace(0, 1, 1000)
    assert (unknown <= calibration.unknown_threshold(unknown)).mean() == pytest.approx(0.99, abs=0.002)


def test_a_calibrated_model_is_within_what_chance_explains_and_a_boastful_one_is_not() -> None:
    logits, labels = calibrated(2000, 4)

    def of(logits):
        scaled = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return calibration.reliability(*calibration.confidences(DISEASE, scaled, labels))

    honest, boastful = of(logits), of(logits * 3)
    assert honest.explained_by_chance
    assert honest.low <= honest.ece <= honest.high < 0.05
    assert not boastful.explained_by_chance
    assert boastful.ece > 0.1


def test_the_range_of_chance_is_that_of_95_in_100_calibrated_models() -> None:
    draw = np.random.default_rng(5)
    confidence = draw.uniform(0.4, 1, 60)
    inside = 0
    for _ in range(300):
        result = calibration.reliability(confidence, draw.random(60) < confidence, draws=200)
        inside += result.low <= result.ece <= result.high
    assert 0.90 < inside / 300 < 0.99


def test_reliability_is_the_error_that_metrics_report_and_the_same_every_time() -> None:
    logits, labels = calibrated(90, 6)
    result = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    once = calibration.reliability(*calibration.confidences(DISEASE, result, labels))
    assert once.ece == pytest.approx(metrics.calibration_error(result.max(axis=1), result.argmax(axis=1) == labels))
    assert once == calibration.reliability(*calibration.confidences(DISEASE, result, labels))


@pytest.mark.parametrize(
    ("confidence", "right", "ece"),
    [([], [], 0.0), ([1.0], [True], 0.0), ([1.0], [False], 1.0), ([0.0], [False], 0.0), ([0.5], [True], 0.5)],
)
def test_degenerate_inputs_have_a_calibration_error(confidence, right, ece) -> None:
    result = calibration.reliability(np.array(confidence), np.array(right, bool))
    assert (result.ece, result.photos) == (pytest.approx(ece), len(confidence))


@pytest.mark.parametrize("photos", [1, 30, 60, 150, 250, 660])
def test_at_least_99_of_100_validation_photos_are_known(photos: int) -> None:
    unknown = np.random.default_rng(photos).random(photos).astype(np.float32)
    assert (unknown <= calibration.unknown_threshold(unknown)).mean() >= 0.99
