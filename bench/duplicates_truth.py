"""Which pairs of a drawn set are copies, and how many of them a tool found. Needs nothing but Python."""

import csv
import json
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

_COPIES = ("exact_duplicate", "near_duplicate", "leak", "conflicting_label")


def photos(folder: str) -> list[Path]:
    """All files of the set, those that are no pictures left out: not every tool survives them."""
    with Path(folder, "truth.csv").open() as file:
        broken = {line["image"] for line in csv.DictReader(file) if line["defect"] in {"zero_bytes", "truncated"}}
    found = sorted(Path(folder, "images").rglob("photo-*"))
    return [path for path in found if str(path.relative_to(folder)) not in broken]


def judge(folder: str, name: str, groups: Iterable[Iterable[str]]) -> None:
    """Compare groups of file names with the truth, and write recall and precision down as `NAME.json`.

    Flips, turns and crops, which none of the tools is asked for here, count neither way.
    """
    source = {}
    with Path(folder, "truth.csv").open() as file:
        for line in csv.DictReader(file):
            if line["of"]:
                source[Path(line["image"]).name] = (Path(line["of"]).name, line["defect"])
    found = {pair for group in groups for pair in combinations(sorted(group), 2)}
    by_source: dict[str, set[str]] = {}
    for image, (of, defect) in source.items():
        if defect in _COPIES:
            by_source.setdefault(of, {of}).add(image)
    expected = {pair for group in by_source.values() for pair in combinations(sorted(group), 2)}

    def root(image: str) -> str:
        return source.get(image, (image, ""))[0]

    wrong = sum(root(one) != root(other) for one, other in found)
    right = len(found & expected)
    figures = {"recall": right / len(expected), "precision": right / max(1, right + wrong)}
    Path(folder, f"{name}.json").write_text(json.dumps(figures))
