"""Proof that two runtimes find the same boxes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.model.contract import Contract

MAX_SHIFT = 0.5
"""Largest difference of a side of a box, in pixels of the input, that counts as rounding."""

_MARGIN = 1e-4
"""A box whose score is as near to a threshold may fall on either side."""


def same_boxes(
    contract: Contract, expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], float]:
    """Whether two runtimes find the same boxes in each photo, with the same labels.

    Boxes are compared from the score on from which they count. Their order may differ where scores are equal.

    Args:
        contract: of the model.
        expected: outputs of the model as it is.
        actual: outputs of its other form.

    Returns:
        Of each photo, whether boxes and labels are the same, bool [N]; whether boxes that are accepted are, too; and
        the largest difference of scores and probabilities, infinite where a number is none.
    """
    assert contract.detection is not None
    threshold, accept = contract.detection.threshold, contract.detection.accept
    photos = len(expected["score"])
    labels, decisions, largest = np.zeros(photos, bool), np.zeros(photos, bool), 0.0
    for photo in range(photos):
        ours, theirs = _of_photo(expected, photo), _of_photo(actual, photo)
        counted = np.flatnonzero(ours["score"] >= threshold)
        partner = _partners(ours["boxes"][counted], theirs["boxes"])
        extra = np.setdiff1d(np.flatnonzero(theirs["score"] >= threshold + _MARGIN), partner)
        gaps = [np.abs(ours[name][counted] - theirs[name][partner]) for name in ours if name != "boxes"]
        difference = max((float(gap.max(initial=0)) for gap in gaps), default=0.0)
        shift = float(np.abs(ours["boxes"][counted] - theirs["boxes"][partner]).max(initial=0))
        largest = max(largest, difference if np.isfinite(difference) else np.inf)
        same = len(set(partner.tolist())) == len(counted) and not len(extra) and shift <= MAX_SHIFT
        for target in contract.targets:
            name = f"target.{target.name}"
            if target.kind == "class":
                same &= bool((ours[name][counted].argmax(axis=1) == theirs[name][partner].argmax(axis=1)).all())
            elif target.kind == "multilabel":
                same &= bool(((ours[name][counted] >= 0.5) == (theirs[name][partner] >= 0.5)).all())
        labels[photo] = same
        first, second = ours["score"][counted], theirs["score"][partner]
        near = np.abs(first - accept) <= _MARGIN
        decisions[photo] = same and bool((((first >= accept) == (second >= accept)) | near).all())
    return labels, decisions, largest


def _of_photo(outputs: Mapping[str, NDArray[Any]], photo: int) -> dict[str, NDArray[np.float64]]:
    return {name: values[photo].astype(np.float64) for name, values in outputs.items()}


def _partners(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.int64]:
    """The index of the nearest of the other boxes [m, 4], of each box [n, 4]: [n]."""
    return np.asarray(np.abs(boxes[:, None] - others[None]).max(axis=2).argmin(axis=1), np.int64)
