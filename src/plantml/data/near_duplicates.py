"""Near-duplicates: groups of photos whose 64-bit perceptual hashes are close, flipped and rotated copies included.

The search is exact and needs no pairs in memory. Two hashes within distance d agree on one of four bands of
16 bits up to d // 4 bits (pigeonhole; Norouzi et al. 2012, "Fast search in Hamming space with multi-index
hashing"), so only hashes of neighbouring buckets are compared. A bucket that is too full is searched by the
other bits in the same way, and hashes that are already in one group are not compared again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]

DISTANCE = 4
"""Bits, of 64, in which two copies may differ.

Of 1,400 real photos that were made smaller, lighter or darker and saved at low quality, 0.98 to 1.0 stay within it,
and all within 7. Of 897 photos of leaves on one table, 8 pairs of different photos come within it, 28 within 7;
none of them passes `correlated` at 0.97, as 0.999 of the copies do.
"""

VARIANTS = ("same", "flip", "flip-vertical", "turn-180", "transpose", "turn-90", "turn-270", "transverse")
"""The eight ways to lay a square on itself; turns are anticlockwise. Numbers in results are places in here."""

UPRIGHT = ("same",)

_INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7])
_ODD_COLUMNS, _ODD_ROWS = np.uint64(0x5555555555555555), np.uint64(0x00FF00FF00FF00FF)
_ACROSS: dict[str, tuple[bool, int]] = {
    "same": (False, 0),
    "flip": (False, 1),
    "flip-vertical": (False, 2),
    "turn-180": (False, 3),
    "transpose": (True, 0),
    "turn-90": (True, 2),
    "turn-270": (True, 1),
    "transverse": (True, 3),
}
"""A variant: whether rows and columns change places first, then what is flipped (1 columns, 2 rows)."""

_CHUNK = 1 << 17
"""Comparisons at a time: what they need stays in a core's cache."""

_LOT = 256
"""Items of one side that are compared at a time, where each is compared with each."""

_MANY, _FULL = 1 << 18, 1 << 23
"""Two buckets with more pairs than the one are checked for known groups first; with more than the other, they are
searched by their other bits."""

_MAX_PAIRS = 1 << 18
"""Pairs collected before they are joined."""

Confirm = Callable[[Indices, Indices, Indices], Bools]
"""From pairs (first, second, variant), int64 [P] each, to which of them are copies: bool [P]."""


@dataclass(frozen=True)
class Broken:
    """A group that was implausibly large and was broken up.

    Attributes:
        first: its smallest item.
        size: items it had.
        distance: to which it was lowered; 0 means that only equal hashes stay together.
        groups: resulting groups of two or more items.
        largest: items of the largest of them.
    """

    first: int
    size: int
    distance: int
    groups: int
    largest: int


@dataclass(frozen=True)
class Near:
    """Groups of near-duplicates.

    Attributes:
        group: int64 [N], the smallest item of each item's group: its own number if it is alone.
        first: int64 [E]; with `second` the edges of a spanning tree of each group.
        second: int64 [E], larger than `first`.
        distance: uint8 [E], bits in which the edge's hashes differ.
        variant: uint8 [E], place in `VARIANTS` of what turns `first` into `second`.
        broken: groups that were too large.
    """

    group: Indices
    first: Indices
    second: Indices
    distance: NDArray[np.uint8]
    variant: NDArray[np.uint8]
    broken: tuple[Broken, ...]


