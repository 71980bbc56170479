"""File and class names that every reader and file system accepts."""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plantml import imaging
from plantml.data.exporters import KNOWN, ExportSet
from plantml.data.importers import SPLIT_NAMES
from plantml.data.importers.vetting import UNPRINTABLE
from plantml.data.labels import Labels, with_health
from plantml.targets import HEALTHY, NO_DISEASE, Target

NO_LABEL = "unlabelled"
"""The class name of photos without a label."""

OBJECT = "object"
"""The class name of boxes without a label."""

_LONGEST = 180
"""Longest name in bytes; leaves room for a number and an extension below 255."""

_NO_FILE = re.compile(r'[<>:"/\\|?*%#]')
_RESERVED = {"images", "labels", *SPLIT_NAMES}


def file_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A file name for each row; no two have the same stem, ignoring case.

    It is the last part of the row's name. If several rows share that, their folders are prepended, and if
    that is not enough the number of their source.
    """
    plain = [_file(posixpath.basename(row["name"]), row) for row in rows]
    whole = [_file(row["name"].replace("/", "__"), row) for row in rows]
    numbers = {source: number for number, source in enumerate(sorted({row["source"] for row in rows}), start=1)}
    last = [f"{numbers[row['source']]}-{name}" for row, name in zip(rows, whole, strict=True)]
    names = plain
    for better in (whole, last):
        counts = Counter(_key(name) for name in names)
        names = [b if counts[_key(a)] > 1 else a for a, b in zip(names, better, strict=True)]
    return _unique(names)


def _key(name: str) -> str:
    return posixpath.splitext(name)[0].casefold()


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with a number appended to repeated ones."""
    taken: set[str] = set()
    unique = []
    for name in names:
        stem, extension = posixpath.splitext(name)
        candidate, number = name, 1
        while _key(candidate) in taken:
            number += 1
            candidate = f"{stem}-{number}{extension}"
        taken.add(_key(candidate))
        unique.append(candidate)
    return unique


def _file(name: str, row: Mapping[str, Any]) -> str:
    clean = safe(_encoded(name)[-_LONGEST:].decode("utf-8", "ignore"))  # the end has the extension
    if posixpath.splitext(clean)[1].lower() not in imaging.EXTENSIONS:
        kind = row["format"] or "JPEG"
        clean += imaging.SUFFIXES.get(kind, f".{kind.lower()}")
    return clean


def _encoded(name: str) -> bytes:
    return UNPRINTABLE.sub("_", name).encode()


def safe(name: str) -> str:
    """`name` as one part of a path on any system, not hidden."""
    clean = _NO_FILE.sub("_", UNPRINTABLE.sub("_", name)).strip(" ")
    clean = clean.rstrip(" .")
    return f"_{clean}" if not clean or clean[0] == "." else clean


def main_targets(targets: Iterable[Target]) -> tuple[str, ...]:
    """The targets that make up a class name: category, health and disease, or else the first class target."""
    classes = [target.name for target in targets if target.kind == "class"]
    return tuple(name for name in KNOWN if name in classes) or tuple(classes[:1])


class ClassNames:
    """One name for each combination of labels, such as `Tomato___rust`, and back.

    Args:
        every: all combinations that occur.
        empty: the name for no labels.
        folders: true if the names become folders.
    """

    def __init__(self, every: Iterable[Labels], *, empty: str, folders: bool = False) -> None:
        distinct = {_canonical(labels): dict(labels) for labels in every}
        self.meaning: dict[str, Labels] = {}
        self._names: dict[str, str] = {}
        taken: set[str] = set()
        for key in sorted(distinct):
            name = first = class_name(distinct[key], empty, folders=folders)
            number = 1
            while name.casefold() in taken:
                number += 1
                name = f"{first}_{number}"
            taken.add(name.casefold())
            self.meaning[name] = distinct[key]
            self._names[key] = name

    def __getitem__(self, labels: Labels) -> str:
        return self._names[_canonical(labels)]

    @property
    def ordered(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.meaning)


def box_names(content: ExportSet) -> ClassNames:
    """The names of all boxes."""
    return ClassNames((box.classes for photo in content.photos for box in photo.boxes or ()), empty=OBJECT)


def _canonical(labels: Labels) -> str:
    return json.dumps(dict(labels), sort_keys=True)


def class_name(labels: Labels, empty: str, *, folders: bool = False) -> str:
    """A combination of labels as one class name, such as `Tomato___rust`; `empty` if there are none."""
    left = dict(labels)
    if {"disease", "health"} <= set(left) and left["health"] == with_health({"disease": left["disease"]}).get("health"):
        del left["health"]  # the disease implies it
    if left.get("disease") == NO_DISEASE:
        left["disease"] = HEALTHY
    order = [name for name in KNOWN if name in left]
    parts = [left[name] for name in (*order, *sorted(set(left) - set(order)))]
    name = UNPRINTABLE.sub("_", "___".join(parts)).strip() if parts else empty
    if folders:
        name = safe(_encoded(name)[:_LONGEST].decode("utf-8", "ignore"))
        return f"{name}_" if name.lower() in _RESERVED else name
    return name or "_"
