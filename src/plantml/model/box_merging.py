"""Merge the boxes that were found in several views of one photo, such as overlapping tiles and the whole photo."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME_IOU = 0.5
"""Boxes of two views are one object from this intersection over union on, in the area that both views show."""

INSIDE = 0.8
"""… or if at least this share of the smaller one lies in the larger one, and they are of similar size."""

SIMILAR = 0.25
"""Smallest ratio of the areas of boxes of similar size. A small fruit in front of a large one is another object."""

_BLOCK = 512
"""Boxes that are compared with all others at a time, which bounds the memory."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """Boxes in a part of a photo.

    Attributes:
        area: left, top, right, bottom of the part, pixels of the photo.
        edge: a box that ends within these distances from an inner edge of the part may go on behind it: across, down.
        boxes: of a record, in pixels of the photo.
    """

    area: tuple[float, float, float, float]
    edge: tuple[float, float]
    boxes: Sequence[Mapping[str, Any]]


def merge(views: Sequence[View], width: int, height: int, threshold: float = 0.0) -> list[Mapping[str, Any]]:
    """Each object once, best score first.

    Two views are compared in the area that both show: there, an object has the same box in both, even if an edge cuts
    it. Boxes of one view are never merged, as the model finds an object once. Of several boxes of an object the one
    with the best score stays, but a box that an edge may have cut gives way to any whole one. If no view shows the
    whole, the pieces are joined. Boxes below the threshold change nothing of the others.

    Args:
        views: of the photo; of equal boxes, that of the first view stays.
        width: of the photo, pixels.
        height: likewise.
        threshold: score from which a box counts.
    """
    candidates = _Candidates(views, width, height)
    same = candidates.same()
    merged: list[Mapping[str, Any]] = []
    stronger: set[int] = set()
    whole_first = np.lexsort((-candidates.scores, candidates.cut))
    counts = candidates.scores[whole_first] >= threshold
    for part in (whole_first[counts], whole_first[~counts]):
        kept: set[int] = set()
        pieces: set[int] = set()
        for one in part.tolist():
            if kept.isdisjoint(same[one]) and stronger.isdisjoint(same[one]):
                (pieces if candidates.cut[one] else kept).add(one)
        merged += [candidates.boxes[one] for one in sorted(kept)]
        merged += [candidates.joined(group) for group in _groups(pieces, same)]
        stronger = kept | pieces
    return sorted(merged, key=lambda box: -box["score"])


def _groups(pieces: set[int], same: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Pieces of one object each."""
    taken: set[int] = set()
    for first in sorted(pieces):
        waiting = [] if first in taken else [first]
        group = []
        while waiting:
            if (one := waiting.pop()) not in taken:
                taken.add(one)
                group.append(one)
                waiting += [other for other in same[one] if other in pieces]
        if group:
            yield group


class _Candidates:
    """All boxes of all views as arrays.

    Attributes:
        boxes: of the records.
        scores: [n].
        view: number of the box's view, [n].
        cut: an edge of the view may have cut the box, [n].
    """

    def __init__(self, views: Sequence[View], width: int, height: int) -> None:
        self.boxes = [box for view in views for box in view.boxes]
        self.scores = np.array([box["score"] for box in self.boxes])
        counts = [len(view.boxes) for view in views]
        self.view = np.repeat(np.arange(len(views)), counts)
        self._area = np.array([view.area for view in views], float).reshape(-1, 4)[self.view]
        edge = np.array([view.edge for view in views], float).reshape(-1, 2)[self.view]
        sides = np.array([[box[side] for side in "xywh"] for box in self.boxes], float).reshape(-1, 4)
        self._corners = np.hstack([sides[:, :2], sides[:, :2] + sides[:, 2:]])
        low = (self._corners[:, :2] <= self._area[:, :2] + edge) & (self._area[:, :2] > 0)
        high = (self._corners[:, 2:] >= self._area[:, 2:] - edge) & (self._area[:, 2:] < [width, height])
        self.cut = (low | high).any(axis=1)

    def same(self) -> list[list[int]]:
        """By box, those that other views show of the same object."""
        same: list[list[int]] = [[] for _ in self.boxes]
        for start in range(0, len(self.boxes), _BLOCK):
            one, rest = self._meeting(start)
            shared = _intersection(self._area[one], self._area[rest])
            mine, theirs = _intersection(self._corners[one], shared), _intersection(self._corners[rest], shared)
            both = _size(_intersection(mine, theirs))
            small, large = np.sort([_size(mine), _size(theirs)], axis=0)
            is_part = self.cut[one] & (_size(mine) == small)
            is_inside = (both >= INSIDE * small) & ((small >= SIMILAR * large) | is_part)
            is_same = ((both >= SAME_IOU * (small + large - both)) | is_inside) & (both > 0)
            for box, other in zip(one[is_same].tolist(), rest[is_same].tolist(), strict=True):
                same[box].append(other)
        return same

    def _meeting(self, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of boxes of two views that have a place in common; the first of each pair is of a block."""
        left, top, right, bottom = self._corners.T
        block = slice(start, start + _BLOCK)
        meets = (left[block, None] < right) & (left < right[block, None])
        meets &= (top[block, None] < bottom) & (top < bottom[block, None])
        meets &= self.view[block, None] != self.view
        one, rest = meets.nonzero()
        return one + start, rest

    def joined(self, group: Sequence[int]) -> Mapping[str, Any]:
        """The box around pieces of an object, with the best score and the answers of the largest piece."""
        largest = max(group, key=lambda one: float(_size(self._corners[one])))
        if len(group) == 1:
            return self.boxes[largest]
        corners = self._corners[group]
        low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
        place = dict(zip("xywh", np.hstack([low, high - low]).round(2).tolist(), strict=True))
        return {**self.boxes[largest], **place, "score": float(self.scores[group].max())}


def _intersection(one: Floats, other: Floats) -> Floats:
    """Of rectangles left, top, right, bottom, [4] or [n, 4]; right or bottom may be smaller if there is none."""
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    return np.concatenate([low, high], axis=-1)


def _size(corners: Floats) -> Floats:
    """Areas of rectangles, 0 for empty ones."""
    sides = np.maximum(corners[..., 2:] - corners[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])
