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
    *,
    smoothing: float = 0.0,
    scales: Mapping[str, Tensor],
    weights: Mapping[str, Sequence[float]] | None = None,
) -> Tensor:
    """The sum over targets of the mean loss over labelled photos: a scalar.

    Args:
        logits: [N, classes] or [N, 1] by target.
        labels: encoded as `Target.encode` does.
        targets: what is predicted.
        smoothing: label smoothing of class targets (Szegedy et al. 2016).
        scales: deviation of the training labels by value target, which makes losses of any unit alike.
        weights: of the classes, by class target; all count alike where it says nothing.
    """
    one = torch.ones(())
    losses = []
    for target in targets:
        found, known = logits[target.name], labels[target.name]
        if target.kind == "class":
            losses.append(_class_loss(found, known, smoothing, (weights or {}).get(target.name)))
        else:
            losses.append(_loss(target, found, known, scales.get(target.name, one)))
    return torch.stack(losses).sum()


def _class_loss(logits: Tensor, labels: Tensor, smoothing: float, weights: Sequence[float] | None) -> Tensor:
    each = functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none", label_smoothing=smoothing)
    known = labels >= 0
    if weights is None:
        return each.sum() / known.sum().clamp_min(1)
    of_photo = torch.tensor(weights, dtype=each.dtype, device=each.device)[labels.clamp_min(0)] * known
    return (each * of_photo).sum() / of_photo.sum().clamp_min(1e-6)


def _loss(target: Target, logits: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    if target.kind == "value":
        labels, logits = labels.unsqueeze(1) / scale, logits / scale
    known = ~torch.isnan(labels)
    filled = torch.nan_to_num(labels)
    if target.kind == "multilabel":
        each = functional.binary_cross_entropy_with_logits(logits, filled, reduction="none")
    else:
        each = functional.smooth_l1_loss(logits, filled, reduction="none")
    return (each * known).sum() / known.sum().clamp_min(1)
