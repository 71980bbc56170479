"""Uneven classes: weights of the loss, or adjusted logits."""

import math
from collections.abc import Sequence

import polars as pl

from plantml.targets import Target
from plantml.train.config import Balance

ClassNumbers = dict[str, tuple[float, ...]]
"""One number per class, by target."""

_UNEVEN, _VERY_UNEVEN = 3.0, 30.0
"""Ratios of the largest to the smallest class above which the loss is weighted, or the logits are adjusted."""

_BETA = 0.999
"""Beta of the effective number of photos (Cui et al. 2019, "Class-balanced loss")."""


def class_counts(train: pl.DataFrame, targets: Sequence[Target]) -> dict[str, list[int]]:
    """Labels of each class in the training photos, by class target."""
    counts = {}
    for target in targets:
        if target.kind == "class":
            by_class = dict(train[target.name].drop_nulls().value_counts().iter_rows())
            counts[target.name] = [by_class.get(name, 0) for name in target.classes]
    return counts


def default_balance(counts: dict[str, list[int]]) -> tuple[Balance, str]:
    """The balance for these counts and the reason."""
    if all(len(numbers) < 2 for numbers in counts.values()):
        return "off", "there are no classes to balance"
    worst = max(map(_ratio, counts.values()))
    balance: Balance = "off" if worst <= _UNEVEN else "weights" if worst <= _VERY_UNEVEN else "logits"
    return balance, f"the largest class is {worst:.1f} times the smallest"


def class_weights_and_logits(
    balance: Balance, counts: dict[str, list[int]], *, every_target: bool
) -> tuple[ClassNumbers, ClassNumbers]:
    """`class_weights` and `class_logits` of a plan: for uneven targets, or for every target."""
    uneven = {name: numbers for name, numbers in counts.items() if every_target or _ratio(numbers) > _UNEVEN}
    weights = (
        {name: _weights(numbers) for name, numbers in uneven.items()} if balance in {"weights", "sampling"} else {}
    )
    logits = {name: _log_shares(numbers) for name, numbers in uneven.items()} if balance == "logits" else {}
    return weights, logits


def _ratio(counts: Sequence[int]) -> float:
    """Largest class over smallest; classes without photos do not count."""
    present = [number for number in counts if number]
    return max(present) / min(present)


def _weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights by effective number, with mean 1 over the photos; 0 for a class without photos."""
    raw = [(1 - _BETA) / (1 - _BETA**number) if number else 0.0 for number in counts]
    mean = sum(weight * number for weight, number in zip(raw, counts, strict=True)) / sum(counts)
    return tuple(round(weight / mean, 4) for weight in raw)


def _log_shares(counts: Sequence[int]) -> tuple[float, ...]:
    """Logarithms of the class shares (Menon et al. 2021, "Long-tail learning via logit adjustment")."""
    return tuple(round(math.log(max(1, number) / sum(counts)), 4) for number in counts)
