"""Labels: class names with one meaning, very small classes, and contradictory labels."""

import re
from collections import defaultdict
from collections.abc import Iterator
from difflib import SequenceMatcher

import polars as pl

from plantml import storage
from plantml.curate.context import Subject
from plantml.curate.findings import Finding, count
from plantml.targets import DISEASED, HEALTHY, NO_DISEASE, Target

_TINY = 10
_UNEQUAL = 20.0
_COUNT = re.compile(r"[\s_(]+\d{2,}\)?$")
_NUMBERED = 0.2
"""Share of file names in several classes from which files are assumed to be numbered class by class."""


def check(subject: Subject) -> Iterator[Finding]:
    """Check the labels of every class target."""
    if subject.usable.is_empty():
        yield Finding("no-photos", (), "all photos are excluded, or there are none", 1.0)
        return
    for target in subject.class_targets:
        counts = dict(subject.usable[target.name].drop_nulls().value_counts().sort(target.name).iter_rows())
        yield from _similar(subject.usable, target, counts)
        yield from _sizes(subject.usable, target, counts)
    yield from _impossible(subject)
    yield from _missing(subject)
    yield from _same_names(subject)


def canonical(name: str) -> str:
    """Normalise a class name: no case, no separators, and no stray count at its end."""
    words = re.sub(r"[\s_\-./]+", " ", name.casefold()).strip()
    return re.sub(r"[ (]*\d+\)?$", "", words) or words


def _singular(name: str) -> str:
    return " ".join(word if word.endswith("ss") else re.sub(r"(?<=[a-z]{3})s$", "", word) for word in name.split())


def _similar(rows: pl.DataFrame, target: Target, counts: dict[str, int]) -> Iterator[Finding]:
    clusters: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        clusters[canonical(name)].append(name)
    # Keep a name without a count, and the one with the most photos.
    names = {
        meant: min(names, key=lambda name: (bool(_COUNT.search(name)), -counts[name], name))
        for meant, names in clusters.items()
    }
    order = sorted(names, key=lambda meant: (-counts[names[meant]], meant))
    for place, one in enumerate(order):
        preferred = names[one]
        for name in sorted(set(clusters[one]) - {preferred}):
            why = "differ only in case, separators or a count"
            yield _alike(rows, target, counts, (name, preferred), why, sure=True)
        other = next((two for two in order[:place] if _nearly(one, two)), None)
        if other is not None:
            yield _alike(rows, target, counts, (preferred, names[other]), "have almost the same spelling", sure=False)
        elif (stripped := _COUNT.sub("", preferred)) != preferred:
            yield _alike(
                rows, target, counts, (preferred, stripped), "ends in a number that looks like a count", sure=True
            )


def _nearly(one: str, two: str) -> bool:
    shorter = min(len(one), len(two))
    return _singular(one) == _singular(two) or (shorter >= 5 and _edits(one, two) <= max(1, shorter // 8))


def _alike(
    rows: pl.DataFrame, target: Target, counts: dict[str, int], names: tuple[str, str], why: str, *, sure: bool
) -> Finding:
    name, like = names
    members = rows.filter(pl.col(target.name) == name)["row"].to_list()
    other = f" and {like!r} ({counts[like]})" if like in counts else ""
    evidence = f"{target.name}: {name!r} ({count(counts[name], 'photo')}){other} {why}"
    facts = {"target": target.name, "name": name, "like": like, "sure": sure}
    return Finding("similar-classes", tuple(members), evidence, 1.0 if sure else 0.5, facts)


def _edits(one: str, two: str) -> int:
    """An upper bound of the edit distance."""
    steps = SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    return sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in steps if tag != "equal")


def _sizes(rows: pl.DataFrame, target: Target, counts: dict[str, int]) -> Iterator[Finding]:
    if len(counts) == 1:
        evidence = f"{target.name}: all labelled photos are {next(iter(counts))!r}"
        yield Finding("single-class", (), evidence, facts={"target": target.name})
    for name, number in counts.items():
        if number < _TINY:
            members = rows.filter(pl.col(target.name) == name)["row"].to_list()
            facts = {"target": target.name, "class": name, "photos": number}
            yield Finding(
                "tiny-class", tuple(members), f"{target.name} {name!r} has {count(number, 'photo')}", 0.5, facts
            )
    if counts and max(counts.values()) > _UNEQUAL * min(counts.values()):
        most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
        ratio = counts[most] / counts[least]
        evidence = (
            f"{target.name}: {counts[most]} photos of {most!r}, {counts[least]} of {least!r}, a ratio of {ratio:.0f}"
        )
        yield Finding("imbalance", (), evidence, facts={"target": target.name, "ratio": ratio})


def _impossible(subject: Subject) -> Iterator[Finding]:
    names = {target.name for target in subject.class_targets}
    if not {"health", "disease"} <= names:
        return
    sick, none = pl.col("disease") != NO_DISEASE, pl.col("disease") == NO_DISEASE
    bad = (pl.col("health") == HEALTHY) & sick | (pl.col("health") == DISEASED) & none
    for row, health, disease in subject.usable.filter(bad).select("row", "health", "disease").iter_rows():
        yield Finding("impossible-labels", (row,), f"health {health!r} with disease {disease!r}", 1.0)


def _missing(subject: Subject) -> Iterator[Finding]:
    for target in subject.version.targets:
        unlabelled = subject.usable.filter(pl.col(target.name).is_null())["row"].to_list()
        if unlabelled:
            share = len(unlabelled) / subject.usable.height
            evidence = f"{target.name}: {len(unlabelled)} of {subject.usable.height} photos ({share:.0%})"
            yield Finding("missing-labels", tuple(unlabelled), evidence, share, {"target": target.name})


def _same_names(subject: Subject) -> Iterator[Finding]:
    targets = [target.name for target in subject.class_targets]
    if not targets:
        return
    by_name: dict[str, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
    for row, name, *labels in subject.usable.select("row", "name", *targets).iter_rows():
        by_name[storage.basename(name).casefold()].append((row, tuple(str(label) for label in labels)))
    several = {name: rows for name, rows in by_name.items() if len({labels for _, labels in rows}) > 1}
    if len(several) > _NUMBERED * len(by_name) and len(several) > 3:
        subject.notes.append(
            f"{len(several)} of {len(by_name)} file names occur in several classes: files are numbered class by class."
        )
        return
    for name, rows in several.items():
        classes = sorted({" / ".join(labels) for _, labels in rows})
        yield Finding("same-name", tuple(row for row, _ in rows), f"{name} is in {', '.join(classes)}", 0.5)
