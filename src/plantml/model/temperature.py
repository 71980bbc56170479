"""Calibration of the logits: one temperature per target and one bias per class.

The logits z of a target become z / T + b: temperature scaling (Guo et al. 2017, "On calibration of modern neural
networks") with the bias correction of Alexandari et al. 2020 ("Maximum likelihood with bias-corrected calibration is
hard-to-beat at label shift adaptation"), which undoes what weights and sampling for rare classes did to the priors.

All targets are fitted together, on the final probabilities. Health and disease are the case in point: their heads
see the same signs, so that the joint probability takes the same evidence twice. Fitted one by one, each head would be
calibrated, and their joint probabilities overconfident.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plantml.model.network import Calibrated
from plantml.targets import Target

_LEAST, _MOST = 0.05, 20.0
"""Bounds of a temperature."""

_TEMPERATURE_SPREAD, _BIAS_SPREAD = 1.0, 0.5
"""Standard deviations of the normal priors of log T and b: few photos move them little, hundreds freely."""

_TINY = 1e-12
"""Added to probabilities, whose logarithm is taken."""


@dataclass(frozen=True)
class Scaling:
    """What makes logits calibrated, by target; nothing for values.

    Attributes:
        temperatures: what logits are divided by.
        biases: what is added to them then, a number a class.
    """

    temperatures: Mapping[str, float]
    biases: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class _Labelled:
    """Of one target: which photos are labelled, and what to answer for them, [n, classes]."""

    target: Target
    rows: Tensor
    soft: Tensor


def fit(
    deployed: Calibrated,
    logits: Mapping[str, Tensor],
    labels: Mapping[str, NDArray[Any]],
    start: Scaling | None = None,
) -> Scaling:
    """The scaling that maximises the likelihood of the labels under `deployed` and the priors.

    The labels of n photos are taken as (n + 1) / (n + 2) sure (Platt 1999, "Probabilistic outputs for support
    vector machines"): a split without a single mistake does not ask for boundless confidence.

    Args:
        deployed: whose answers count; its own scaling does not.
        logits: [N, classes], by target.
        labels: encoded, see `Target.encode`, by target.
        start: centre of the priors, kept for targets without labels; no scaling by default.
    """
    from scipy.optimize import minimize

    targets = [target for target in deployed.net.targets if target.kind != "value"]
    labelled = [
        part for target in targets if target.name in labels and (part := _labelled(target, labels[target.name]))
    ]
    sizes = [target.size for target in targets]
    before = start or Scaling({}, {})
    likely = [np.log([before.temperatures.get(target.name, 1.0) for target in targets])]
    likely += [np.array(before.biases.get(target.name, np.zeros(target.size))) for target in targets]
    first = np.concatenate(likely)
    spread = torch.full((len(first),), _BIAS_SPREAD, dtype=torch.float64)
    spread[: len(sizes)] = _TEMPERATURE_SPREAD
    with torch.inference_mode(mode=False), torch.enable_grad():
        inputs = {name: solution.detach().clone().double() for name, solution in logits.items()}
        centre = torch.from_numpy(first)

        def loss(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            free = torch.from_numpy(numbers).requires_grad_()
            logs, biases = free[: len(sizes)], torch.split(free[len(sizes) :], sizes)
            scaled = {
                target.name: inputs[target.name] * torch.exp(-logs[at]) + biases[at]
                for at, target in enumerate(targets)
            }
            answers = deployed.answers_of(inputs | scaled)
            total = ((free - centre) / spread).square().sum() / 2
            total = total + sum(_surprise(each, answers[each.target.name]) for each in labelled)
            total.backward()  # type: ignore[no-untyped-call]
            assert free.grad is not None
            return float(total.detach()), free.grad.numpy()

        bounds = [(np.log(_LEAST), np.log(_MOST))] * len(sizes) + [(None, None)] * sum(sizes)
        solution = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds).x if labelled else first
    temperatures = np.exp(solution[: len(sizes)])
    biases = np.split(solution[len(sizes) :], np.cumsum(sizes)[:-1]) if sizes else []
    return Scaling(
        {target.name: round(float(each), 4) for target, each in zip(targets, temperatures, strict=True)},
        {target.name: _rounded(each) for target, each in zip(targets, biases, strict=True)},
    )


def _labelled(target: Target, labels: NDArray[Any]) -> _Labelled | None:
    known = target.labelled(labels)
    if not known.any():
        return None
    labels = labels[known]
    soft: NDArray[np.float64]
    doubt, size = 1 / (len(labels) + 2), target.size
    if target.kind == "class":
        # The doubt is spread over the other classes.
        soft = np.full((len(labels), size), doubt / max(1, size - 1))
        soft[np.arange(len(labels)), labels] = 1 - doubt if size > 1 else 1.0
    else:
        soft = labels.astype(np.float64) * (1 - 2 * doubt) + doubt
    return _Labelled(target, torch.from_numpy(np.flatnonzero(known)), torch.from_numpy(soft))


def _surprise(labelled: _Labelled, answers: Tensor) -> Tensor:
    """The negative log-likelihood, summed over the labelled photos."""
    probabilities = answers.index_select(0, labelled.rows)
    likely = (labelled.soft * (probabilities + _TINY).log()).sum()
    if labelled.target.kind == "multilabel":
        likely = likely + ((1 - labelled.soft) * (1 - probabilities + _TINY).log()).sum()
    return -likely


def _rounded(numbers: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(number), 4) + 0.0 for number in numbers)
