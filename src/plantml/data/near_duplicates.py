"""Near-duplicates: groups of photos whose 64-bit perceptual hashes are close, flipped and rotated copies included.

The search is exact and needs no pairs in memory. Two hashes within distance d agree on one of four bands of
16 bits up to d // 4 bits (pigeonhole; Norouzi et al. 2012, "Fast search in Hamming space with multi-index
hashing"), so only hashes of neighbouring buckets are compared. In full buckets, hashes that are already in one
group are not compared again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]
Edges = NDArray[np.int64]
"""A spanning forest, int64 [E, 4]: first, second, distance, variant."""

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

_MANY = 1 << 18
"""Two buckets with more pairs are checked for known groups first."""

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
    edges = search.edges(np.arange(len(hashes)), distance)
    broken = []
    for too_large in _groups(edges, limit):
        parts, lowered = search.parts(too_large, distance - 1, limit)
        edges = np.concatenate([_without(edges, too_large), parts])
        sizes = [len(group) for group in _groups(parts)]
        broken.append(Broken(int(too_large[0]), len(too_large), lowered, len(sizes), max(sizes, default=1)))
    return _result(len(hashes), edges, tuple(broken))


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


class _Search:
    """Spanning forests of some of the hashes, at some distance."""

    def __init__(self, hashes: Hashes, variants: tuple[int, ...], confirm: Confirm | None) -> None:
        self._hashes, self._variants, self._confirm = hashes, variants, confirm

    def edges(self, items: Indices, distance: int) -> Edges:
        """The spanning forest of `items` (int64, sorted) within `distance`."""
        forest = _Forest(self._hashes, self._confirm)
        pivots = self._equal(forest, items)
        for number in self._variants:
            for near in sorted({min(3, distance), distance}):  # up to 3 is quick, and leaves less to compare
                _Join(forest, self._hashes, number, near).search(pivots)
        return np.concatenate([np.zeros((0, 4), np.int64), *forest.edges])

    def parts(self, items: Indices, distance: int, limit: int) -> tuple[Edges, int]:
        """The forest of a group that is too large, and the lowest distance that it took to break it up."""
        if distance < 0:
            return np.zeros((0, 4), np.int64), 0
        edges = self.edges(items, distance)
        lowest = distance
        for too_large in _groups(edges, limit) if distance else []:
            part, reached = self.parts(too_large, distance - 1, limit)
            lowest = min(lowest, reached)
            edges = np.concatenate([_without(edges, too_large), part])
        return edges, lowest

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
    """Which items hang together, and by which edges: a list of `Edges`."""

    def __init__(self, hashes: Hashes, confirm: Confirm | None) -> None:
        self._hashes, self._confirm = hashes, confirm
        self._parent = np.arange(len(hashes))
        self.edges: list[Edges] = []

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
            self.edges.append(np.stack([first[accepted], second[accepted], distance[accepted], kind], axis=1))
            if self._confirm is None:
                return
            is_tried = np.zeros(len(first), np.bool_)
            is_tried[spanning] = True
            first, second = first[~is_tried], second[~is_tried]

    def _confirmed(self, first: Indices, second: Indices, number: int) -> Bools:
        if self._confirm is None:
            return np.ones(len(first), np.bool_)
        return self._confirm(first, second, np.full(len(first), number))

    def _unite(self, ours: Indices, theirs: Indices) -> None:
        roots, at = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
        self._parent[roots] = roots[_lowest(at[: len(ours)], at[len(ours) :], len(roots))]


class _Buckets:
    """Hashes and their items, sorted by the band of 16 bits from bit `low` on."""

    def __init__(self, hashes: Hashes, items: Indices, low: int) -> None:
        band = (hashes >> np.uint64(low)).astype(np.uint16)
        order = np.argsort(band, kind="stable")
        self.hashes, self.items, self.bands = hashes[order], items[order], band[order].astype(np.int64)
        self.counts = np.bincount(self.bands, minlength=1 << 16)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])

    def bucket(self, band: int) -> tuple[Hashes, Indices]:
        place = slice(int(self.starts[band]), int(self.starts[band + 1]))
        return self.hashes[place], self.items[place]


class _Join:
    """Finds pairs of close hashes, the first transformed by variant `number`, and passes them to the forest."""

    def __init__(self, forest: _Forest, hashes: Hashes, number: int, distance: int) -> None:
        self._forest, self._hashes, self._number, self._distance = forest, hashes, number, distance
        self._pairs: list[tuple[Indices, Indices]] = []
        self._count = 0

    def search(self, items: Indices) -> None:
        """Join all close pairs of `items`."""
        hashes = self._hashes[items]
        turned = variant(hashes, VARIANTS[self._number])
        bits = [1 << bit for bit in range(16)]
        masks = [sum(flipped) for count in range(self._distance // 4 + 1) for flipped in combinations(bits, count)]
        for low in range(0, 64, 16):
            theirs = _Buckets(hashes, items, low)
            ours = _Buckets(turned, items, low) if self._number else theirs
            for mask in masks:
                self._neighbours(ours, theirs, mask)
        self._flush()

    def _flush(self) -> None:
        """Pass the collected pairs to the forest."""
        if self._pairs:
            first, second = (np.concatenate(part) for part in zip(*self._pairs, strict=True))
            self._pairs, self._count = [], 0
            self._forest.join(first, second, self._number)

    def _neighbours(self, ours: _Buckets, theirs: _Buckets, mask: int) -> None:
        """Compare each bucket on the left with the one on the right whose band differs by `mask`."""
        alone, bands = ours is theirs, np.arange(len(ours.counts))
        pairs = ours.counts * theirs.counts[bands ^ mask]
        if alone and mask:
            pairs[bands & (mask & -mask) != 0] = 0  # each two buckets once
        for band in np.flatnonzero(pairs > _MANY).tolist():
            self._each_with_each(ours.bucket(band), theirs.bucket(band ^ mask))
        places = np.flatnonzero(((pairs > 0) & (pairs <= _MANY))[ours.bands])
        if len(places):
            other = ours.bands[places] ^ mask
            start = places + 1 if alone and not mask else theirs.starts[other]
            self._compare((ours.hashes[places], ours.items[places]), theirs, start, theirs.starts[other + 1] - start)

    def _each_with_each(self, left: tuple[Hashes, Indices], right: tuple[Hashes, Indices]) -> None:
        """Compare all pairs that do not hang together yet, a lot of the left side's items at a time."""
        self._flush()
        (left_hashes, left_items), (right_hashes, right_items) = left, right
        while len(left_items):
            left_roots = self._forest.roots(left_items)
            roots, counts = np.unique(left_roots, return_counts=True)
            is_common = left_roots == roots[counts.argmax()]
            if counts.max() > 16:  # a lot of one group, and the items of others
                lot = np.flatnonzero(is_common)[:_LOT]
                facing = np.flatnonzero(self._forest.roots(right_items) != roots[counts.argmax()])
            else:
                lot, facing = np.arange(min(_LOT, len(left_items))), np.arange(len(right_items))
            for start in range(0, len(facing), _CHUNK // _LOT):
                part = facing[start : start + _CHUNK // _LOT]
                differ = np.bitwise_count(left_hashes[lot][:, None] ^ right_hashes[part])
                i, j = np.nonzero(differ <= self._distance)
                self._keep(left_items[lot[i]], right_items[part[j]])
            self._flush()
            left_hashes, left_items = np.delete(left_hashes, lot), np.delete(left_items, lot)

    def _compare(self, left: tuple[Hashes, Indices], right: _Buckets, start: Indices, count: Indices) -> None:
        """Compare each item on the left with `count` items on the right from `start` on: int64 [L] each."""
        hashes, items = left
        for rows in _lots(count):
            many = count[rows]
            ends = np.cumsum(many)
            j = np.arange(ends[-1]) + np.repeat(start[rows] - ends + many, many)
            differ = np.bitwise_count(np.repeat(hashes[rows], many) ^ right.hashes[j])
            close = np.flatnonzero(differ <= self._distance)
            if len(close):
                i = rows.start + np.searchsorted(ends, close, side="right")
                self._keep(items[i], right.items[j[close]])

    def _keep(self, first: Indices, second: Indices) -> None:
        self._pairs.append((first, second))
        self._count += len(first)
        if self._count >= _MAX_PAIRS:
            self._flush()


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
    smallest: list[int] = _lowest(np.asarray(first, np.int64), np.asarray(second, np.int64), count).tolist()
    return smallest


def _lowest(first: Indices, second: Indices, count: int) -> Indices:
    groups, labels = _components(first, second, count)
    lowest = np.full(groups, count)
    np.minimum.at(lowest, labels, np.arange(count))
    return lowest[labels]


def _groups(edges: Edges, limit: int = 1) -> list[Indices]:
    """Items of each group with more than `limit`, sorted."""
    items, at = np.unique(edges[:, :2], return_inverse=True)
    at = at.reshape(-1, 2)
    _, labels = _components(at[:, 0], at[:, 1], len(items))
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    return [items[part] for part in np.split(order, cuts) if len(part) > limit]


def _without(edges: Edges, items: Indices) -> Edges:
    return edges[~np.isin(edges[:, 0], items)]


def _components(first: Indices, second: Indices, count: int) -> tuple[int, Indices]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    groups, labels = connected_components(graph, directed=False)
    return int(groups), labels.astype(np.int64)


def _spanning(ours: Indices, theirs: Indices, distance: Indices) -> Indices:
    """Which edges make a minimum spanning forest of the groups they join: int64 places, sorted."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

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


def _result(count: int, edges: Edges, broken: tuple[Broken, ...]) -> Near:
    ends, kind = np.sort(edges[:, :2], axis=1), edges[:, 3]
    kind = np.where(edges[:, 0] > edges[:, 1], _INVERSE[kind], kind)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    first, second = ends[order].T
    return Near(
        group=_lowest(first, second, count),
        first=first,
        second=second,
        distance=edges[order, 2].astype(np.uint8),
        variant=kind[order].astype(np.uint8),
        broken=broken,
    )
