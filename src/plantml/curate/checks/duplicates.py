"""Duplicates: exact, recompressed, rotated or cropped; with their label conflicts and split leaks."""

import re
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
from plantml.data import photos
from plantml.data.duplicates import Link
from plantml.data.manifest import SPLITS
from plantml.data.near_duplicates import joined

_TILE_NAMES = (r"^(.+)[_-]\d+\.\w+$", r"^(.+)[_-]\d+[_-]\d+\.\w+$")
"""Names of tiles that end in their number, or in their column and row; what comes before is the photo."""

_TURNS = {
    "flip": "flipped horizontally",
    "flip-vertical": "flipped vertically",
    "turn-180": "rotated by 180 degrees",
    "transpose": "rotated by 90 degrees and flipped",
    "turn-90": "rotated by 90 degrees",
    "turn-270": "rotated by 270 degrees",
    "transverse": "rotated by 270 degrees and flipped",
}


@dataclass(frozen=True)
class Pair:
    """Two duplicates, as indices into `Subject.pictures`, with the evidence."""

    first: int
    second: int
    code: str
    evidence: str
    score: float


def check(subject: Subject) -> Iterator[Finding]:
    """Find duplicates by the hashes stored at import."""
    pairs = list(_by_hash(subject))
    yield from _findings(subject, pairs)
    rows = subject.pictures["row"].to_list()
    for broken in subject.twins.broken:
        evidence = (
            f"the hashes link {broken.size} photos, too many to be copies;"
            f" split at distance {broken.distance} into {broken.groups} groups of at most {broken.largest}"
        )
        yield Finding("large-group", (rows[broken.first],), evidence)


def check_crops(subject: Subject) -> Iterator[Finding]:
    """Find crops and free rotations, which hashes miss, by rare keypoints, geometry and pixels."""
    pairs = by_keypoints(subject)
    yield from _findings(subject, pairs)
    _suggest_groups(subject, [pair for pair in pairs if pair.code == "overlapping"])


def by_keypoints(subject: Subject) -> list[Pair]:
    """Find pairs with common pixels by keypoints. Raises `MissingExtraError` without OpenCV."""
    rows = subject.pictures["row"].to_list()

    def read(place: int) -> bytes:
        try:
            return subject.read(rows[place])
        except photos.UNREADABLE:
            return b""  # missing since the import: `verify` reports it

    copies = keypoint_matches.find_copies(
        len(rows),
        read,
        known=subject.twins.group,
        threads=subject.machine.threads,
        progress=subject.progress("comparing photos"),
        elsewhere=subject.keypoints(subject) if subject.keypoints else None,
    )
    return [Pair(copy.first, copy.second, _CODES[copy.kind], _evidence(copy), copy.correlation) for copy in copies]


_CODES: Mapping[str, str] = {
    "resize": "near-duplicates",
    "flip": "turned-duplicates",
    "turn": "turned-duplicates",
    "crop": "cropped-duplicates",
    "overlap": "overlapping",
}


def _evidence(copy: Copy) -> str:
    how = ["flipped"] if copy.mirrored else []
    if abs(copy.angle) >= 1:
        how.append(f"rotated by {copy.angle:.0f} degrees")
    if copy.kind in {"crop", "overlap"}:
        how.append(f"{copy.first_share:.0%} of one photo is {copy.second_share:.0%} of the other")
    how.append(f"{copy.inliers} keypoints match, pixel correlation {copy.correlation:.2f}")
    return ", ".join(how)


def _by_hash(subject: Subject) -> Iterator[Pair]:
    rows = subject.pictures
    size = rows.select("width", "height", "frames").rows()
    for link in subject.twins.links:
        if link.distance < 0:
            yield Pair(link.first, link.second, "exact-duplicates", "identical bytes", 1.0)
        elif link.variant != "same":
            evidence = f"{_TURNS[link.variant]}; {link.distance} of 64 hash bits differ"
            yield Pair(link.first, link.second, "turned-duplicates", evidence, 1 - link.distance / 64)
        elif link.distance <= 2 and size[link.first] == size[link.second] and _same_pixels(subject, link):
            yield Pair(link.first, link.second, "same-pixels", "identical pixels in different files", 1.0)
        else:
            (w1, h1, _), (w2, h2, _) = size[link.first], size[link.second]
            evidence = f"{link.distance} of 64 hash bits differ; {w1} x {h1} and {w2} x {h2} pixels"
            yield Pair(link.first, link.second, "near-duplicates", evidence, 1 - link.distance / 64)


