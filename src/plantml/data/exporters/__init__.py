"""From a dataset to the formats of others: one file a format, one table of them in `plantml.data.exporting`.

An exporter is a function from a `Set` and an `Output` to `Written`. It puts photos and files there as it
goes; what a reader looks for first it hands back, to be written last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plantml.data.boxes import Box
from plantml.data.importers.sidecar import Sidecar
from plantml.data.manifest import Version
from plantml.targets import Target

KNOWN = ("category", "health", "disease")
UNASSIGNED = "unassigned"
"""The folder of photos without a split, where others have one."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One row to export.

    Attributes:
        file: its file name in the export, without folders; no other photo has the same stem.
        url: where its bytes are.
        row: of the manifest.
        labels: by target name; only where it is labelled.
        boxes: `None` if nobody drew any.
    """

    file: str
    url: str
    row: Mapping[str, Any]
    labels: Mapping[str, Any]
    boxes: tuple[Box, ...] | None

    @property
    def stem(self) -> str:
        """The file name without its extension."""
        return self.file.rpartition(".")[0]

    @property
    def split(self) -> str | None:
        """`train`, `val`, `test` or `None`."""
        split: str | None = self.row["split"]
        return split

    @property
    def group(self) -> str | None:
        """What a split must not tear apart."""
        group: str | None = self.row["group"]
        return group


@dataclass(frozen=True)
class Set:
    """What is exported of a version.

    Attributes:
        version: that it is of.
        photos: in the order of their file names.
    """

    version: Version
    photos: tuple[Photo, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """Of the version."""
        return self.version.targets

    @property
    def is_split(self) -> bool:
        """True if some photo has a split."""
        return any(photo.split for photo in self.photos)

    @property
    def has_boxes(self) -> bool:
        """True if some photo has a box."""
        return any(photo.boxes for photo in self.photos)

    def folder(self, photo: Photo) -> str:
        """The folder of the photo's split, or an empty string where the set has none."""
        return (photo.split or UNASSIGNED) if self.is_split else ""


@dataclass(frozen=True)
class Written:
    """What an exporter did.

    Attributes:
        main: name and bytes of the file that is written last; `None` if the sidecar is it.
        sidecar: what the format cannot say; `None` if it says all, or is not read back.
        counts: of what was written, by what it is: `photos`, `boxes`…
        notes: sentences that the user should see.
    """

    main: tuple[str, bytes] | None
    sidecar: Sidecar | None
    counts: Mapping[str, int]
    notes: Sequence[str] = field(default=())


def path(*parts: str) -> str:
    """A name in an export from its parts; empty ones are left out."""
    return "/".join(part for part in parts if part)


def rest(
    photo: Photo, *, targets: Sequence[str] = (), split: str | None = None, boxes: Sequence[Box] | None = None
) -> dict[str, Any]:
    """What a sidecar must say of a photo, given what a reader of the format alone finds.

    Args:
        photo: as it is in the dataset.
        targets: whose labels the format says.
        split: that the format says.
        boxes: that the format says; only whether there are some, none, or nobody drew any matters.
    """
    content: dict[str, Any] = {}
    labels = {name: label for name, label in photo.labels.items() if name not in targets}
    if labels:
        content["labels"] = labels
    if photo.split != split:
        content["split"] = photo.split
    if photo.group is not None:
        content["group"] = photo.group
    if (photo.boxes is None) != (boxes is None) or bool(photo.boxes) != bool(boxes):
        content["boxes"] = None if photo.boxes is None else [box.as_row() for box in photo.boxes]
    return content
