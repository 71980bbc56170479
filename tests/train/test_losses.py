"""Missing labels are ignored, and units do not matter."""

import math

import pytest
import torch
from torch.nn import functional

from plantml.targets import Target
from plantml.train.losses import counts, total_loss

CLASS = Target("disease", "class", ("a", "b", "c"))
MULTI = Target("symptoms", "multilabel", ("x", "y"))
VALUE = Target("severity", "value", unit="percent")
NAN = math.nan


def test_class_loss_is_cross_entropy_of_the_labelled() -> None:
    logits = torch.randn(4, 3)
    labels = torch.tensor([0, -1, 2, -1])
    loss = total_loss({"disease": logits}, {"disease": labels}, [CLASS], smoothing=0.1, scales={})
    expected = functional.cross_entropy(logits[[0, 2]], labels[[0, 2]], label_smoothing=0.1)
    assert torch.isclose(loss, expected)


def test_multilabel_loss_skips_missing_rows() -> None:
    logits = torch.randn(3, 2)
    labels = torch.tensor([[1.0, 0.0], [NAN, NAN], [0.0, 1.0]])
    loss = total_loss({"symptoms": logits}, {"symptoms": labels}, [MULTI], smoothing=0.0, scales={})
    expected = functional.binary_cross_entropy_with_logits(logits[[0, 2]], labels[[0, 2]])
    assert torch.isclose(loss, expected)


def test_value_loss_is_the_same_in_any_unit() -> None:
    predicted, labels = torch.tensor([[0.1], [0.5], [0.2]]), torch.tensor([0.3, NAN, 0.1])
    as_fraction = total_loss(
        {"severity": predicted}, {"severity": labels}, [VALUE], scales={"severity": torch.tensor(0.2)}
    )
    as_percent = total_loss(
        {"severity": predicted * 100},
        {"severity": labels * 100},
        [VALUE],
        smoothing=0,
        scales={"severity": torch.tensor(20.0)},
    )
    assert as_fraction > 0
    assert torch.isclose(as_fraction, as_percent)


@pytest.mark.parametrize(
    ("target", "labels"),
    [(CLASS, torch.full((2,), -1)), (MULTI, torch.full((2, 2), NAN)), (VALUE, torch.full((2,), NAN))],
)
def test_a_batch_without_labels_gives_zero_and_no_gradient(target, labels) -> None:
    logits = torch.randn(2, target.size, requires_grad=True)
    loss = total_loss(
        {target.name: logits}, {target.name: labels}, [target], smoothing=0.1, scales={target.name: torch.tensor(1.0)}
    )
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_targets_add_up() -> None:
    logits = {"disease": torch.randn(2, 3), "symptoms": torch.randn(2, 2)}
    labels = {"disease": torch.tensor([0, 1]), "symptoms": torch.ones(2, 2)}
    both = total_loss(logits, labels, [CLASS, MULTI], scales={})
    assert torch.isclose(both, sum(total_loss(logits, labels, [target], scales={}) for target in (CLASS, MULTI)))


def test_weights_make_rare_classes_count_as_much() -> None:
    logits, labels = torch.randn(40, 3), torch.tensor([0] * 30 + [1] * 10)
    loss = total_loss(
        {"disease": logits}, {"disease": labels}, [CLASS], scales={}, weights={"disease": (2 / 3, 2.0, 1.0)}
    )
    each = functional.cross_entropy(logits, labels, reduction="none")
    assert torch.isclose(loss, (each[:30].mean() + each[30:].mean()) / 2)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    logits = {"disease": torch.randn(6, 3), "symptoms": torch.randn(6, 2)}
    labels = {"disease": torch.tensor([0, 1, -1, 2, -1, 1]), "symptoms": torch.tensor([[1.0, 0.0]] * 5 + [[NAN, NAN]])}
    weights = {"disease": (0.5, 1.0, 2.0)}
    whole = total_loss(logits, labels, [CLASS, MULTI], scales={}, weights=weights)
    parts = [slice(0, 2), slice(2, 6)]
    shares = [{name: values[part] for name, values in labels.items()} for part in parts]
    counted = sum(counts(share, [CLASS, MULTI], weights) for share in shares)
    losses = [
        total_loss(
            {name: values[part] for name, values in logits.items()},
            share,
            [CLASS, MULTI],
            scales={},
            weights=weights,
            counted=counted,
        )
        for part, share in zip(parts, shares, strict=True)
    ]
    assert torch.isclose(whole, sum(losses))


def test_adjusted_logits_ask_for_more_where_a_class_is_rare() -> None:
    logits, shifts = torch.zeros(1, 3), {"disease": (math.log(0.8), math.log(0.1), math.log(0.1))}
    often, seldom = (
        total_loss({"disease": logits}, {"disease": torch.tensor([label])}, [CLASS], scales={}, shifts=shifts)
        for label in (0, 1)
    )
    assert torch.isclose(often, torch.tensor(-math.log(0.8)))
    assert torch.isclose(seldom, torch.tensor(-math.log(0.1)))