def _same_pixels(subject: Subject, link: Link) -> bool:
    rows = subject.pictures["row"]
    try:
        one, two = (imaging.full(subject.read(rows[at])) for at in (link.first, link.second))
    except photos.UNREADABLE:
        return False
    return np.array_equal(one, two)


def _findings(subject: Subject, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Yield one finding per group and kind, then the conflicts and leaks of each group."""
    for code in dict.fromkeys(pair.code for pair in pairs):
        of_kind = [pair for pair in pairs if pair.code == code]
        for members, inside in linked(of_kind):
            yield Finding(code, _best_first(subject, members), _summary(inside), min(pair.score for pair in inside))
    for members, _ in linked([pair for pair in pairs if pair.code != "overlapping"]):
        yield from _conflicts(subject, _best_first(subject, members))
        yield from _leaks(subject, _best_first(subject, members), "split-leak", "copies of one photo")
    # Tiles are no copies: each has pixels of its own, and `clean` must not exclude them.
    for members, _ in linked([pair for pair in pairs if pair.code == "overlapping"]):
        yield from _leaks(subject, _best_first(subject, members), "overlap-leak", "overlapping photos")


def linked(pairs: Sequence[Pair]) -> list[tuple[list[int], list[Pair]]]:
    """Connected components of the pairs, as indices into `Subject.pictures`, each with its pairs."""
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
    """Return the row numbers with the copy to keep first: in the test set, then most pixels, then most bytes."""
    columns = subject.pictures.select("row", "split", "width", "height", "bytes", "source", "name")
    copies = [columns.row(place) for place in members]
    rank = {name: number for number, name in enumerate(SPLITS)}
    copies.sort(key=lambda row: (-rank.get(row[1], -1), -row[2] * row[3], -row[4], row[5], row[6]))
    return tuple(int(row[0]) for row in copies)


def _conflicts(subject: Subject, rows: tuple[int, ...]) -> Iterator[Finding]:
    version = subject.version.rows
    for target in subject.class_targets:
        labels = {str(version[target.name][row]) for row in rows if version[target.name][row] is not None}
        if len(labels) > 1:
            evidence = f"{target.name}: copies of one photo have the labels {' and '.join(sorted(labels))}"
            facts = {"target": target.name, "labels": sorted(labels)}
            yield Finding("conflicting-labels", rows, evidence, 1.0, facts)


def _leaks(subject: Subject, rows: tuple[int, ...], code: str, what: str) -> Iterator[Finding]:
    splits = {split for row in rows if (split := subject.version.rows["split"][row]) is not None}
    if len(splits) > 1:
        evidence = f"{what} are in {' and '.join(name for name in SPLITS if name in splits)}"
        yield Finding(code, rows, evidence, 1.0, {"splits": sorted(splits)})


def _suggest_groups(subject: Subject, overlapping: Sequence[Pair]) -> None:
    """Note the pattern of names that groups the tiles of a photo, if one explains all overlaps."""
    names, groups = subject.pictures["name"].to_list(), subject.pictures["group"].to_list()
    if all(groups[pair.first] is not None and groups[pair.first] == groups[pair.second] for pair in overlapping):
        return
    for pattern in _TILE_NAMES:
        matches = [re.search(pattern, name) for name in names]
        photo = [match[1] if match else name for match, name in zip(matches, names, strict=True)]
        count = len(set(photo))
        if 1 < count < len(names) and all(photo[pair.first] == photo[pair.second] for pair in overlapping):
            resplit = " --resplit" if subject.usable["split"].is_not_null().any() else ""
            subject.notes.append(
                f"Photos overlap only where names differ in their last numbers, as tiles of {count} photos do."
                f" To keep these together: plantml dataset split {subject.version.url}{resplit} --group-by '{pattern}'"
            )
            return


def check_groups(subject: Subject) -> Iterator[Finding]:
    """Find user-defined groups that span several splits."""
    known = subject.usable.filter(pl.col("group").is_not_null() & pl.col("split").is_not_null())
    torn = known.group_by("group").agg(pl.col("row"), pl.col("split").unique()).filter(pl.col("split").list.len() > 1)
    for group, rows, splits in torn.sort("group").iter_rows():
        evidence = f"group {group} is in {' and '.join(name for name in SPLITS if name in splits)}"
        yield Finding("torn-group", tuple(sorted(rows)), evidence, 1.0, {"group": group})
