"""Temperatures and thresholds do what their definitions say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plantml.targets import Target
from plantml.train import calibrate

DISEASE = Target("disease", "class", ("a", "b", "c"))


def calibrated(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose probabilities are true, and labels drawn from them."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(count, 3)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = [draw.choice(3, p=row) for row in probabilities]
    return torch.tensor(logits), torch.tensor(labels)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_known_distortion(factor: float) -> None:
    logits, labels = calibrated(4000, 1)
    assert calibrate.temperature(DISEASE, logits * factor, labels) == pytest.approx(factor, rel=0.1)


def test_a_split_without_mistakes_does_not_ask_for_boundless_confidence() -> None:
    labels = torch.arange(60) % 3
    logits = torch.nn.functional.one_hot(labels, 3).double() * 2
    temperature = calibrate.temperature(DISEASE, logits, labels)
    confidence = (logits / temperature).softmax(dim=1).max().item()
    assert confidence == pytest.approx(61 / 62, abs=0.002)


def test_unlabelled_photos_do_not_count() -> None:
    logits, labels = calibrated(500, 2)
    both = torch.cat([logits, logits * 9]), torch.cat([labels, torch.full((500,), -1)])
    assert calibrate.temperature(DISEASE, *both) == calibrate.temperature(DISEASE, logits, labels)
    assert calibrate.temperature(DISEASE, logits, torch.full((500,), -1)) == 1.0


@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.05, 0.3]),
)
def test_accepted_answers_keep_the_risk_and_a_lower_threshold_would_not(photos, risk) -> None:
    scores, right = np.array([s for s, _ in photos]), np.array([r for _, r in photos])
    chosen = calibrate.threshold(scores, right, risk)

    def risk_from(bound: float) -> float:
        return float((~right[scores >= bound]).mean()) if (scores >= bound).any() else 0.0

    assert risk_from(chosen) <= risk
    assert all(risk_from(lower) > risk for lower in set(scores[scores < chosen]))


def test_unknown_threshold_keeps_99_of_100_known() -> None:
    unknown = torch.linspace(0, 1, 1000)
    assert (unknown <= calibrate.unknown_threshold(unknown)).float().mean() == pytest.approx(0.99, abs=0.002)
