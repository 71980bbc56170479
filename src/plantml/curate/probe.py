"""Probes: simple models that tell how much some features know of a label. Needs scikit-learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plantml.errors import MissingExtraError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_FOLDS = 5
_MOST = 20_000
"""Photos that a probe learns from, at most, taken at random: more would not change what it tells."""

_COMPONENTS = 128


@dataclass(frozen=True)
class Probed:
    """What a probe knew of photos that it had not seen.

    Attributes:
        classes: in the order of the columns.
        rows: int64 [M], places of the photos that were judged.
        labels: int64 [M], their classes.
        probabilities: float32 [M, classes], calibrated, each from a model that saw neither the photo nor its group.
    """

    classes: tuple[str, ...]
    rows: Ints
    labels: Ints
    probabilities: Floats

    @property
    def accuracy(self) -> float:
        """Share of photos whose class it names."""
        return float((self.probabilities.argmax(1) == self.labels).mean())

    @property
    def commonest(self) -> float:
        """The accuracy of always naming the commonest class."""
        return float(np.bincount(self.labels).max() / len(self.labels))


def probe(
    features: Floats,
    labels: Sequence[str | None],
    groups: Ints,
    *,
    kind: Literal["linear", "trees"] = "linear",
    threads: int = 1,
    seed: int = 0,
) -> Probed | None:
    """Out-of-fold probabilities by cross-validation that never tears a group.

    Args:
        features: float32 [N, D].
        labels: class of each photo, or `None`.
        groups: int64 [N]; photos of one group are in one fold.
        kind: `linear` (logistic regression on 128 principal components) for embeddings, `trees` (a random
            forest) for facts that are not of one scale.
        threads: at most so many.
        seed: of folds, sample and forest.

    Returns:
        `None` where no two classes have enough groups (two a fold) to learn from.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise MissingExtraError("Probes are not installed", str(error), extra="curate") from error

    rows, classes = _eligible(labels, groups)
    if len(classes) < 2:
        return None
    index = {name: number for number, name in enumerate(classes)}
    y = np.array([index[str(labels[row])] for row in rows], np.int64)
    x, g = features[rows], groups[rows]
    found = np.zeros((len(rows), len(classes)), np.float32)
    for fit, judge in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(x, y, g):
        some = fit if len(fit) <= _MOST else np.sort(np.random.default_rng(seed).choice(fit, _MOST, replace=False))
        model = _model(kind, x[some].shape, threads, seed).fit(x[some], y[some])
        columns = model.classes_
        found[judge[:, None], columns[None, :]] = model.predict_proba(x[judge])
    return Probed(classes, rows, y, _calibrated(found, y))


def _calibrated(probabilities: Floats, labels: Ints) -> Floats:
    """Probabilities as sure as they are right, by one temperature (Guo et al. 2017, "On calibration")."""
    from scipy.optimize import minimize_scalar

    logits = np.log(probabilities.astype(np.float64) + 1e-9)
    mine = np.arange(len(labels)), labels

    def softmax(temperature: float) -> NDArray[np.float64]:
        scaled = logits / temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    best = minimize_scalar(lambda t: -np.log(softmax(t)[mine] + 1e-12).mean(), bounds=(0.1, 10), method="bounded").x
    return softmax(float(best)).astype(np.float32)


def _eligible(labels: Sequence[str | None], groups: Ints) -> tuple[Ints, tuple[str, ...]]:
    """Places of photos whose class has enough groups, and these classes."""
    of_class: dict[str, set[int]] = {}
    for label, group in zip(labels, groups.tolist(), strict=True):
        if label is not None:
            of_class.setdefault(label, set()).add(group)
    classes = tuple(sorted(name for name, found in of_class.items() if len(found) >= 2 * _FOLDS))
    rows = np.array([row for row, label in enumerate(labels) if label in classes], np.int64)
    return rows, classes


def _model(kind: str, shape: tuple[int, ...], threads: int, seed: int) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "trees":
        return RandomForestClassifier(100, min_samples_leaf=2, n_jobs=threads, random_state=seed)
    components = min(_COMPONENTS, shape[1], shape[0] // 2)
    reduce = PCA(components, svd_solver="randomized", random_state=seed)
    return make_pipeline(reduce, StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
