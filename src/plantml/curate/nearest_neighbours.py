"""Nearest neighbours by cosine, exactly, in blocks so that memory stays bounded."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_CELLS = 1 << 24
"""Products at a time: 64 MB."""


def nearest(queries: Floats, vectors: Floats, k: int, *, apart: tuple[Ints, Ints] | None = None) -> tuple[Ints, Floats]:
    """The `k` vectors of largest cosine for each query.

    Args:
        queries: float32 [Q, D] of length 1.
        vectors: float32 [N, D] of length 1.
        k: neighbours; fewer where there are fewer vectors.
        apart: groups of the queries, int64 [Q], and of the vectors, int64 [N]; one group is no neighbour.

    Returns:
        Places int64 [Q, k] and cosines float32 [Q, k], the nearest first; where nothing is left the cosine is -2.
    """
    k = min(k, len(vectors))
    places, cosines = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    step = max(1, _CELLS // max(1, len(vectors)))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        products = queries[block] @ vectors.T
        if apart is not None:
            products[apart[0][block, None] == apart[1][None, :]] = -2
        top = np.argpartition(-products, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(products, top, 1)
        order = np.lexsort((top, -found), axis=1)
        places[block] = np.take_along_axis(top, order, 1)
        cosines[block] = np.take_along_axis(found, order, 1)
    return places, cosines


def principal(vectors: Floats, share: float) -> tuple[Floats, float]:
    """Vectors on as many principal components as explain `share` of their variance.

    Args:
        vectors: float32 [N, D].
        share: 0 to 1.

    Returns:
        float32 [N, C], largest component first, and the share that these C explain.
    """
    centred = vectors - vectors.mean(axis=0)
    # Of the covariance, not of the photos: D is a thousand, N may be a million.
    values, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    explained = np.cumsum(values) / max(values.sum(), 1e-12)
    count = min(int(np.searchsorted(explained, share - 1e-9)) + 1, len(values))
    projected: Floats = (centred @ axes[:, :count].astype(np.float32)).astype(np.float32)
    return projected, float(explained[count - 1])
