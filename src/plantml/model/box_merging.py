"""Merge the boxes that were found in several views of one photo, such as overlapping tiles and the whole photo."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME_IOU = 0.5
"""Boxes of two views are one object from this intersection over union on, in the area that both views show."""

INSIDE = 0.8
"""… or if at least this share of the smaller one lies in the larger one, and they are of similar size."""

SIMILAR = 0.25
"""Smallest ratio of the areas of boxes of similar size. A small fruit in front of a large one is another object."""

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
    merged: list[Mapping[str, Any]] = []
    stronger: list[_Pool] = []
    whole_first = np.lexsort((-candidates.scores, candidates.cut))
    counts = candidates.scores[whole_first] >= threshold
    for part in (whole_first[counts], whole_first[~counts]):
        kept, pieces = candidates.pool(), candidates.pool()
        for one in part.tolist():
            if not any(candidates.matches(one, pool) for pool in (kept, *stronger)):
                (pieces if candidates.cut[one] else kept).add(one)
        merged += [candidates.boxes[one] for one in kept]
        merged += [candidates.joined(group) for group in candidates.groups(pieces)]
        stronger = [kept, pieces]
    return sorted(merged, key=lambda box: -box["score"])


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
        self._areas = np.array([view.area for view in views], float).reshape(-1, 4)
        self._area = self._areas[self.view]
        edge = np.array([view.edge for view in views], float).reshape(-1, 2)[self.view]
        sides = np.array([[box[side] for side in "xywh"] for box in self.boxes], float).reshape(-1, 4)
        self._corners = np.hstack([sides[:, :2], sides[:, :2] + sides[:, 2:]])
        low = (self._corners[:, :2] <= self._area[:, :2] + edge) & (self._area[:, :2] > 0)
        high = (self._corners[:, 2:] >= self._area[:, 2:] - edge) & (self._area[:, 2:] < [width, height])
        self.cut = (low | high).any(axis=1)

    def matches(self, one: int, pool: "_Pool") -> list[int]:
        """The boxes of a pool that other views show of the same object as one."""
        overlaps = _size(_intersection(self._corners[one], self._areas)) > 0
        overlaps[self.view[one]] = False
        rest = np.array([each for view in overlaps.nonzero()[0] for each in pool.of_view[view]], int)
        shared = _intersection(self._area[one], self._area[rest])
        mine, theirs = _intersection(self._corners[one], shared), _intersection(self._corners[rest], shared)
        both = _size(_intersection(mine, theirs))
        small, large = np.sort([_size(mine), _size(theirs)], axis=0)
        is_inside = (both >= INSIDE * small) & ((small >= SIMILAR * large) | (self.cut[one] & (_size(mine) == small)))
        is_same = (both >= SAME_IOU * (small + large - both)) | is_inside
        matches: list[int] = rest[is_same & (both > 0)].tolist()
        return matches

    def pool(self) -> "_Pool":
        """An empty pool."""
        return _Pool(self.view, len(self._areas))

    def groups(self, pieces: "_Pool") -> Iterator[list[int]]:
        """Pieces of one object each."""
        taken: set[int] = set()
        for first in pieces:
            waiting = [] if first in taken else [first]
            group = []
            while waiting:
                if (one := waiting.pop()) not in taken:
                    taken.add(one)
                    group.append(one)
                    waiting += self.matches(one, pieces)
            if group:
                yield group

    def joined(self, group: Sequence[int]) -> Mapping[str, Any]:
        """The box around pieces of an object, with the best score and the answers of the largest piece."""
        largest = max(group, key=lambda one: float(_size(self._corners[one])))
        if len(group) == 1:
            return self.boxes[largest]
        corners = self._corners[group]
        low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
        place = dict(zip("xywh", np.hstack([low, high - low]).round(2).tolist(), strict=True))
        return {**self.boxes[largest], **place, "score": float(self.scores[group].max())}


class _Pool:
    """Boxes by view: a box is only compared with those of views that show its place."""

    def __init__(self, view: NDArray[np.int64], views: int) -> None:
        self.of_view: list[list[int]] = [[] for _ in range(views)]
        self._view = view

    def add(self, one: int) -> None:
        self.of_view[self._view[one]].append(one)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.of_view)


def _intersection(one: Floats, other: Floats) -> Floats:
    """Of rectangles left, top, right, bottom, [4] or [n, 4]; right or bottom may be smaller if there is none."""
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    return np.concatenate([low, high], axis=-1)


def _size(corners: Floats) -> Floats:
    """Areas of rectangles, 0 for empty ones."""
    sides = np.maximum(corners[..., 2:] - corners[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])
