"""Labels for photos that have none, from photos that look alike.

Labels spread along a graph in which each photo is joined with those of the most similar embeddings (Zhou et al. 2003,
"Learning with local and global consistency"; Iscen et al. 2019, "Label propagation for deep semi-supervised learning").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from plantml.curate.embeddings import unit
from plantml.curate.nearest_neighbours import nearest
from plantml.targets import Target

Floats = NDArray[np.float32]

_NEIGHBOURS, _POWER, _SPREAD, _STEPS = 10, 4, 0.9, 50
"""Neighbours of a photo; power of their cosines; share of a step's mass that is spread; steps, after which less than a
hundredth of the mass is still to come."""


def propagate(
    targets: Sequence[Target], embeddings: Floats, labels: Mapping[str, NDArray[Any]], threshold: float
) -> dict[str, NDArray[Any]]:
    """The labels, and for photos without one, what their neighbours say.

    Args:
        targets: classes and multilabels are completed; values stay missing.
        embeddings: float32 [N, D].
        labels: encoded as `Target.encode` does, by target.
        threshold: score, 0 to 1, from which a label is taken.

    Returns:
        Labels in the same form; those of uncertain photos are missing.
    """
    similar = _similarities(unit(embeddings))
    completed = {}
    for target in targets:
        truth = labels[target.name]
        known = target.labelled(truth)
        if target.kind == "value" or not known.any():
            completed[target.name] = truth
        elif target.kind == "class":
            seeds = np.eye(target.size, dtype=np.float32)[truth.clip(0)] * known[:, None]
            # Otherwise a class would win by its number of labelled photos.
            shares = _shares(_spread(similar, seeds / seeds.sum(axis=0).clip(1)))
            sure = shares.max(axis=1) >= threshold
            completed[target.name] = np.where(known, truth, np.where(sure, shares.argmax(axis=1), -1))
        else:
            seeds = np.where(known[:, None], np.nan_to_num(truth), 0)
            shares = np.stack([_shares(_spread(similar, _pair(column, known)))[:, 1] for column in seeds.T], axis=1)
            sure = (np.maximum(shares, 1 - shares) >= threshold).all(axis=1, keepdims=True)
            guesses = np.where(sure, shares > 0.5, np.nan)
            completed[target.name] = np.where(known[:, None], truth, guesses).astype(np.float32)
    return completed


def _similarities(vectors: Floats) -> sparse.csr_array:
    """The normalised graph, float32 [N, N]: symmetric, non-negative, without loops."""
    count = len(vectors)
    places, cosines = nearest(vectors, vectors, _NEIGHBOURS + 1)  # a photo is nearest to itself
    rows = np.repeat(np.arange(count), places.shape[1])
    columns, weights = places.ravel(), cosines.ravel().clip(0) ** _POWER
    apart = rows != columns
    graph = sparse.csr_array((weights[apart], (rows[apart], columns[apart])), shape=(count, count))
    graph = graph.maximum(graph.T)
    scale = 1 / np.sqrt(np.asarray(graph.sum(axis=1)).clip(1e-12))
    return sparse.csr_array(sparse.diags_array(scale) @ graph @ sparse.diags_array(scale))


def _spread(similar: sparse.csr_array, seeds: Floats) -> Floats:
    """The labels' mass, float32 [N, K], after it has spread from the labelled photos."""
    mass = seeds
    for _ in range(_STEPS):
        mass = _SPREAD * (similar @ mass) + seeds
    return np.asarray(mass, np.float32)


def _shares(mass: Floats) -> Floats:
    """Rows that sum to 1; those that no label has reached are 0."""
    shares: Floats = mass / mass.sum(axis=1, keepdims=True).clip(1e-12)
    return shares


def _pair(column: Floats, known: NDArray[np.bool_]) -> Floats:
    """Seeds [N, 2] of one label: of the photos without it, and of those with it."""
    seeds = np.stack([(1 - column) * known, column * known], axis=1).astype(np.float32)
    shares: Floats = seeds / seeds.sum(axis=0).clip(1)
    return shares
