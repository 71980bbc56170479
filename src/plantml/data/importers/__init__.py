"""Importers: one file per format.

An importer is a function from a tree and options to an `ImportListing`; it reads labels and names, never pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from plantml.data.boxes import Box
from plantml.targets import Target


@dataclass(frozen=True, slots=True)
class Item:
    """One photo of a source, or a row of a table without a photo.

    Attributes:
        name: its path relative to the source; of a row without a photo, one that stays the same.
        url: where its bytes are; empty if there is no photo.
        labels: by target name; missing targets are not labelled.
        split: `train`, `val`, `test`, or `None`.
        group: photos of a group stay in one split; `None` for none.
        boxes: in pixels of the upright photo; `None` if not annotated, empty if annotated without boxes.
        size: (width, height) of the photo according to the annotation, or `None`.
        meta: other columns, as text.
        status: `ok`, `no-photo`, or `excluded` if the source itself rules the photo out.
        reason: why it is excluded; empty if it is not.
        bytes: size of the file; -1 if the listing does not give it.
        refusal: why its bytes must not be read, see `addresses.refusal`; empty if they may.
    """

    name: str
    url: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
    boxes: Sequence[Box] | None = None
    size: tuple[int, int] | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    status: Literal["ok", "no-photo", "excluded"] = "ok"
    reason: str = ""
    bytes: int = -1
    refusal: str = ""


@dataclass(frozen=True)
class ImportListing:
    """All photos of a source, and what was skipped.

    Attributes:
        items: in the order of their names.
        targets: kinds and units; classes are filled in later, from the rows.
        rule: how labels were read, as text.
        skipped: number of skipped files, by reason.
        notes: sentences for the user.
        classes: the class names of the source, before the rule or taxonomy.
    """

    items: tuple[Item, ...]
    targets: tuple[Target, ...]
    rule: str
    skipped: Mapping[str, int]
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Split by the words that people use for it."""


def split_of(path: str) -> str | None:
    """The split in a path: that of the first folder named like a split."""
    words = (folder.lower() for folder in path.split("/")[:-1])
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
