"""One loss for all targets, in which a missing label counts for nothing."""

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
        scales: deviation of the training labels by value target, which makes losses of any unit alike.
        weights: of the classes, by class target; all count alike where it says nothing.
        shifts: added to the logits, by class target: logarithms of the classes' shares (Menon et al. 2021).
        counted: what each target's sum is divided by, [targets], if these photos are only a part of a batch.
    """
    counted = counts(labels, targets, weights) if counted is None else counted
    sums = []
    for target in targets:
        found, truth = logits[target.name], labels[target.name]
        if target.kind == "class":
            if target.name in shifts:
                found = found + torch.tensor(shifts[target.name], dtype=found.dtype, device=found.device)
            sums.append(_class_sum(found, truth, smoothing, weights.get(target.name)))
        else:
            one = torch.ones((), device=found.device)
            sums.append(_other_sum(target, found, truth, scales.get(target.name, one)))
    return (torch.stack(sums) / counted.clamp_min(1e-6)).sum()


def counts(
    labels: Mapping[str, Tensor], targets: Sequence[Target], weights: Mapping[str, Sequence[float]] = _NONE
) -> Tensor:
    """What there is to learn from, by target: the number of labels, or the sum of their weights. float32 [targets]."""
    found = []
    for target in targets:
        known = labels[target.name]
        if target.kind == "class":
            found.append(_weight_of(known, weights.get(target.name)).sum())
        else:
            found.append((~torch.isnan(known)).sum().float())
    return torch.stack(found)


def _class_sum(logits: Tensor, labels: Tensor, smoothing: float, weights: Sequence[float] | None) -> Tensor:
    each = functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none", label_smoothing=smoothing)
    return (each * _weight_of(labels, weights)).sum()


def _other_sum(target: Target, logits: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    if target.kind == "value":
        labels, logits = labels.unsqueeze(1) / scale, logits / scale
    known, filled = ~torch.isnan(labels), torch.nan_to_num(labels)
    if target.kind == "multilabel":
        each = functional.binary_cross_entropy_with_logits(logits, filled, reduction="none")
    else:
        each = functional.smooth_l1_loss(logits, filled, reduction="none")
    return (each * known).sum()


def _weight_of(labels: Tensor, weights: Sequence[float] | None) -> Tensor:
    """The weight of each label, 0 where it is missing: float32 [N]."""
    known = (labels >= 0).float()
    if weights is None:
        return known
    return torch.tensor(weights, dtype=torch.float32, device=labels.device)[labels.clamp_min(0)] * known
