"""Checks by probes: suspicious labels and outliers by embeddings, and shortcuts.

A shortcut is a label that is predictable without the plant, from the border or from file properties.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml.curate import nearest_neighbours
from plantml.curate.checks.pictures import deviations
from plantml.curate.context import Subject
from plantml.curate.findings import Finding
from plantml.curate.probe import ProbeResult, probe
from plantml.errors import MissingExtraError
from plantml.targets import Target

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_NEIGHBOURS = 5
_FAR = 4.5
_SURE, _WEAK = 0.9, 0.9
_OTHERS = 50_000
_TELLS = 0.2
"""Accuracy above the share of the most common class from which a shortcut is reported."""

_FACTS = ("width", "height", "bytes", "jpeg_quality", "orientation", "frames", "brightness", "contrast", "sharpness")
_WORDS = ("format", "mode", "camera")


def check_labels(subject: Subject) -> Iterator[Finding]:
    """Find suspicious labels by confident learning (Northcutt et al. 2021, "Confident Learning"), with cleanlab."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise MissingExtraError("Label checks need cleanlab", str(error), extra="curate") from error
    rows, vectors, groups = _embedded(subject)
    for target in subject.class_targets:
        labels = subject.version.rows[target.name].gather(rows).to_list()
        result = probe(vectors, labels, groups, threads=subject.machine.threads)
        if result is None:
            subject.notes.append(f"{target.name}: too few photos per class to check for suspicious labels.")
            continue
        weak = "; a trained model (--model RUN) finds more" if result.accuracy < _WEAK else ""
        subject.notes.append(
            f"{target.name}: a linear probe on embeddings has an accuracy of {result.accuracy:.1%}{weak}."
        )
        issues = find_label_issues(result.labels, result.probabilities, filter_by="both", n_jobs=1)
        scores = get_label_quality_scores(result.labels, result.probabilities)
        assigned = result.probabilities[np.arange(len(result.labels)), result.labels]
        # A weak probe contradicts many labels with low confidence; report only what it is confident of.
        confident = (result.probabilities.max(axis=1) > _SURE) & (assigned < 1 - _SURE)
        for at in np.flatnonzero(issues & confident):
            yield _suspicious(target, result, int(at), int(rows[result.rows[at]]), 1 - float(scores[at]))


def _suspicious(target: Target, result: ProbeResult, at: int, row: int, score: float) -> Finding:
    label, likely = result.classes[result.labels[at]], result.classes[int(result.probabilities[at].argmax())]
    assigned, best = result.probabilities[at, result.labels[at]], result.probabilities[at].max()
    evidence = f"{target.name} {label!r} ({assigned:.0%}); more likely {likely!r} ({best:.0%})"
    facts = {"target": target.name, "label": label, "likely": likely, "probability": round(float(best), 4)}
    return Finding("suspicious-label", (row,), evidence, score, facts)


def check_outliers(subject: Subject) -> Iterator[Finding]:
    """Find photos far from their nearest neighbours, in the dataset and in their class."""
    rows, vectors, groups = _embedded(subject)
    if len(rows) < 10 * _NEIGHBOURS:
        subject.notes.append("Too few photos to check for outliers.")
        return
    points, _ = nearest_neighbours.principal(vectors, 0.9)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    away = _away(points, groups)
    far = deviations(np.log(away + 1e-3))
    for at in np.flatnonzero(far > _FAR):
        evidence = f"cosine distance {away[at]:.2f} to its nearest photos; the median is {np.median(away):.2f}"
        yield Finding("outlier", (int(rows[at]),), evidence, _score(far[at]))
    for target in subject.class_targets:
        labels = np.array(subject.version.rows[target.name].gather(rows).fill_null("").to_list())
        for name in target.classes:
            own = np.flatnonzero(labels == name)
            if len(own) < 4 * _NEIGHBOURS:
                continue
            apart = _away(points[own], groups[own])
            off = deviations(np.log(apart + 1e-3))
            for at in np.flatnonzero((off > _FAR) & (far[own] <= _FAR)):
                evidence = (
                    f"cosine distance {apart[at]:.2f} to the nearest photos of {target.name} {name!r};"
                    f" the median is {np.median(apart):.2f}"
                )
                yield Finding("unlike-class", (int(rows[own[at]]),), evidence, _score(off[at]), {"target": target.name})


