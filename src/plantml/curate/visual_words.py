"""Candidate pairs by visual words: photos that share many rare keypoints.

A keypoint's word is the nearest of 256 samples for each half of its descriptor (an inverted multi-index;
Babenko and Lempitsky 2012). Photos are compared by the words they share, and rare words count more (Sivic and
Zisserman 2003, "Video Google"). To a network, a rotated photo with black corners resembles any other such photo, but
its words do not change.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from plantml.curate.nearest_neighbours import largest

Descriptors = NDArray[np.uint8]
Words = NDArray[np.int32]
Indices = NDArray[np.int64]

_SAMPLES = 256
_WORDS = _SAMPLES**2
_COMMON, _MOST = 0.1, 1000
"""A word in more than this share, or number, of photos is ignored: it is uninformative and costs most."""

_CELLS = 1 << 22


class Codebook:
    """Maps keypoints to visual words.

    Args:
        samples: uint8 [S, 128] descriptors, of which 256 become centres.
    """

    def __init__(self, samples: Descriptors) -> None:
        sample = np.random.default_rng(0).permutation(len(samples))[:_SAMPLES]
        centres = samples[sample].astype(np.float32) if len(samples) else np.zeros((1, 128), np.float32)
        self._halves = [np.ascontiguousarray(centres[:, half].T) for half in (slice(64), slice(64, None))]
        self._lengths = [(centres**2).sum(axis=0) / 2 for centres in self._halves]

    def words(self, descriptors: Descriptors) -> Words:
        """Return the word of each keypoint, 0 to 65535: int32 [K] from uint8 [K, 128]."""
        vectors = descriptors.astype(np.float32)
        words = np.zeros(len(vectors), np.int32)
        for half, centres, lengths in zip((0, 64), self._halves, self._lengths, strict=True):
            nearest_centre = (vectors[:, half : half + 64] @ centres - lengths).argmax(axis=1)
            words = words * np.int32(_SAMPLES) + nearest_centre.astype(np.int32)
        return words


def nearest(words: list[Words], mirrored: list[Words], top: int) -> Indices:
    """Find pairs in which one shares the most words with the other: int64 [P, 2], in both orders.

    Args:
        words: the words of each photo.
        mirrored: the words of each photo if it were mirrored.
        top: neighbours per photo.
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
    pairs = []
    step = max(1, _CELLS // count)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        shared = (plain[rows] @ across).toarray()
        np.maximum(shared, (turned[rows] @ across).toarray(), out=shared)
        shared[np.arange(len(rows)), rows] = -1
        near, weights = largest(shared, top)
        pairs.append(np.stack([np.repeat(rows, top), near.ravel()], axis=1)[weights.ravel() > 0])
    return np.concatenate(pairs).astype(np.int64)


def _table(words: list[Words]) -> csr_array:
    """The photo-word matrix: float32 [N, 65536]."""
    each = [np.unique(of_photo) for of_photo in words]
    ends = np.cumsum([0, *map(len, each)])
    columns = np.concatenate(each)
    return csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(words), _WORDS))


def _weighted(table: csr_array, rare: NDArray[np.float64]) -> csr_array:
    """Weight the matrix, each row scaled to length 1."""
    data = table.data * rare[table.indices].astype(np.float32)
    rows = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    length = np.sqrt(np.bincount(rows, data**2, minlength=table.shape[0]))
    scaled = data / np.maximum(length, 1e-6)[rows].astype(np.float32)
    weighted = csr_array((scaled.astype(np.float32), table.indices, table.indptr), shape=table.shape)
    weighted.eliminate_zeros()
    return weighted
