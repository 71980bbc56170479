"""One loss for all targets; missing labels are ignored."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from plantml.targets import Target

_NONE: Mapping[str, Sequence[float]] = {}


def total_loss(
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    targets: Sequence[Target],
    *,
    smoothing: float = 0.0,
    scales: Mapping[str, Tensor],
    weights: Mapping[str, Sequence[float]] = _NONE,
    shifts: Mapping[str, Sequence[float]] = _NONE,
    counted: Tensor | None = None,
) -> Tensor:
    """The sum over targets of the mean loss over labelled photos: a scalar.

    Args:
        logits: [N, classes] or [N, 1] by target.
        labels: encoded as `Target.encode` does.
        targets: what is predicted.
        smoothing: label smoothing of class targets (Szegedy et al. 2016).
        scales: standard deviation of the training labels by value target, which makes losses independent of units.
        weights: class weights by class target; 1 by default.
        shifts: added to the logits, by class target: logarithms of class shares (Menon et al. 2021).
        counted: divisor of each target's sum, [targets], if these photos are only part of a batch.
    """
    counted = counts(labels, targets, weights) if counted is None else counted
    sums = []
    for target in targets:
        outputs, truth = logits[target.name], labels[target.name]
        if target.kind == "class":
            if target.name in shifts:
                outputs = outputs + torch.tensor(shifts[target.name], dtype=outputs.dtype, device=outputs.device)
            sums.append(_class_sum(outputs, truth, smoothing, weights.get(target.name)))
        else:
            one = torch.ones((), device=outputs.device)
            sums.append(_other_sum(target, outputs, truth, scales.get(target.name, one)))
    return (torch.stack(sums) / counted.clamp_min(1e-6)).sum()


def counts(
    labels: Mapping[str, Tensor], targets: Sequence[Target], weights: Mapping[str, Sequence[float]] = _NONE
) -> Tensor:
    """The number of labels per target, or the sum of their class weights: float32 [targets]."""
    totals = []
    for target in targets:
        known = labels[target.name]
        if target.kind == "class":
            totals.append(_label_weights(known, weights.get(target.name)).sum())
        else:
            totals.append((~torch.isnan(known)).sum().float())
    return torch.stack(totals)


def _class_sum(logits: Tensor, labels: Tensor, smoothing: float, weights: Sequence[float] | None) -> Tensor:
    each = functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none", label_smoothing=smoothing)
    return (each * _label_weights(labels, weights)).sum()


def _other_sum(target: Target, logits: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    if target.kind == "value":
        labels, logits = labels.unsqueeze(1) / scale, logits / scale
    known, filled = ~torch.isnan(labels), torch.nan_to_num(labels)
    if target.kind == "multilabel":
        each = functional.binary_cross_entropy_with_logits(logits, filled, reduction="none")
    else:
        each = functional.smooth_l1_loss(logits, filled, reduction="none")
    return (each * known).sum()


def _label_weights(labels: Tensor, weights: Sequence[float] | None) -> Tensor:
    """The weight of each label, 0 where it is missing: float32 [N]."""
    known = (labels >= 0).float()
    if weights is None:
        return known
    return torch.tensor(weights, dtype=torch.float32, device=labels.device)[labels.clamp_min(0)] * known