def near_duplicates(
    hashes: Hashes,
    *,
    distance: int = DISTANCE,
    variants: tuple[str, ...] = UPRIGHT,
    confirm: Confirm | None = None,
    limit: int | None = None,
) -> Near:
    """Group the items whose hashes lie within `distance` bits of each other, directly or through others.

    Photos with next to no content (plain black ones) should be left out: their hashes mean nothing.

    Args:
        hashes: uint64 [N], of `scan.phash`.
        distance: bits, 0 to 15.
        variants: of `VARIANTS`, how copies may be transformed; the inverse of each counts too.
        confirm: second check of close pairs; see `correlated`.
        limit: items of a group above which it is broken up, by lowering the distance inside it until
            its parts are small enough or their hashes equal; `None` takes 1 % of N, at least 10.

    Raises:
        ValueError: an invalid distance or variant.
    """
    if not 0 <= distance <= 15:
        raise ValueError(f"distance is {distance}; it can be 0 to 15")
    search = _Search(np.asarray(hashes, np.uint64), _numbers(variants), confirm)
    limit = max(10, len(hashes) // 100) if limit is None else limit
    tree = search.tree(np.arange(len(hashes)), distance)
    trees, broken = [], []
    for too_large in tree.larger_than(limit):
        parts, lowered = search.parts(too_large, distance - 1, limit)
        trees.append(parts)
        sizes = parts.sizes()
        broken.append(Broken(int(too_large[0]), len(too_large), lowered, len(sizes), max(sizes, default=1)))
        tree = tree.without(too_large)
    return _result(len(hashes), [tree, *trees], tuple(broken))


def variant(hashes: Hashes, name: str) -> Hashes:
    """Hashes of the same photos, transformed: uint64 [N] in and out; `name` of `VARIANTS`.

    Flipping a photo changes the sign of every other DCT coefficient, transposing it transposes them.
    """
    transposed, flips = _ACROSS[name]
    transformed = _transposed(hashes) if transposed else hashes
    mask = (_ODD_COLUMNS if flips & 1 else np.uint64(0)) ^ (_ODD_ROWS if flips & 2 else np.uint64(0))
    return transformed ^ mask


def transform(pictures: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Square images [P, S, S], transformed; `name` of `VARIANTS`."""
    transposed, flips = _ACROSS[name]
    transformed = pictures.swapaxes(1, 2) if transposed else pictures
    return transformed[:, :: -1 if flips & 2 else 1, :: -1 if flips & 1 else 1]


def correlated(thumbnails: Callable[[Indices], NDArray[np.uint8]], threshold: float) -> Confirm:
    """Confirm pairs whose grey thumbnails have a normalised correlation of at least `threshold`.

    Args:
        thumbnails: gives uint8 [P, S, S] for items int64 [P]: whole photos, squeezed to S x S (32 is enough).
        threshold: -1 to 1.
    """

    def confirm(first: Indices, second: Indices, variants: Indices) -> Bools:
        answers = np.zeros(len(first), np.bool_)
        for number in np.unique(variants):
            of_kind = np.flatnonzero(variants == number)
            for start in range(0, len(of_kind), 4096):
                at = of_kind[start : start + 4096]
                ours = _standardised(transform(thumbnails(first[at]), VARIANTS[number]))
                theirs = _standardised(thumbnails(second[at]))
                answers[at] = np.einsum("pd,pd->p", ours, theirs) >= threshold
        return answers

    return confirm


def _standardised(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Each picture as a vector of mean 0 and length 1 (length 0 if it is plain): float32 [P, S * S]."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    length = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.float32(1e-6))
    flat /= length
    return flat


def _numbers(variants: tuple[str, ...]) -> tuple[int, ...]:
    unknown = set(variants) - set(VARIANTS)
    if unknown:
        raise ValueError(f"no variant is called {min(unknown)!r}; variants are {', '.join(VARIANTS)}")
    # A turn by 270 degrees is the turn by 90 of the other photo.
    return tuple(sorted({5 if name == "turn-270" else VARIANTS.index(name) for name in variants}))


def _transposed(hashes: Hashes) -> Hashes:
    """The 8 x 8 bits with rows and columns exchanged (Warren 2012, "Hacker's Delight", section 7-3)."""
    bits = hashes
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        differ = (bits ^ (bits >> np.uint64(shift))) & np.uint64(mask)
        bits = bits ^ differ ^ (differ << np.uint64(shift))
    return bits


@dataclass(frozen=True)
class _Tree:
    """Items and the edges that hold them together: a spanning forest."""

    first: Indices
    second: Indices
    distance: Indices
    variant: Indices

    def groups(self) -> list[Indices]:
        """Items of each group of two or more, sorted."""
        items, at = np.unique(np.concatenate([self.first, self.second]), return_inverse=True)
        count = len(self.first)
        _, labels = _components(at[:count], at[count:], len(items))
        order = np.argsort(labels, kind="stable")
        cuts = np.flatnonzero(np.diff(labels[order])) + 1
        return [items[part] for part in np.split(order, cuts) if len(part)]

    def sizes(self) -> list[int]:
        return [len(group) for group in self.groups()]

    def larger_than(self, limit: int) -> list[Indices]:
        return [group for group in self.groups() if len(group) > limit]

    def without(self, items: Indices) -> "_Tree":
        return self._where(~np.isin(self.first, items))

    def _where(self, mask: Bools) -> "_Tree":
        return _Tree(self.first[mask], self.second[mask], self.distance[mask], self.variant[mask])


class _Search:
    """Trees over some of the hashes, at some distance."""

    def __init__(self, hashes: Hashes, variants: tuple[int, ...], confirm: Confirm | None) -> None:
        self._hashes, self._variants, self._confirm = hashes, variants, confirm

    def tree(self, items: Indices, distance: int) -> _Tree:
        """The spanning forest of `items` (int64, sorted) within `distance`."""
        forest = _Forest(self._hashes, self._confirm)
        pivots = self._equal(forest, items)
        own = _Side.of(self._hashes[pivots], pivots)
        for number in self._variants:
            turned = _Side.of(variant(own.hashes, VARIANTS[number]), pivots) if number else own
            for near in sorted({min(3, distance), distance}):  # up to 3 is quick, and leaves less to compare
                join = _Join(forest, number, near)
                join.search(turned, own, near)
                join.flush()
        return forest.tree()

    def parts(self, items: Indices, distance: int, limit: int) -> tuple[_Tree, int]:
        """The forest of a group that is too large, and the lowest distance that it took to break it up."""
        if distance < 0:
            return _merged([]), 0
        tree = self.tree(items, distance)
        done, lowest = [], distance
        for too_large in tree.larger_than(limit) if distance else []:
            part, reached = self.parts(too_large, distance - 1, limit)
            done.append(part)
            lowest = min(lowest, reached)
            tree = tree.without(too_large)
        return _merged([tree, *done]), lowest

    def _equal(self, forest: "_Forest", items: Indices) -> Indices:
        """Join the items of equal hash; one item of each hash (more, if not all are confirmed), sorted."""
        pivots, rest = [], items
        while len(rest):
            _, first, at = np.unique(self._hashes[rest], return_index=True, return_inverse=True)
            pivot = rest[first]
            pivots.append(pivot)
            others = np.flatnonzero(first[at] != np.arange(len(rest)))
            forest.join(pivot[at[others]], rest[others], 0)
            left = forest.roots(pivot[at[others]]) != forest.roots(rest[others])
            rest = rest[others[left]]
        return np.sort(np.concatenate(pivots)) if pivots else items


class _Forest:
    """Which items hang together, and by which edges."""

    def __init__(self, hashes: Hashes, confirm: Confirm | None) -> None:
        self._hashes, self._confirm = hashes, confirm
        self._parent = np.arange(len(hashes))
        self._edges: list[tuple[Indices, Indices, Indices, Indices]] = []

    def roots(self, items: Indices) -> Indices:
        """The item that stands for each item's group: int64 [P]."""
        roots = self._parent[items]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                self._parent[items] = roots
                return roots
            roots = above

    def join(self, first: Indices, second: Indices, number: int) -> None:
        """Join pairs that are close when variant `number` of `first` is taken: int64 [P] each."""
        while True:
            ours, theirs = self.roots(first), self.roots(second)
            apart = np.flatnonzero(ours != theirs)
            if not len(apart):
                return
            first, second, ours, theirs = first[apart], second[apart], ours[apart], theirs[apart]
            turned = variant(self._hashes[first], VARIANTS[number])
            distance = np.bitwise_count(turned ^ self._hashes[second]).astype(np.int64)
            spanning = _spanning(ours, theirs, distance)
            accepted = spanning[self._confirmed(first[spanning], second[spanning], number)]
            self._unite(ours[accepted], theirs[accepted])
            kind = np.full(len(accepted), number)
            self._edges.append((first[accepted], second[accepted], distance[accepted], kind))
            if self._confirm is None:
                return
            is_tried = np.zeros(len(first), np.bool_)
            is_tried[spanning] = True
            first, second = first[~is_tried], second[~is_tried]

    def tree(self) -> _Tree:
        """All edges so far, the smaller item first."""
        return _merged([_Tree(*edges) for edges in self._edges])

    def _confirmed(self, first: Indices, second: Indices, number: int) -> Bools:
        if self._confirm is None:
            return np.ones(len(first), np.bool_)
        return self._confirm(first, second, np.full(len(first), number))

    def _unite(self, ours: Indices, theirs: Indices) -> None:
        roots, at = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
        count, labels = _components(at[: len(ours)], at[len(ours) :], len(roots))
        lowest = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(lowest, labels, roots)
        self._parent[roots] = lowest[labels]


@dataclass(frozen=True)
class _Side:
    """One side of a join: hashes, the items they belong to, and the bits not looked at yet."""

    hashes: Hashes
    items: Indices
    keys: Hashes

    @classmethod
    def of(cls, hashes: Hashes, items: Indices) -> "_Side":
        return cls(hashes, items, hashes)

    def at(self, places: Indices | slice) -> "_Side":
        return _Side(self.hashes[places], self.items[places], self.keys[places])

    def without_band(self, low: int, wide: int) -> "_Side":
        """The same, and `wide` bits of the keys from bit `low` on taken out."""
        below = self.keys & np.uint64((1 << low) - 1)
        above = (self.keys >> np.uint64(low + wide - 1)) >> np.uint64(1)
        return _Side(self.hashes, self.items, below | above << np.uint64(low))


class _Join:
    """Finds the close pairs of two sides and passes them to the forest in lots.

    Args:
        forest: that collects the pairs.
        number: variant applied to the left side's hashes.
        distance: bits.
    """

    def __init__(self, forest: _Forest, number: int, distance: int) -> None:
        self._forest, self._number, self._distance = forest, number, distance
        self._pairs: list[tuple[Indices, Indices]] = []
        self._count = 0

    def search(self, left: _Side, right: _Side, distance: int, width: int = 64) -> None:
        """Look at all pairs whose keys of `width` bits (64, 48 or 36) are within `distance`.

        A side may be searched against itself: then it is one object, and each pair is looked at once.
        """
        wide, near = width // 4, distance // 4
        bits = [1 << bit for bit in range(wide)]
        masks = [sum(flipped) for count in range(near + 1) for flipped in combinations(bits, count)]
        for low in range(0, width, wide):
            ours = _Buckets(left, low, wide)
            theirs = ours if left is right else _Buckets(right, low, wide)
            for mask in masks:
                self._neighbours(ours, theirs, mask, (distance, width))

    def flush(self) -> None:
        """Pass the collected pairs to the forest."""
        if self._pairs:
            first, second = (np.concatenate(part) for part in zip(*self._pairs, strict=True))
            self._pairs, self._count = [], 0
            self._forest.join(first, second, self._number)

    def _neighbours(self, ours: "_Buckets", theirs: "_Buckets", mask: int, of: tuple[int, int]) -> None:
        """Compare each bucket on the left with the one on the right whose number differs by `mask`."""
        alone, values = ours is theirs, np.arange(len(ours.counts))
        pairs = ours.counts * theirs.counts[values ^ mask]
        if alone and mask:
            pairs[values & (mask & -mask) != 0] = 0  # each two buckets once
        for value in np.flatnonzero(pairs > _MANY):
            left = ours.bucket(int(value))
            right = left if alone and not mask else theirs.bucket(int(value) ^ mask)
            self._full(left, right, ours, of, mask.bit_count())
        ranks = np.flatnonzero(((pairs > 0) & (pairs <= _MANY))[ours.values])
        if not len(ranks):
            return
        other = ours.values[ranks] ^ mask
        stop = theirs.starts[other + 1]
        start = ranks + 1 if alone and not mask else theirs.starts[other]
        self._compare(ours.side.at(ranks), theirs.side, start, stop - start)

    def _full(self, left: _Side, right: _Side, by: "_Buckets", of: tuple[int, int], used: int) -> None:
        """Two buckets with many items."""
        self.flush()
        distance, width = of
        inside, others = self._common(left, right)
        known = int(inside.sum()) * (len(right.items) - int(others.sum()))
        if 2 * known > len(left.items) * len(right.items):
            self._each_with_each(left.at(np.flatnonzero(~inside)), right)
            if left is not right:
                self._each_with_each(left.at(np.flatnonzero(inside)), right.at(np.flatnonzero(others)))
        elif width > 36 and len(left.items) * len(right.items) > _FULL:
            rest = left.without_band(by.low, by.wide)
            other = rest if left is right else right.without_band(by.low, by.wide)
            self.search(rest, other, distance - used, width - by.wide)
        else:
            self._each_with_each(left, right)

    def _common(self, left: _Side, right: _Side) -> tuple[Bools, Bools]:
        """Which items on the left are of the group most common there, and which on the right are not."""
        left_roots = self._forest.roots(left.items)
        roots, counts = np.unique(left_roots, return_counts=True)
        common = roots[counts.argmax()]
        return left_roots == common, self._forest.roots(right.items) != common

    def _each_with_each(self, left: _Side, right: _Side) -> None:
        """All pairs that do not hang together yet, a lot of the left side's items at a time."""
        while len(left.items) and len(right.items):
            inside, others = self._common(left, right)
            lonely = inside.sum() <= 16
            taken = np.arange(min(_LOT, len(inside))) if lonely else np.flatnonzero(inside)[:_LOT]
            facing = right if lonely else right.at(np.flatnonzero(others))
            lot = left.at(taken)
            for start in range(0, len(facing.items), _CHUNK // _LOT):
                part = facing.at(slice(start, start + _CHUNK // _LOT))
                differ = np.bitwise_count(lot.hashes[:, None] ^ part.hashes[None])
                i, j = np.nonzero(differ <= self._distance)
                self._keep(lot.items[i], part.items[j])
            self.flush()
            left = left.at(np.delete(np.arange(len(inside)), taken))

    def _compare(self, left: _Side, right: _Side, start: Indices, count: Indices) -> None:
        """Compare each item on the left with `count` items on the right from `start` on: int64 [L] each."""
        for rows in _lots(count):
            many = count[rows]
            ends = np.cumsum(many)
            j = np.arange(ends[-1]) + np.repeat(start[rows] - ends + many, many)
            differ = np.bitwise_count(np.repeat(left.hashes[rows], many) ^ right.hashes[j])
            close = np.flatnonzero(differ <= self._distance)
            if len(close):
                i = rows.start + np.searchsorted(ends, close, side="right")
                self._keep(left.items[i], right.items[j[close]])

    def _keep(self, first: Indices, second: Indices) -> None:
        self._pairs.append((first, second))
        self._count += len(first)
        if self._count >= _MAX_PAIRS:
            self.flush()


class _Buckets:
    """A side sorted by one band of its keys."""

    def __init__(self, side: _Side, low: int, wide: int) -> None:
        self.low, self.wide = low, wide
        values = (side.keys >> np.uint64(low) & np.uint64((1 << wide) - 1)).astype(np.uint16)
        order = np.argsort(values, kind="stable")
        self.side = side.at(order)
        self.values = values[order].astype(np.int64)
        self.counts = np.bincount(self.values, minlength=1 << wide)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])

    def bucket(self, value: int) -> _Side:
        return self.side.at(slice(int(self.starts[value]), int(self.starts[value + 1])))


def _lots(count: Indices) -> Iterator[slice]:
    """Rows in lots of about `_CHUNK` comparisons, a single row with more in a lot of its own."""
    ends = np.cumsum(count)
    start, done = 0, 0
    while start < len(count):
        stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        yield slice(start, stop)
        start, done = stop, int(ends[stop - 1])


def joined(first: Sequence[int], second: Sequence[int], count: int) -> list[int]:
    """The smallest item of each item's group, where pairs (first, second) of `count` items hang together."""
    number, labels = _components(np.asarray(first, np.int64), np.asarray(second, np.int64), count)
    lowest = np.full(number, count)
    np.minimum.at(lowest, labels, np.arange(count))
    smallest: list[int] = lowest[labels].tolist()
    return smallest


def _components(first: Indices, second: Indices, count: int) -> tuple[int, Indices]:
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    groups, labels = connected_components(graph, directed=False)
    return int(groups), labels.astype(np.int64)


def _spanning(ours: Indices, theirs: Indices, distance: Indices) -> Indices:
    """Which edges make a minimum spanning forest of the groups they join: int64 places, sorted."""
    roots, at = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    low, high = np.sort(at.reshape(2, -1), axis=0)
    key = low * len(roots) + high
    order = np.lexsort((distance, key))
    shortest = order[np.r_[True, np.diff(key[order]) != 0]]
    # A weight of zero would be no edge.
    graph = coo_array((distance[shortest] + 1, (low[shortest], high[shortest])), shape=(len(roots), len(roots)))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    tree_key = np.minimum(tree.row, tree.col).astype(np.int64) * len(roots) + np.maximum(tree.row, tree.col)
    return np.sort(shortest[np.searchsorted(key[shortest], tree_key)])


def _merged(trees: list[_Tree]) -> _Tree:
    empty = _Tree(*(np.zeros(0, np.int64) for _ in range(4)))
    parts = [(tree.first, tree.second, tree.distance, tree.variant) for tree in [empty, *trees]]
    return _Tree(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _result(count: int, trees: list[_Tree], broken: tuple[Broken, ...]) -> Near:
    tree = _merged(trees)
    swapped = tree.first > tree.second
    first, second = np.minimum(tree.first, tree.second), np.maximum(tree.first, tree.second)
    kind = np.where(swapped, _INVERSE[tree.variant], tree.variant)
    order = np.lexsort((second, first))
    groups, labels = _components(first, second, count)
    lowest = np.full(groups, count)
    np.minimum.at(lowest, labels, np.arange(count))
    return Near(
        group=lowest[labels],
        first=first[order],
        second=second[order],
        distance=tree.distance[order].astype(np.uint8),
        variant=kind[order].astype(np.uint8),
        broken=broken,
    )
