"""One loss for all targets, in which a missing label counts for nothing."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from plantml.targets import Target


def total_loss(
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    targets: Sequence[Target],
    smoothing: float,
    scales: Mapping[str, Tensor],
) -> Tensor:
    """The sum over targets of the mean loss over labelled photos: a scalar.

    Args:
        logits: [N, classes] or [N, 1] by target.
        labels: encoded as `Target.encode` does.
        targets: what is predicted.
        smoothing: label smoothing of class targets (Szegedy et al. 2016).
        scales: deviation of the training labels by value target, which makes losses of any unit alike.
    """
    one = torch.ones(())
    losses = [
        _loss(target, logits[target.name], labels[target.name], smoothing, scales.get(target.name, one))
        for target in targets
    ]
    return torch.stack(losses).sum()


def _loss(target: Target, logits: Tensor, labels: Tensor, smoothing: float, scale: Tensor) -> Tensor:
    if target.kind == "class":
        summed = functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
        return summed / (labels >= 0).sum().clamp_min(1)
    if target.kind == "value":
        labels, logits = labels.unsqueeze(1) / scale, logits / scale
    known = ~torch.isnan(labels)
    filled = torch.nan_to_num(labels)
    if target.kind == "multilabel":
        each = functional.binary_cross_entropy_with_logits(logits, filled, reduction="none")
    else:
        each = functional.smooth_l1_loss(logits, filled, reduction="none")
    return (each * known).sum() / known.sum().clamp_min(1)
