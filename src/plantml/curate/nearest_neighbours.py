"""Exact nearest neighbours by cosine, computed in blocks to bound memory."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_CELLS = 1 << 24
"""Products held at a time: 64 MB."""


def nearest(queries: Floats, vectors: Floats, k: int, *, apart: tuple[Ints, Ints] | None = None) -> tuple[Ints, Floats]:
    """Find the `k` vectors with the largest cosine for each query.

    Args:
        queries: float32 [Q, D] of length 1.
        vectors: float32 [N, D] of length 1.
        k: number of neighbours; fewer if there are fewer vectors.
        apart: groups of the queries, int64 [Q], and of the vectors, int64 [N]; members of one group are not neighbours.

    Returns:
        Indices int64 [Q, k] and cosines float32 [Q, k], the nearest first; a missing neighbour has cosine -2.
    """
    k = min(k, len(vectors))
    places, cosines = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    step = max(1, _CELLS // max(1, len(vectors)))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        products = queries[block] @ vectors.T
        if apart is not None:
            products[apart[0][block, None] == apart[1][None, :]] = -2
        places[block], cosines[block] = largest(products, k)
    return places, cosines


def largest(products: Floats, k: int) -> tuple[Ints, Floats]:
    """Places, int64 [Q, k], and values, float32 [Q, k], of the `k` largest of each row, the largest first."""
    top = np.argpartition(-products, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(products, top, 1)
    order = np.lexsort((top, -values), axis=1)
    return np.take_along_axis(top, order, 1), np.take_along_axis(values, order, 1)


def principal(vectors: Floats, share: float) -> tuple[Floats, float]:
    """Project vectors onto the principal components that explain `share` of their variance.

    Args:
        vectors: float32 [N, D].
        share: 0 to 1.

    Returns:
        float32 [N, C], largest component first, and the share that these C explain.
    """
    centred = vectors - vectors.mean(axis=0)
    # Decompose the covariance, not the vectors: D is about a thousand, N may be a million.
    values, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    explained = np.cumsum(values) / max(values.sum(), 1e-12)
    count = min(int(np.searchsorted(explained, share - 1e-9)) + 1, len(values))
    projected: Floats = (centred @ axes[:, :count].astype(np.float32)).astype(np.float32)
    return projected, float(explained[count - 1])
