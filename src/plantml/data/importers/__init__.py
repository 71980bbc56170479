"""From a source to items: one file a format, one table of them.

An importer is a function from a source and options to an `Listing`; it reads labels and names, never pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from plantml.data.boxes import Box
from plantml.targets import Target


@dataclass(frozen=True, slots=True)
class Item:
    """One file that a source names.

    Attributes:
        name: its path relative to the source.
        url: where its bytes are.
        labels: by target name; a target that is not named is not labelled.
        split: `train`, `val`, `test`, or `None`.
        group: what must not be torn apart, or `None`.
        boxes: in pixels of the upright photo; `None` if nobody drew any, empty if there is nothing to draw.
        size: (width, height) that the annotation claims for the photo, or `None`.
        meta: other columns that came along, as text.
        status: `ok`, or `excluded` where the source itself says that the photo is not to be used.
        reason: why it is excluded; empty if it is not.
        bytes: how long the file is, where the listing tells; else -1.
        refusal: why its bytes are not read, as `addresses.refusal` says; empty if they are.
    """

    name: str
    url: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
    boxes: Sequence[Box] | None = None
    size: tuple[int, int] | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    status: Literal["ok", "excluded"] = "ok"
    reason: str = ""
    bytes: int = -1
    refusal: str = ""


@dataclass(frozen=True)
class Listing:
    """All that a source names, and what was passed over.

    Attributes:
        items: in the order of their names.
        targets: kinds and units; classes are filled in later, from the rows.
        rule: in words, how labels were read.
        skipped: number of files passed over, by reason.
        notes: sentences that the user should see.
        classes: the names that the rule or taxonomy read, as the source writes them.
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
"""The words that name a split, and the split they name."""


def split_of(path: str) -> str | None:
    """The split that a path's folders name: the first one that is called like a split."""
    words = (folder.lower() for folder in path.split("/")[:-1])
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
