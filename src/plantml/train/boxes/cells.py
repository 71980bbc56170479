"""What a detector should answer in each cell of its map, from the boxes of a photo.

The centre score is a Gaussian around the middle of each box, and the cells near the middle learn its sides, weighted by
that Gaussian: "Training-Time-Friendly Network for Real-Time Object Detection" (Liu et al. 2020), section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from plantml.model.detector import STRIDE
from plantml.targets import Target
from plantml.train.losses import total_loss

Floats = NDArray[np.float32]

_SPREAD = 0.54
"""Share of a box that its Gaussian covers, as in the paper."""

_NEAR = 0.5
"""Value of the Gaussian from which a cell learns the targets of its box."""

_NONE: Mapping[str, Any] = {}

_DOUBT = 0.999
"""Value of a cell that may or may not show an object: the penalty for a centre there all but vanishes."""

_SIDES_SHARE = 5.0
"""Weight of the loss of the sides, as in the paper."""


@dataclass(frozen=True)
class Cells:
    """Answers for one photo; h and w are a quarter of the input's size.

    Attributes:
        centre: the Gaussians, 1 in the middle cell of each box, float32 [h, w].
        box: index of the box that a cell learns, -1 for none, int64 [h, w].
        weight: of the cell in the loss of its box's sides, float32 [h, w].
    """

    centre: Floats
    box: NDArray[np.int64]
    weight: Floats


def cells_of(boxes: Floats, height: int, width: int, doubtful: NDArray[np.bool_] | None = None) -> Cells:
    """The answers for the boxes of a photo.

    Args:
        boxes: [M, 4], x, y, w, h in pixels of the input.
        height: of the input.
        width: likewise.
        doubtful: boxes that may be none, bool [M]: what they cover counts neither as an object nor as background.
    """
    rows, columns = height // STRIDE, width // STRIDE
    cells = Cells(
        np.zeros((rows, columns), np.float32),
        np.full((rows, columns), -1, np.int64),
        np.zeros((rows, columns), np.float32),
    )
    # Small ones last: where boxes overlap, the smaller one is the harder to learn.
    for number in np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable").tolist():
        if doubtful is None or not doubtful[number]:
            _draw(cells, number, boxes[number].tolist())
    for x, y, w, h in boxes[doubtful].tolist() if doubtful is not None else ():
        covered = slice(int(y / STRIDE), int((y + h) / STRIDE) + 1), slice(int(x / STRIDE), int((x + w) / STRIDE) + 1)
        cells.centre[covered][cells.box[covered] < 0] = _DOUBT
    return cells


def _draw(cells: Cells, number: int, box: Sequence[float]) -> None:
    x, y, w, h = box
    rows, columns = cells.centre.shape
    column = min(columns - 1, max(0, int((x + w / 2) / STRIDE)))
    row = min(rows - 1, max(0, int((y + h / 2) / STRIDE)))
    across, down = int(w / STRIDE / 2 * _SPREAD), int(h / STRIDE / 2 * _SPREAD)
    window = (
        slice(max(0, row - down), min(rows, row + down + 1)),
        slice(max(0, column - across), min(columns, column + across + 1)),
    )
    ys, xs = np.arange(window[0].start, window[0].stop) - row, np.arange(window[1].start, window[1].stop) - column
    deep, wide = (2 * down + 1) / 6, (2 * across + 1) / 6
    gaussian = np.exp(-(ys[:, None] ** 2) / (2 * deep**2) - xs[None, :] ** 2 / (2 * wide**2)).astype(np.float32)
    cells.centre[window] = np.maximum(cells.centre[window], gaussian)
    cells.box[window] = number
    # Large boxes have more cells; the logarithm keeps them from ruling the loss.
    cells.weight[window] = gaussian / gaussian.sum() * np.log(max(w * h, np.e))


@dataclass(frozen=True)
class Loss:
    """The parts of the loss of a batch: scalars."""

    centre: Tensor
    sides: Tensor
    targets: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, weighted."""
        return self.centre + _SIDES_SHARE * self.sides + self.targets


def loss_of(
    maps: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    targets: tuple[Target, ...],
    *,
    scales: Mapping[str, Tensor],
    weights: Mapping[str, Any] = _NONE,
    shifts: Mapping[str, Any] = _NONE,
    smoothing: float = 0.0,
) -> Loss:
    """The loss of the maps of `CentreNet.forward`.

    Args:
        maps: of a batch.
        batch: `centre`, `box`, `weight` of `Cells` [N, h, w], `boxes` [N, M, 4] and the encoded labels of the boxes
            [N, M, …] as `target.<name>`, padded to the same M.
        targets: of the network.
        scales: see `losses.total_loss`.
        weights: likewise.
        shifts: likewise.
        smoothing: likewise.
    """
    device = maps["centre"].device
    box, weight = batch["box"].to(device), batch["weight"].to(device)
    photo, row, column = (box >= 0).nonzero(as_tuple=True)
    number, share = box[photo, row, column], weight[photo, row, column]
    near = batch["centre"].to(device)[photo, row, column] >= _NEAR
    logits = {target.name: maps[f"target.{target.name}"][photo, :, row, column][near] for target in targets}
    labels = {target.name: batch[f"target.{target.name}"].to(device)[photo, number][near] for target in targets}
    of_targets = maps["centre"].sum() * 0.0
    if targets and near.any():
        of_targets = total_loss(
            logits, labels, targets, smoothing=smoothing, scales=scales, weights=weights, shifts=shifts
        )
    return Loss(
        focal(maps["centre"].squeeze(1), batch["centre"].to(device)),
        _sides_loss(maps["sides"][photo, :, row, column], batch["boxes"].to(device)[photo, number], row, column, share),
        of_targets,
    )


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """The penalty-reduced focal loss of the centre scores [N, h, w], per object (CenterNet, equation 1)."""
    score = logits.sigmoid()
    is_middle = truth == 1
    positive = functional.logsigmoid(logits) * (1 - score) ** 2 * is_middle
    negative = functional.logsigmoid(-logits) * score**2 * (1 - truth) ** 4
    return -(positive + negative).sum() / is_middle.sum().clamp_min(1)


def _sides_loss(sides: Tensor, boxes: Tensor, row: Tensor, column: Tensor, share: Tensor) -> Tensor:
    """One minus the generalised IoU (Rezatofighi et al. 2019), weighted, of `sides` [P, 4] at cells."""
    if not len(sides):
        return sides.sum()
    x, y = column * STRIDE + STRIDE / 2, row * STRIDE + STRIDE / 2
    ours = torch.stack([x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]], dim=1)
    theirs = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    low, high = torch.maximum(ours[:, :2], theirs[:, :2]), torch.minimum(ours[:, 2:], theirs[:, 2:])
    common = (high - low).clamp_min(0).prod(dim=1)
    area = (ours[:, 2:] - ours[:, :2]).prod(dim=1) + (theirs[:, 2:] - theirs[:, :2]).prod(dim=1) - common
    hull_low, hull_high = torch.minimum(ours[:, :2], theirs[:, :2]), torch.maximum(ours[:, 2:], theirs[:, 2:])
    hull = (hull_high - hull_low).prod(dim=1).clamp_min(1e-6)
    generalised = common / area.clamp_min(1e-6) - (hull - area) / hull
    return ((1 - generalised) * share).sum() / share.sum()
