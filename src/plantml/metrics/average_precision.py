"""Average precision of many precision-recall curves at once, of all photos or of resamples of them.

COCO's definition (Lin et al. 2014, "Microsoft COCO"): the mean over 101 recalls of the highest precision at that recall
or a higher one. A resample counts each photo more or less often, so that its precision at a box is a ratio of two
running sums over the boxes before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from plantml.metrics.statistics import Bools, Floats, Ints

RECALLS: Floats = np.linspace(0, 1, 101)
"""Recalls that average precision is a mean over."""

_NEXT_RECALL = np.append(RECALLS, [np.inf, np.inf])

_BLOCK = 16
"""Boxes per block of a running sum. Numpy adds rows several times as fast as neighbours."""

_CHUNK = 1 << 19
"""Boxes of all curves, counted per resample, that are worked on at a time: they should stay in the cache."""


class Curve(NamedTuple):
    """The predicted boxes of a precision-recall curve, by falling score.

    Attributes:
        truth: column of the number of true boxes.
        photo: of each box, int [B]. Curves in a row that share the array are faster.
        right: bool [B].
    """

    truth: int
    photo: Ints
    right: Bools


class Curves:
    """Precision-recall curves of the same photos.

    Their boxes are one array of blocks [_BLOCK, blocks], where the boxes of a block stand in a column, and each curve
    begins with a block of its own. So a resample takes few operations, however many curves there are.

    Args:
        true: number of true boxes by photo and column, int [photos, columns].
        curves: of predicted boxes.
    """

    def __init__(self, true: Ints, curves: Sequence[Curve]) -> None:
        self._true, nobody = true, len(true)
        self._truth = np.array([curve.truth for curve in curves], np.int64)
        boxes, hits, places = _Blocks(), _Blocks(), _Blocks()
        starts: list[int] = []
        for number, curve in enumerate(curves):
            is_shared = number > 0 and curve.photo is curves[number - 1].photo
            starts.append(starts[-1] if is_shared else boxes.add(curve.photo, nobody))
            at = np.flatnonzero(curve.right)
            hits.add(curve.photo[at], nobody)
            places.add(starts[-1] * _BLOCK + at, starts[-1] * _BLOCK + int(at.max(initial=0)))
        self._boxes, self._hits = boxes.joined(), hits.joined()
        # From places one after another to places in the blocks.
        in_order = places.joined()
        self._places = in_order % _BLOCK * self._boxes.shape[1] + in_order // _BLOCK
        sizes = np.diff([*hits.starts, self._hits.shape[1]])
        # By block of true positives: its curve, and the blocks that its curve's boxes and true positives begin with.
        self._curve = np.repeat(np.arange(len(curves)), sizes)
        self._first_box = np.repeat(np.array(starts, np.int64), sizes)
        self._first_hit = np.repeat(np.array(hits.starts, np.int64), sizes)

    def average_precision(self, weights: Ints) -> Floats:
        """Of photos counted `weights` times, int [R, photos]: float64 [R, curves], NaN without true boxes."""
        total = (weights @ self._true)[:, self._truth]
        padded = np.pad(weights, ((0, 0), (0, 1))).astype(np.int32)  # what fills blocks up never counts
        average = np.zeros(total.shape)
        step = max(1, _CHUNK // max(1, self._boxes.size + self._hits.size))
        for start in range(0, len(weights), step):
            part = slice(start, start + step)
            average[part] = self._average_precision(padded[part], np.maximum(total[part], 1))
        return np.where(total > 0, average, np.nan)

    def _average_precision(self, weights: Ints, total: Ints) -> Floats:
        rows, curves = total.shape
        sums, hits = _running_sums(weights, self._boxes), _running_sums(weights, self._hits)
        boxes = np.take(sums.reshape(rows, -1), self._places, axis=1) - _before(sums, self._first_box)
        hits = hits - _before(hits, self._first_hit)
        # The envelope needs no other places, as precision is highest at true positives.
        precision = hits / np.maximum(boxes, 1)
        # Blocks in which a recall is reached; in others only the highest precision matters.
        reached = _recalls_reached(hits[:, -1], total[:, self._curve])
        earlier = np.zeros_like(reached)
        earlier[:, 1:] = np.where(self._curve[1:] == self._curve[:-1], reached[:, :-1], 0)
        row, block = np.nonzero(reached > earlier)
        highest = np.maximum.accumulate(precision[row, ::-1, block], axis=1)[:, ::-1]
        envelope = np.maximum(highest, self._highest_after(precision)[row, block][:, None])
        curve = self._curve[block]
        reached = _recalls_reached(hits[row, :, block], total[row, curve][:, None])
        gained = np.diff(reached, axis=1, prepend=earlier[row, block][:, None])
        sums = np.bincount(row * curves + curve, (gained * envelope).sum(axis=1), minlength=rows * curves)
        average: Floats = sums.reshape(rows, curves) / len(RECALLS)
        return average

    def _highest_after(self, precision: Floats) -> Floats:
        """The highest precision in the later blocks of a block's curve, 0 if it is the last: [R, blocks]."""
        # Curves are lifted above all later ones, so that these do not show through.
        lift = 2.0 * (self._curve.max(initial=0) - self._curve)
        lifted = precision.max(axis=1) + lift
        after = np.zeros_like(lifted)
        after[:, :-1] = np.maximum.accumulate(lifted[:, :0:-1], axis=1)[:, ::-1]
        highest: Floats = np.maximum(after - lift, 0)
        return highest


class _Blocks:
    """Arrays that are joined to blocks.

    Attributes:
        starts: the block that each array begins with.
    """

    def __init__(self) -> None:
        self._parts: list[Ints] = [np.empty(0, np.int64)]
        self._size = 0
        self.starts: list[int] = []

    def add(self, values: Ints, fill: int) -> int:
        """Append an array, filled up to whole blocks; returns the block that it begins with."""
        blocks = -(-len(values) // _BLOCK)
        self._parts += [values, np.full(blocks * _BLOCK - len(values), fill)]
        self.starts.append(self._size)
        self._size += blocks
        return self.starts[-1]

    def joined(self) -> Ints:
        """All blocks: int64 [_BLOCK, blocks]."""
        return np.ascontiguousarray(np.concatenate(self._parts).reshape(-1, _BLOCK).T)


def _running_sums(weights: Ints, places: Ints) -> Ints:
    """The running sums of weights [R, n] at places in blocks, block by block: [R, _BLOCK, blocks]."""
    sums = np.take(weights, places, axis=1)
    for at in range(1, _BLOCK):
        sums[:, at] += sums[:, at - 1]
    sums[:, :, 1:] += np.cumsum(sums[:, -1, :-1], axis=1, dtype=sums.dtype)[:, None]
    return sums


def _before(sums: Ints, blocks: Ints) -> Ints:
    """The running sums before the start of blocks [n]: [R, 1, n]."""
    ends = np.pad(sums[:, -1], ((0, 0), (1, 0)))
    return np.take(ends, blocks, axis=1)[:, None]


def _recalls_reached(hits: Ints, total: Ints) -> Ints:
    """How many of the recalls are at most that of so many true positives."""
    recall = hits / total
    about = (recall * (len(RECALLS) - 1)).astype(np.int64)
    reached: Ints = about + (recall >= _NEXT_RECALL[about]) + (recall >= _NEXT_RECALL[about + 1])
    return reached
