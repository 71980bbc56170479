"""Candidates by visual words: photos that share many rare keypoints, whatever they show as a whole.

A keypoint's word is the nearest of 256 samples for each half of its descriptor (an inverted multi-index;
Babenko and Lempitsky 2012); photos are compared by the words they share, rare ones counting more (Sivic and
Zisserman 2003, "Video Google"). A turned photo with black corners looks like any other such photo to a network,
but its words stay.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Descriptors = NDArray[np.uint8]
Words = NDArray[np.int32]
Indices = NDArray[np.int64]

_SAMPLES = 256
_WORDS = _SAMPLES**2
_COMMON, _MOST = 0.1, 1000
"""A word that more than this share, or number, of photos has says little and costs most."""

_CELLS = 1 << 22


class Codebook:
    """Words for keypoints.

    Args:
        samples: uint8 [S, 128] descriptors, of which 256 are taken.
    """

    def __init__(self, samples: Descriptors) -> None:
        taken = np.random.default_rng(0).permutation(len(samples))[:_SAMPLES]
        chosen = samples[taken].astype(np.float32) if len(samples) else np.zeros((1, 128), np.float32)
        self._halves = [np.ascontiguousarray(chosen[:, half].T) for half in (slice(64), slice(64, None))]
        self._lengths = [(centres**2).sum(axis=0) / 2 for centres in self._halves]

    def words(self, descriptors: Descriptors) -> Words:
        """The word of each keypoint, 0 to 65535: int32 [K] of uint8 [K, 128]."""
        given = descriptors.astype(np.float32)
        found = np.zeros(len(given), np.int32)
        for half, centres, lengths in zip((0, 64), self._halves, self._lengths, strict=True):
            nearest_centre = (given[:, half : half + 64] @ centres - lengths).argmax(axis=1)
            found = found * np.int32(_SAMPLES) + nearest_centre.astype(np.int32)
        return found


def nearest(words: list[Words], mirrored: list[Words], top: int) -> Indices:
    """Pairs in which one is among the `top` that share most words with the other: int64 [P, 2], both orders.

    Args:
        words: of each photo.
        mirrored: the words that each photo would have, were it mirrored.
        top: neighbours a photo.
    """
    count = len(words)
    top = min(top, count - 1)
    if top < 1:
        return np.zeros((0, 2), np.int64)
    plain, turned = _table(words), _table(mirrored)
    having = np.bincount(plain.indices, minlength=_WORDS)
    rare = np.log((count + 1) / (having + 1)) + 0.01
    rare[having > max(10, min(_COMMON * count, _MOST))] = 0
    plain, turned = _weighted(plain, rare), _weighted(turned, rare)
    across = plain.T.tocsr()
    found = []
    step = max(1, _CELLS // count)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        shared = (plain[rows] @ across).toarray()
        np.maximum(shared, (turned[rows] @ across).toarray(), out=shared)
        shared[np.arange(len(rows)), rows] = -1
        near = np.argpartition(shared, -top, axis=1)[:, -top:]
        some = np.take_along_axis(shared, near, axis=1).ravel() > 0
        found.append(np.stack([np.repeat(rows, top)[some], near.ravel()[some]], axis=1))
    return np.concatenate(found).astype(np.int64)


def _table(words: list[Words]) -> csr_array:
    """Which photo has which words: float32 [N, 65536]."""
    each = [np.unique(of_photo) for of_photo in words]
    ends = np.cumsum([0, *map(len, each)])
    columns = np.concatenate(each)
    return csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(words), _WORDS))


def _weighted(table: csr_array, rare: NDArray[np.float64]) -> csr_array:
    """The table with weights, each photo's of length 1."""
    data = table.data * rare[table.indices].astype(np.float32)
    rows = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    length = np.sqrt(np.bincount(rows, data**2, minlength=table.shape[0]))
    scaled = data / np.maximum(length, 1e-6)[rows].astype(np.float32)
    found = csr_array((scaled.astype(np.float32), table.indices, table.indptr), shape=table.shape)
    found.eliminate_zeros()
    return found
