"""What the logits are scaled by makes the answers as sure as they are right."""

import numpy as np
import pytest
import torch
from torch import nn

from plantml import metrics
from plantml.model import temperature
from plantml.model.contract import Architecture
from plantml.model.network import Deployed, PlantNet
from plantml.model.temperature import Scaling
from plantml.targets import Target

DISEASE = Target("disease", "class", ("blight", "none", "rust"))
HEALTH = Target("health", "class", ("diseased", "healthy"))
KIND = Target("kind", "class", ("a", "b", "c"))
SYMPTOMS = Target("symptoms", "multilabel", ("spots", "curl"))
SEVERITY = Target("severity", "value", unit="fraction")


def deployed(*targets: Target) -> Deployed:
    architecture = Architecture(backbone="", embedding=2, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1)
    return Deployed(PlantNet(architecture, targets, nn.Identity()), {}, torch.ones(1, 2)).eval()


def true_logits(count: int, seed: int, classes: int = 3) -> tuple[torch.Tensor, np.ndarray]:
    """Logits whose probabilities are true, and labels drawn from them."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.normal(size=(count, classes)) * 2)
    return logits, np.array([draw.choice(classes, p=row) for row in logits.softmax(dim=1).numpy()])


def error(scaled: Scaling, made: Deployed, logits, labels) -> dict[str, float]:
    """The calibration error, by target, of answers under a scaling."""
    of = Deployed(made.net, scaled.temperatures, made.bank, None, scaled.biases)
    answers = {name: result.detach().numpy() for name, result in of.answers(logits).items()}
    return {result.target: result.scores["ece"] for result in metrics.reports_of(made.net.targets, labels, answers)}


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_temperature_undoes_a_known_distortion(factor) -> None:
    logits, labels = true_logits(4000, 1)
    result = temperature.fit(deployed(KIND), {"kind": logits * factor}, {"kind": labels})
    assert result.temperatures["kind"] == pytest.approx(factor, rel=0.1)
    assert result.biases["kind"] == pytest.approx((0, 0, 0), abs=0.15)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_it_undoes_it_for_sets_of_labels_too(factor) -> None:
    draw = np.random.default_rng(3)
    logits = draw.normal(size=(4000, 2)) * 2
    labels = (draw.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    result = temperature.fit(deployed(SYMPTOMS), {"symptoms": torch.from_numpy(logits * factor)}, {"symptoms": labels})
    assert result.temperatures["symptoms"] == pytest.approx(factor, rel=0.1)


def test_a_bias_undoes_what_weights_did_to_the_priors() -> None:
    logits, labels = true_logits(4000, 5)
    result = temperature.fit(deployed(KIND), {"kind": logits + torch.tensor([1.0, 0.0, -0.5])}, {"kind": labels})
    biases = np.array(result.biases["kind"])
    assert biases - biases.mean() == pytest.approx(np.array([-1.0, 0.0, 0.5]) + 0.5 / 3, abs=0.15)


def test_heads_that_see_the_same_signs_are_not_believed_twice() -> None:
    """Each head alone is calibrated; their joint answer is too sure, and is put right."""
    logits, labels = true_logits(3000, 2)
    odds = torch.logsumexp(logits[:, [0, 2]], dim=1) - logits[:, 1]  # of being diseased, by the disease head
    both = {"disease": logits, "health": torch.stack([odds, torch.zeros_like(odds)], dim=1)}
    known = {"disease": labels, "health": (labels == 1).astype(np.int64)}
    made = deployed(HEALTH, DISEASE)
    before = error(Scaling({}, {}), made, both, known)
    seen, unseen = ({name: result[part] for name, result in both.items()} for part in (slice(1500), slice(1500, None)))
    first, rest = ({name: result[part] for name, result in known.items()} for part in (slice(1500), slice(1500, None)))
    after = error(temperature.fit(made, seen, first), made, unseen, rest)
    assert before["health"] > 0.06
    assert max(after.values()) < 0.045


def test_a_split_without_mistakes_does_not_ask_for_boundless_confidence() -> None:
    labels = np.arange(60) % 3
    logits = torch.eye(3, dtype=torch.float64)[torch.from_numpy(labels)] * 2
    result = temperature.fit(deployed(KIND), {"kind": logits}, {"kind": labels})
    confidence = (logits / result.temperatures["kind"]).softmax(dim=1).max()
    assert 0.9 < float(confidence) < 0.99


def test_few_photos_move_little() -> None:
    logits, labels = true_logits(6, 8)
    result = temperature.fit(deployed(KIND), {"kind": logits}, {"kind": labels})
    assert 0.4 < result.temperatures["kind"] < 2.5
    assert max(map(abs, result.biases["kind"])) < 0.5


def test_unlabelled_photos_do_not_count() -> None:
    logits, labels = true_logits(500, 2)
    both = {"kind": torch.cat([logits, logits * 9])}, {"kind": np.concatenate([labels, np.full(500, -1)])}
    made = deployed(KIND)
    assert temperature.fit(made, *both) == temperature.fit(made, {"kind": logits}, {"kind": labels})


def test_what_has_no_label_stays_as_it_was() -> None:
    made, start = (
        deployed(KIND, SYMPTOMS, SEVERITY),
        Scaling({"kind": 1.7, "symptoms": 0.6}, {"kind": (0.1, 0.0, -0.1)}),
    )
    logits = {"kind": torch.randn(9, 3), "symptoms": torch.randn(9, 2), "severity": torch.randn(9, 1)}
    labels = {"kind": np.full(9, -1), "severity": np.zeros(9, np.float32)}
    result = temperature.fit(made, logits, labels, start)
    assert result.temperatures == {"kind": 1.7, "symptoms": 0.6}
    assert result.biases == {"kind": (0.1, 0.0, -0.1), "symptoms": (0.0, 0.0)}


def test_a_value_alone_needs_none() -> None:
    result = temperature.fit(deployed(SEVERITY), {"severity": torch.randn(4, 1)}, {"severity": np.zeros(4, np.float32)})
    assert result == Scaling({}, {})
