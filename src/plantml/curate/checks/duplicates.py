"""Copies: exact, in another container, near, turned, cropped; what they say differently, and where they leak."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from plantml import imaging
from plantml.curate import keypoint_matches
from plantml.curate.context import Subject
from plantml.curate.findings import Finding
from plantml.curate.keypoint_matches import Copy
from plantml.data.duplicates import Link
from plantml.data.manifest import SPLITS
from plantml.data.near_duplicates import joined
from plantml.errors import InputError

_TURNS = {
    "flip": "flipped left to right",
    "flip-vertical": "flipped upside down",
    "turn-180": "turned by 180 degrees",
    "transpose": "turned by 90 degrees and flipped",
    "turn-90": "turned by 90 degrees",
    "turn-270": "turned by 270 degrees",
    "transverse": "turned by 270 degrees and flipped",
}


@dataclass(frozen=True)
class Pair:
    """Two of `Subject.pictures`, by place, that show one thing, and what says so."""

    first: int
    second: int
    code: str
    evidence: str
    score: float


def check(subject: Subject) -> Iterator[Finding]:
    """Copies that the hashes of an import tell, without any network."""
    pairs = list(_by_hash(subject))
    yield from _told(subject, pairs)
    rows = subject.pictures["row"].to_list()
    for broken in subject.twins.broken:
        evidence = (
            f"{broken.size} pictures hang together by their hashes, too many to be copies;"
            f" taken apart at distance {broken.distance} into {broken.groups} groups of at most {broken.largest}"
        )
        yield Finding("large-group", (rows[broken.first],), evidence)


def check_crops(subject: Subject) -> Iterator[Finding]:
    """Crops and free turns, which hashes miss: candidates by rare keypoints, verified by geometry and pixels."""
    yield from _told(subject, by_keypoints(subject))


def by_keypoints(subject: Subject) -> list[Pair]:
    """Pairs that show the same pixels, wholly or in part. Raises `MissingExtraError` without opencv."""
    rows = subject.pictures["row"].to_list()

    def read(place: int) -> bytes:
        try:
            return subject.read(rows[place])
        except InputError:
            return b""  # gone since it was imported: `verify` tells

    found = keypoint_matches.find_copies(
        len(rows),
        read,
        known=subject.twins.group,
        threads=subject.machine.threads,
        progress=subject.progress("comparing photos"),
    )
    return [Pair(copy.first, copy.second, _CODES[copy.kind], _told_of(copy), copy.correlation) for copy in found]


_CODES: Mapping[str, str] = {
    "resize": "near-duplicates",
    "flip": "turned-duplicates",
    "turn": "turned-duplicates",
    "crop": "cropped-duplicates",
    "overlap": "overlapping",
}


def _told_of(copy: Copy) -> str:
    how = ["flipped"] if copy.mirrored else []
    if abs(copy.angle) >= 1:
        how.append(f"turned by {copy.angle:.0f} degrees")
    if copy.kind in {"crop", "overlap"}:
        how.append(f"{copy.first_share:.0%} of one is {copy.second_share:.0%} of the other")
    how.append(f"{copy.inliers} keypoints agree, pixels correlate {copy.correlation:.2f}")
    return ", ".join(how)


def _by_hash(subject: Subject) -> Iterator[Pair]:
    rows = subject.pictures
    size = rows.select("width", "height", "frames").rows()
    for link in subject.twins.links:
        if link.distance < 0:
            yield Pair(link.first, link.second, "exact-duplicates", "the same bytes", 1.0)
        elif link.variant != "same":
            evidence = f"{_TURNS[link.variant]}; {link.distance} of 64 bits differ"
            yield Pair(link.first, link.second, "turned-duplicates", evidence, 1 - link.distance / 64)
        elif link.distance <= 2 and size[link.first] == size[link.second] and _same_pixels(subject, link):
            yield Pair(link.first, link.second, "same-pixels", "the files differ, but no pixel does", 1.0)
        else:
            (w1, h1, _), (w2, h2, _) = size[link.first], size[link.second]
            evidence = f"{link.distance} of 64 bits differ; {w1} x {h1} and {w2} x {h2} pixels"
            yield Pair(link.first, link.second, "near-duplicates", evidence, 1 - link.distance / 64)


def _same_pixels(subject: Subject, link: Link) -> bool:
    rows = subject.pictures["row"]
    try:
        one, two = (imaging.full(subject.read(rows[at])) for at in (link.first, link.second))
    except InputError:
        return False
    return np.array_equal(one, two)


def _told(subject: Subject, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """One finding a group and kind, then what is wrong inside each group."""
    for code in dict.fromkeys(pair.code for pair in pairs):
        of_kind = [pair for pair in pairs if pair.code == code]
        for members, inside in linked(of_kind):
            yield Finding(code, _best_first(subject, members), _summary(inside), min(pair.score for pair in inside))
    for members, _ in linked([pair for pair in pairs if pair.code != "overlapping"]):
        yield from _conflicts(subject, _best_first(subject, members))
    for members, _ in linked(pairs):
        yield from _leaks(subject, _best_first(subject, members))


def linked(pairs: Sequence[Pair]) -> list[tuple[list[int], list[Pair]]]:
    """Places of `Subject.pictures` that hang together, and the pairs that hold them."""
    places = sorted({place for pair in pairs for place in (pair.first, pair.second)})
    count = places[-1] + 1 if places else 0
    root = joined([pair.first for pair in pairs], [pair.second for pair in pairs], count)
    members, inside = defaultdict(list), defaultdict(list)
    for place in places:
        members[root[place]].append(place)
    for pair in pairs:
        inside[root[pair.first]].append(pair)
    return [(members[at], inside[at]) for at in sorted(members)]


def _summary(pairs: Sequence[Pair]) -> str:
    texts = list(dict.fromkeys(pair.evidence for pair in pairs))
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")


def _best_first(subject: Subject, members: Sequence[int]) -> tuple[int, ...]:
    """Row numbers, the copy to keep first: in the test set, then of most pixels, then of most bytes."""
    columns = subject.pictures.select("row", "split", "width", "height", "bytes", "source", "name")
    found = [columns.row(place) for place in members]
    rank = {name: number for number, name in enumerate(SPLITS)}
    found.sort(key=lambda row: (-rank.get(row[1], -1), -row[2] * row[3], -row[4], row[5], row[6]))
    return tuple(int(row[0]) for row in found)


def _conflicts(subject: Subject, rows: tuple[int, ...]) -> Iterator[Finding]:
    version = subject.version.rows
    for target in subject.class_targets:
        labels = {str(version[target.name][row]) for row in rows if version[target.name][row] is not None}
        if len(labels) > 1:
            evidence = f"{target.name}: copies of one picture are called {' and '.join(sorted(labels))}"
            facts = {"target": target.name, "labels": sorted(labels)}
            yield Finding("conflicting-labels", rows, evidence, 1.0, facts)


def _leaks(subject: Subject, rows: tuple[int, ...]) -> Iterator[Finding]:
    splits = {split for row in rows if (split := subject.version.rows["split"][row]) is not None}
    if len(splits) > 1:
        evidence = f"copies of one picture are in {' and '.join(name for name in SPLITS if name in splits)}"
        yield Finding("split-leak", rows, evidence, 1.0, {"splits": sorted(splits)})


def check_groups(subject: Subject) -> Iterator[Finding]:
    """Groups that the user named, and that a split tore apart."""
    known = subject.usable.filter(pl.col("group").is_not_null() & pl.col("split").is_not_null())
    torn = known.group_by("group").agg(pl.col("row"), pl.col("split").unique()).filter(pl.col("split").list.len() > 1)
    for group, rows, splits in torn.sort("group").iter_rows():
        evidence = f"group {group} is in {' and '.join(name for name in SPLITS if name in splits)}"
        yield Finding("torn-group", tuple(sorted(rows)), evidence, 1.0, {"group": group})
