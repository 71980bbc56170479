"""Annotations with class names, and their conversion to items."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from plantml.data import labels as label_rules
from plantml.data.boxes import Box
from plantml.data.importers import ImportListing, Item
from plantml.data.importers.sidecar import Sidecar
from plantml.data.importers.vetting import MAX_PIXELS
from plantml.data.labels import Labels, Taxonomy
from plantml.data.manifest import SYSTEM
from plantml.errors import InputError
from plantml.targets import Target, is_target

if TYPE_CHECKING:
    from plantml.data.importers.tree import Tree

_OF_CVAT = {"occluded", "rotation", "track_id", "keyframe"}
"""Attributes that CVAT adds to every box: how it was drawn, not what it shows."""


@dataclass(frozen=True)
class Reading:
    """Options for reading a source; see `formats.list_source`. `sidecar` is that of an export by plantml."""

    rule: str = "auto"
    taxonomy: Taxonomy | None = None
    targets: Sequence[str] = ()
    image_column: str | None = None
    group_column: str | None = None
    sidecar: Sidecar | None = None

    def names(self, names: Iterable[str]) -> Taxonomy:
        """What the class names of a source mean."""
        if self.taxonomy is not None:
            return self.taxonomy
        if self.sidecar is None or self.rule != "auto":
            return label_rules.read_names(names, self.rule)
        others = set(names) - set(self.sidecar.classes)
        meaning = {**self.sidecar.classes, **label_rules.read_names(others).meaning}
        return Taxonomy(meaning, "from the export's plantml.json")


@dataclass(frozen=True, slots=True)
class NamedBox:
    """An annotated box: pixels of the upright photo, a class name or `None`, and labels by target."""

    x: float
    y: float
    w: float
    h: float
    name: str | None = None
    labels: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Annotated:
    """The annotation of one photo.

    Attributes:
        name: relative to the source.
        url: where its bytes are.
        classes: of the whole photo, as the source writes them.
        labels: of the whole photo, if the source names their targets too.
        boxes: `None` if not annotated, empty if annotated without boxes.
        split: `train`, `val`, `test` or `None`.
        size: (width, height) according to the annotation.
        reason: why the photo cannot be used; empty if it can.
    """

    name: str
    url: str
    classes: Sequence[str] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)
    boxes: Sequence[NamedBox] | None = None
    split: str | None = None
    size: tuple[int, int] | None = None
    reason: str = ""


def assemble(
    photos: Iterable[Annotated], reading: Reading, skipped: Mapping[str, int], notes: Iterable[str] = ()
) -> ImportListing:
    """Items of annotated photos: class names become labels, of photos and of boxes alike.

    A target becomes multilabel as soon as one photo has two classes of it.
    """
    photos = sorted(photos, key=lambda photo: photo.name)
    names = {name for photo in photos for name in photo.classes}
    names |= {box.name for photo in photos for box in photo.boxes or () if box.name is not None}
    taxonomy = reading.names(names)
    labels_of_photos = [_by_target([taxonomy(name) for name in photo.classes], photo.labels) for photo in photos]
    kinds: dict[str, Literal["class", "multilabel"]] = {}
    for labels in labels_of_photos:
        for target, classes in labels.items():
            several = len(classes) != 1 or kinds.get(target) == "multilabel"
            kinds[target] = "multilabel" if several else "class"
    items = tuple(
        Item(
            photo.name,
            photo.url,
            labels={key: value if kinds[key] == "multilabel" else value[0] for key, value in labels.items()},
            split=photo.split,
            boxes=None if photo.boxes is None else tuple(_box(box, taxonomy) for box in photo.boxes),
            size=photo.size,
            meta={"class": "|".join(photo.classes)} if photo.classes and reading.rule != "none" else {},
            status="excluded" if photo.reason else "ok",
            reason=photo.reason,
        )
        for photo, labels in zip(photos, labels_of_photos, strict=True)
    )
    targets = tuple(Target(name, kind) for name, kind in kinds.items())
    return ImportListing(items, targets, taxonomy.rule, dict(skipped), tuple(notes), tuple(sorted(names)))


def _by_target(classes: Iterable[Labels], labels_of_photo: Mapping[str, Any]) -> dict[str, list[str]]:
    by_target: dict[str, list[str]] = {}
    for labels in [*classes, *({key: value} for key, value in labels_of_photo.items())]:
        for target, value in labels.items():
            new = value if isinstance(value, list) else [value]
            known = by_target.setdefault(target, [])
            known += [label for label in new if label not in known]
    return by_target


def _box(box: NamedBox, taxonomy: Taxonomy) -> Box:
    by_name = {} if box.name is None else taxonomy(box.name)
    return Box(box.x, box.y, box.w, box.h, {**by_name, **box.labels})


def files_of(tree: "Tree", file: str | None, fits: Callable[[Any], bool], name: str, content: str) -> list[str]:
    """The one file, or the JSON files of a tree that are of a format with this content.

    Raises:
        InputError: there is none, or the one is not of the format.
    """
    files = [file] if file else [each for each, parsed in tree.annotation_files() if fits(parsed)]
    if not files:
        raise InputError(
            f"There is no {name} file in {tree.url}",
            f"none of its .json files has {content}",
            "Name the annotation file itself, or choose another --format.",
        )
    for each in files:
        if not fits(tree.json(each)):
            raise InputError(
                f"{tree.url_of(each)} is not {name}",
                f"it needs {content}",
                "Export it again, or choose another --format.",
            )
    return files


def attribute_labels(attributes: Any, notes: Counter[str]) -> dict[str, str | float]:
    """Labels by the attributes of an annotation, as CVAT has them: `{"health": "diseased", "severity": 0.2}`."""
    labels: dict[str, str | float] = {}
    for name, value in attributes.items() if isinstance(attributes, Mapping) else ():
        is_value = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name in _OF_CVAT or value in ("", None):
            continue
        if is_target(name, SYSTEM) and (is_value or isinstance(value, str)):
            labels[name] = value
        else:
            notes["Attributes of boxes that are not named like targets, or neither text nor number"] += 1
    return labels


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """The size according to an annotation; `None` if it is missing or impossible."""
    try:
        size = round(float(width)), round(float(height))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 and max(size) < MAX_PIXELS else None


def counted(notes: Counter[str]) -> list[str]:
    """Notes with their counts."""
    return [f"{text}: {number}." for text, number in notes.items()]


_MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
"""What reading malformed foreign data raises."""


@contextlib.contextmanager
def understood(url: str) -> Iterator[None]:
    """Turn an exception over malformed foreign data into an `InputError` that names the file."""
    try:
        yield
    except _MALFORMED as error:
        raise InputError(
            f"{url} does not follow its format",
            f"{type(error).__name__}: {error}".splitlines()[0][:300],
            "Compare it with docs/formats.md.",
        ) from error
