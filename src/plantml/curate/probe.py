"""Probes: simple models that measure how well features predict a label. Needs scikit-learn."""

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
"""Photos that a probe is trained on at most, chosen at random; more do not change the result."""

_COMPONENTS = 128


@dataclass(frozen=True)
class ProbeResult:
    """Out-of-fold predictions of a probe.

    Attributes:
        classes: in the order of the columns.
        rows: int64 [M], indices of the predicted photos.
        labels: int64 [M], their classes.
        probabilities: float32 [M, classes], calibrated, each from a model trained without the photo and its group.
    """

    classes: tuple[str, ...]
    rows: Ints
    labels: Ints
    probabilities: Floats

    @property
    def accuracy(self) -> float:
        """Share of photos whose class is predicted correctly."""
        return float((self.probabilities.argmax(1) == self.labels).mean())

    @property
    def commonest(self) -> float:
        """The accuracy of always predicting the most common class."""
        return float(np.bincount(self.labels).max() / len(self.labels))


def probe(
    features: Floats,
    labels: Sequence[str | None],
    groups: Ints,
    *,
    kind: Literal["linear", "trees"] = "linear",
    threads: int = 1,
    seed: int = 0,
) -> ProbeResult | None:
    """Compute out-of-fold probabilities by cross-validation that keeps groups together.

    Args:
        features: float32 [N, D].
        labels: class of each photo, or `None`.
        groups: int64 [N]; photos of one group are in one fold.
        kind: `linear` (logistic regression on 128 principal components) for embeddings, `trees` (a random
            forest) for features on different scales.
        threads: maximum number of threads.
        seed: random seed of folds, sample and forest.

    Returns:
        `None` unless two classes have enough groups to train on, two per fold.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise MissingExtraError("Probes need scikit-learn", str(error), extra="curate") from error

    rows, classes = _eligible(labels, groups)
    if len(classes) < 2:
        return None
    index = {name: number for number, name in enumerate(classes)}
    y = np.array([index[str(labels[row])] for row in rows], np.int64)
    x, g = features[rows], groups[rows]
    probabilities = np.zeros((len(rows), len(classes)), np.float32)
    for train, held_out in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(x, y, g):
        sample = (
            train if len(train) <= _MOST else np.sort(np.random.default_rng(seed).choice(train, _MOST, replace=False))
        )
        model = _model(kind, x[sample].shape, threads, seed).fit(x[sample], y[sample])
        columns = model.classes_
        probabilities[held_out[:, None], columns[None, :]] = model.predict_proba(x[held_out])
    return ProbeResult(classes, rows, y, _calibrated(probabilities, y))


def _calibrated(probabilities: Floats, labels: Ints) -> Floats:
    """Calibrate probabilities by temperature scaling (Guo et al. 2017, "On calibration")."""
    from scipy.optimize import minimize_scalar

    logits = np.log(probabilities.astype(np.float64) + 1e-9)
    own = np.arange(len(labels)), labels

    def softmax(temperature: float) -> NDArray[np.float64]:
        scaled = logits / temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    best = minimize_scalar(lambda t: -np.log(softmax(t)[own] + 1e-12).mean(), bounds=(0.1, 10), method="bounded").x
    return softmax(float(best)).astype(np.float32)


def _eligible(labels: Sequence[str | None], groups: Ints) -> tuple[Ints, tuple[str, ...]]:
    """Return the indices of photos whose class has enough groups, and these classes."""
    of_class: dict[str, set[int]] = {}
    for label, group in zip(labels, groups.tolist(), strict=True):
        if label is not None:
            of_class.setdefault(label, set()).add(group)
    classes = tuple(sorted(name for name, members in of_class.items() if len(members) >= 2 * _FOLDS))
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
