"""What a probe on embeddings says: labels that pictures contradict, and pictures that are like no other.

And what probes say that see no plant: only the border, or only facts of the file.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml.curate import nearest_neighbours
from plantml.curate.checks.pictures import deviations
from plantml.curate.context import Subject
from plantml.curate.findings import Finding
from plantml.curate.probe import Probed, probe
from plantml.errors import MissingExtraError
from plantml.targets import Target

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_NEIGHBOURS = 5
_FAR = 4.5
_SURE, _WEAK = 0.9, 0.9
_OTHERS = 50_000
_TELLS = 0.2
"""A probe that sees no plant is a finding if it names so much more of the photos than the commonest class is."""

_FACTS = ("width", "height", "bytes", "jpeg_quality", "orientation", "frames", "brightness", "contrast", "sharpness")
_WORDS = ("format", "mode", "camera")


def check_labels(subject: Subject) -> Iterator[Finding]:
    """Suspicious labels by confident learning (Northcutt et al. 2021, "Confident Learning", by cleanlab)."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError as error:
        raise MissingExtraError("Label checks are not installed", str(error), extra="curate") from error
    rows, vectors, groups = _embedded(subject)
    for target in subject.class_targets:
        labels = subject.version.rows[target.name].gather(rows).to_list()
        found = probe(vectors, labels, groups, threads=subject.machine.threads)
        if found is None:
            subject.notes.append(f"{target.name}: too few photos a class to look for suspicious labels.")
            continue
        weak = "; a trained model (--model RUN) sees more" if found.accuracy < _WEAK else ""
        subject.notes.append(f"{target.name}: a linear probe on embeddings is right for {found.accuracy:.1%}{weak}.")
        issues = find_label_issues(found.labels, found.probabilities, filter_by="both", n_jobs=1)
        scores = get_label_quality_scores(found.labels, found.probabilities)
        given = found.probabilities[np.arange(len(found.labels)), found.labels]
        # A weak probe contradicts many labels half-heartedly; only what it is sure of is worth a look.
        sure = (found.probabilities.max(axis=1) > _SURE) & (given < 1 - _SURE)
        for at in np.flatnonzero(issues & sure):
            yield _suspicious(target, found, int(at), int(rows[found.rows[at]]), 1 - float(scores[at]))


def _suspicious(target: Target, found: Probed, at: int, row: int, score: float) -> Finding:
    said, likely = found.classes[found.labels[at]], found.classes[int(found.probabilities[at].argmax())]
    given, best = found.probabilities[at, found.labels[at]], found.probabilities[at].max()
    evidence = f"{target.name} {said!r} ({given:.0%}); it looks like {likely!r} ({best:.0%})"
    facts = {"target": target.name, "label": said, "likely": likely, "probability": round(float(best), 4)}
    return Finding("suspicious-label", (row,), evidence, score, facts)


def check_outliers(subject: Subject) -> Iterator[Finding]:
    """Pictures far from their nearest neighbours: in the whole set, and in their class."""
    rows, vectors, groups = _embedded(subject)
    if len(rows) < 10 * _NEIGHBOURS:
        subject.notes.append("Too few photos to look for outliers.")
        return
    points, _ = nearest_neighbours.principal(vectors, 0.9)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    away = _away(points, groups)
    far = deviations(np.log(away + 1e-3))
    for at in np.flatnonzero(far > _FAR):
        evidence = f"cosine distance {away[at]:.2f} to its nearest pictures; the median is {np.median(away):.2f}"
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
                    f"cosine distance {apart[at]:.2f} to the nearest pictures of {target.name} {name!r};"
                    f" the median is {np.median(apart):.2f}"
                )
                yield Finding("unlike-class", (int(rows[own[at]]),), evidence, _score(off[at]), {"target": target.name})


def _away(vectors: Floats, groups: Ints) -> NDArray[np.float64]:
    """Mean cosine distance of each vector to its nearest vectors of other groups, among 50,000 of them at most."""
    others = np.arange(len(vectors))
    if len(others) > _OTHERS:
        others = np.sort(np.random.default_rng(0).choice(others, _OTHERS, replace=False))
    _, cosines = nearest_neighbours.nearest(vectors, vectors[others], _NEIGHBOURS, apart=(groups, groups[others]))
    found: NDArray[np.float64] = 1 - np.where(cosines > -1.5, cosines, 0).mean(axis=1, dtype=np.float64)
    return found


def check_shortcuts(subject: Subject) -> Iterator[Finding]:
    """How much of the accuracy needs no plant."""
    pictures = subject.pictures
    groups = _groups(subject, pictures)
    borders = pictures["border"].to_list()
    pixels = np.frombuffer(b"".join(borders), np.uint8).reshape(len(borders), -1).astype(np.float32)
    for target in subject.class_targets:
        labels = pictures[target.name].to_list()
        for code, features, what in (
            ("shortcut-border", pixels, "8 pixels of the border"),
            ("shortcut-file", _facts(pictures), "facts of the file (size, quality, light, camera)"),
        ):
            found = probe(features, labels, groups, kind="trees", threads=subject.machine.threads)
            if found is None:
                continue
            numbers = (
                f"{found.accuracy:.0%} of {target.name} right; always {found.commonest:.0%} by the commonest class"
            )
            subject.notes.append(f"A probe that sees only {what} has {numbers}.")
            # Two standard errors guard small sets against chance.
            chance = 2 * (found.commonest * (1 - found.commonest) / len(found.labels)) ** 0.5
            if found.accuracy > found.commonest + max(_TELLS, chance):
                facts = {"target": target.name, "accuracy": found.accuracy, "commonest": found.commonest}
                yield Finding(code, (), f"a probe that sees only {what} has {numbers}", found.accuracy, facts)


def _facts(rows: pl.DataFrame) -> Floats:
    """What the file tells without its pixels' places: float32 [N, F]."""
    numbers = rows.select(pl.col(name).cast(pl.Float32).fill_null(-1) for name in _FACTS)
    words = rows.select(pl.col(name).fill_null("").rank("dense").cast(pl.Float32) for name in _WORDS)
    dense = rows.select((pl.col("bytes") / (pl.col("width").cast(pl.Int64) * pl.col("height"))).cast(pl.Float32))
    return np.concatenate([numbers.to_numpy(), words.to_numpy(), dense.to_numpy()], axis=1).astype(np.float32)


def _embedded(subject: Subject) -> tuple[Ints, Floats, Ints]:
    """Numbers of the rows that have a vector, their vectors, and their groups."""
    place, vectors = subject.embedding
    have = place >= 0
    rows = subject.pictures["row"].to_numpy().astype(np.int64)[have]
    return rows, vectors[place[have]], _groups(subject, subject.pictures)[have]


def _groups(subject: Subject, pictures: pl.DataFrame) -> Ints:
    """Groups of `pictures`, those that the user named and those of copies joined."""
    from plantml.data.splits import group_keys

    keys, _ = group_keys(pictures.with_columns(twin=pl.Series(subject.twins.group)), ("group", "twin"))
    return np.array(keys, np.int64)


def _score(far: float) -> float:
    return float(min(1.0, far / (far + _FAR)))
