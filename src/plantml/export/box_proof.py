"""Proof that two runtimes find the same boxes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import detection
from plantml.model.contract import Contract

MAX_SHIFT = 0.5
"""Largest difference of a side of a box, in pixels of the input, that counts as rounding."""

_MARGIN = 1e-4
"""A box whose score is as near to a threshold may fall on either side."""

_IN_PLACE = 0.5
"""IoU from which two boxes lie in the same place."""

_NOWHERE = 1e9
"""Pixels to a box whose place is not a number."""


def same_boxes(
    contract: Contract, expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]]
) -> tuple[float, float, float]:
    """Whether two runtimes find the same boxes in each photo, with the same labels.

    Boxes are compared from the score on from which they count. Their order may differ where scores are equal.

    Args:
        contract: of the model.
        expected: outputs of the model as it is.
        actual: outputs of its other form.

    Returns:
        The share of photos with the same boxes and labels; of those in which boxes that are accepted are the same, too;
        and the largest difference of scores and probabilities, infinite where a number is none.
    """
    assert contract.detection is not None
    threshold, accept = contract.detection.threshold, contract.detection.accept
    photos = len(expected["score"])
    labels, decisions, largest = np.zeros(photos, bool), np.zeros(photos, bool), 0.0
    for photo in range(photos):
        ours, theirs = _of_photo(expected, photo), _of_photo(actual, photo)
        counted = np.flatnonzero(ours["score"] >= threshold)
        partner = _partners(ours, counted, theirs)
        extra = np.setdiff1d(np.flatnonzero(theirs["score"] >= threshold + _MARGIN), partner)
        gaps = [np.abs(ours[name][counted] - theirs[name][partner]) for name in ours if name != "boxes"]
        gaps += [_gaps_in_place(ours, counted, theirs), _gaps_in_place(theirs, extra, ours)]
        difference = max((float(gap.max(initial=0)) for gap in gaps), default=0.0)
        shift = float(np.abs(ours["boxes"][counted] - theirs["boxes"][partner]).max(initial=0))
        largest = max(largest, difference if np.isfinite(difference) else np.inf)
        same = not len(extra) and shift <= MAX_SHIFT
        same &= bool(_same_labels(contract, ours, counted, theirs, partner).all())
        labels[photo] = same
        first, second = ours["score"][counted], theirs["score"][partner]
        near = np.abs(first - accept) <= _MARGIN
        decisions[photo] = same and bool((((first >= accept) == (second >= accept)) | near).all())
    return float(labels.mean()), float(decisions.mean()), largest


def alike_boxes(
    contract: Contract,
    expected: Mapping[str, NDArray[Any]],
    served: Contract,
    actual: Mapping[str, NDArray[Any]],
) -> tuple[float, float, float]:
    """How many boxes two forms of a model share, each from its own threshold on.

    Args:
        contract: of the model.
        expected: outputs of the model as it is.
        served: contract of the other form.
        actual: its outputs.

    Returns:
        The share of the boxes of both that lie on one of the other form (an IoU of at least 0.5) and have the same
        labels; of those that are accepted by both or neither, too; and the largest difference of their scores and
        probabilities, infinite where a number is none.
    """
    assert contract.detection is not None
    assert served.detection is not None
    boxes, labels, decisions, largest = 0, 0, 0, 0.0
    for photo in range(len(expected["score"])):
        ours, theirs = _of_photo(expected, photo), _of_photo(actual, photo)
        counted = np.flatnonzero(ours["score"] >= contract.detection.threshold)
        others = np.flatnonzero(theirs["score"] >= served.detection.threshold)
        overlaps = detection.iou(ours["boxes"][counted], theirs["boxes"][others])
        match = detection.match(overlaps, ours["score"][counted])
        pairs, partner = counted[match >= 0], others[match[match >= 0]]
        same = _same_labels(contract, ours, pairs, theirs, partner)
        accepted = ours["score"][pairs] >= contract.detection.accept
        boxes += len(counted) + len(others)
        labels += 2 * int(same.sum())
        decisions += 2 * int((same & (accepted == (theirs["score"][partner] >= served.detection.accept))).sum())
        gaps = [np.abs(ours[name][pairs] - theirs[name][partner]).max(initial=0) for name in ours if name != "boxes"]
        largest = max(largest, *gaps)
    if not all(np.isfinite(values).all() for values in actual.values()):
        largest = np.inf
    return (labels / boxes, decisions / boxes, float(largest)) if boxes else (1.0, 1.0, float(largest))


def _same_labels(
    contract: Contract,
    ours: Mapping[str, NDArray[np.float64]],
    places: NDArray[np.integer[Any]],
    theirs: Mapping[str, NDArray[np.float64]],
    partner: NDArray[np.integer[Any]],
) -> NDArray[np.bool_]:
    """Whether the boxes at places [n] have the labels of their partners."""
    same = np.ones(len(places), bool)
    for target in contract.heads:
        first, second = ours[f"target.{target.name}"][places], theirs[f"target.{target.name}"][partner]
        if target.kind == "class":
            same &= first.argmax(axis=1) == second.argmax(axis=1)
        elif target.kind == "multilabel":
            same &= ((first >= 0.5) == (second >= 0.5)).all(axis=1)
    return same


def _of_photo(outputs: Mapping[str, NDArray[Any]], photo: int) -> dict[str, NDArray[np.float64]]:
    return {name: values[photo].astype(np.float64) for name, values in outputs.items()}


def _partners(
    ours: Mapping[str, NDArray[np.float64]], counted: NDArray[np.int64], theirs: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.int64]:
    """The other box for each of n boxes: [n], each taken once, the nearest ones in place and score."""
    from scipy.optimize import linear_sum_assignment

    shifts = np.abs(ours["boxes"][counted][:, None] - theirs["boxes"][None]).max(axis=2)
    gaps = np.abs(ours["score"][counted][:, None] - theirs["score"][None])
    _, partner = linear_sum_assignment(np.nan_to_num(shifts + gaps, nan=_NOWHERE, posinf=_NOWHERE))
    return np.asarray(partner, np.int64)


def _gaps_in_place(
    ours: Mapping[str, NDArray[np.float64]], counted: NDArray[np.int64], theirs: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """How far the scores of n boxes are from that of another box in their place, or from 0 without one: [n]."""
    scores = ours["score"][counted]
    in_place = detection.iou(ours["boxes"][counted], theirs["boxes"]) >= _IN_PLACE
    gaps = np.where(in_place, np.abs(scores[:, None] - theirs["score"][None]), scores[:, None])
    return np.asarray(gaps.min(axis=1, initial=np.inf) if len(counted) else scores)