def _away(vectors: Floats, groups: Ints) -> NDArray[np.float64]:
    """Mean cosine distance of each vector to its nearest vectors of other groups, among at most 50,000."""
    others = np.arange(len(vectors))
    if len(others) > _OTHERS:
        others = np.sort(np.random.default_rng(0).choice(others, _OTHERS, replace=False))
    _, cosines = nearest_neighbours.nearest(vectors, vectors[others], _NEIGHBOURS, apart=(groups, groups[others]))
    distances: NDArray[np.float64] = 1 - np.where(cosines > -1.5, cosines, 0).mean(axis=1, dtype=np.float64)
    return distances


def check_shortcuts(subject: Subject) -> Iterator[Finding]:
    """Find labels that are predictable without the plant."""
    pictures = subject.pictures
    groups = _groups(subject, pictures)
    borders = pictures["border"].to_list()
    pixels = np.frombuffer(b"".join(borders), np.uint8).reshape(len(borders), -1).astype(np.float32)
    for target in subject.class_targets:
        labels = pictures[target.name].to_list()
        for code, features, what in (
            ("shortcut-border", pixels, "8 pixels of the border"),
            ("shortcut-file", _facts(pictures), "file properties (size, quality, light, camera)"),
        ):
            result = probe(features, labels, groups, kind="trees", threads=subject.machine.threads)
            if result is None:
                continue
            numbers = (
                f"an accuracy of {result.accuracy:.0%} for {target.name};"
                f" the most common class alone gives {result.commonest:.0%}"
            )
            subject.notes.append(f"A probe on {what} has {numbers}.")
            # Two standard errors exclude chance in small datasets.
            chance = 2 * (result.commonest * (1 - result.commonest) / len(result.labels)) ** 0.5
            if result.accuracy > result.commonest + max(_TELLS, chance):
                facts = {"target": target.name, "accuracy": result.accuracy, "commonest": result.commonest}
                yield Finding(code, (), f"a probe on {what} has {numbers}", result.accuracy, facts)


def _facts(rows: pl.DataFrame) -> Floats:
    """File properties as features: float32 [N, F]."""
    numbers = rows.select(pl.col(name).cast(pl.Float32).fill_null(-1) for name in _FACTS)
    words = rows.select(pl.col(name).fill_null("").rank("dense").cast(pl.Float32) for name in _WORDS)
    dense = rows.select((pl.col("bytes") / (pl.col("width").cast(pl.Int64) * pl.col("height"))).cast(pl.Float32))
    return np.concatenate([numbers.to_numpy(), words.to_numpy(), dense.to_numpy()], axis=1).astype(np.float32)


def _embedded(subject: Subject) -> tuple[Ints, Floats, Ints]:
    """Return the numbers of the rows that embedded a vector, their vectors, and their groups."""
    index, vectors = subject.embedding
    embedded = index >= 0
    rows = subject.pictures["row"].to_numpy().astype(np.int64)[embedded]
    return rows, vectors[index[embedded]], _groups(subject, subject.pictures)[embedded]


def _groups(subject: Subject, pictures: pl.DataFrame) -> Ints:
    """Return the groups of `pictures`: user-defined groups joined with groups of duplicates."""
    from plantml.data.splits import group_keys

    keys, _ = group_keys(pictures.with_columns(twin=pl.Series(subject.twins.group)), ("group", "twin"))
    return np.array(keys, np.int64)


def _score(far: float) -> float:
    return float(min(1.0, far / (far + _FAR)))
