"""Exporters: one file per format; their table is in `plantml.data.exporting`.

An exporter is a function from an `ExportSet` and an `Output` to `Written`. It writes photos and files as it goes.
The file that marks the export as complete is returned, to be written last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plantml.data.boxes import Box
from plantml.data.importers.sidecar import Sidecar
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.targets import Target

KNOWN = ("category", "health", "disease")
UNASSIGNED = "unassigned"
"""The folder of photos without a split, if others have one."""


@dataclass(frozen=True, slots=True)
class ExportPhoto:
    """One row to export.

    Attributes:
        file: its file name in the export, without folders; no other photo has the same stem.
        url: where its bytes are.
        row: of the manifest.
        labels: by target name; only those that are set.
        boxes: `None` if not annotated.
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

    def labels_of(self, targets: Sequence[str]) -> dict[str, Any]:
        """The labels of these targets that are set."""
        return {name: self.labels[name] for name in targets if name in self.labels}

    @property
    def split(self) -> str | None:
        """`train`, `val`, `test` or `None`."""
        split: str | None = self.row["split"]
        return split

    @property
    def group(self) -> str | None:
        """Photos of a group stay in one split."""
        group: str | None = self.row["group"]
        return group


@dataclass(frozen=True)
class ExportSet:
    """What to export of a version.

    Attributes:
        version: that is exported.
        photos: sorted by file name.
        bare: rows without a photo, for formats that can hold them; their `file` and `url` are empty.
    """

    version: Version
    photos: tuple[ExportPhoto, ...]
    bare: tuple[ExportPhoto, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets of the version."""
        return self.version.targets

    @property
    def is_split(self) -> bool:
        """True if some photo has a split."""
        return any(photo.split for photo in self.photos)

    @property
    def has_boxes(self) -> bool:
        """True if some photo has a box."""
        return any(photo.boxes for photo in self.photos)

    @property
    def counts(self) -> dict[str, int]:
        """How many photos and boxes there are."""
        return {"photos": len(self.photos), "boxes": sum(len(photo.boxes or ()) for photo in self.photos)}

    def need_boxes(self, why: str) -> None:
        """Raise `InputError` if there are no boxes."""
        if not self.has_boxes:
            raise InputError(f"{self.version.ref} has no boxes", why, "Export it with --format folder.")

    def folder(self, photo: ExportPhoto) -> str:
        """The folder of the photo's split, or an empty string without splits."""
        return (photo.split or UNASSIGNED) if self.is_split else ""


@dataclass(frozen=True)
class Written:
    """The result of an exporter.

    Attributes:
        main: name and bytes of the file to write last; `None` if that is the sidecar.
        sidecar: what the format cannot express; `None` if it is complete, or not imported again.
        counts: what was written: `photos`, `boxes`…
        notes: sentences for the user.
    """

    main: tuple[str, bytes] | None
    sidecar: Sidecar | None
    counts: Mapping[str, int]
    notes: Sequence[str] = field(default=())


def path(*parts: str) -> str:
    """A path in the export from its parts; empty ones are left out."""
    return "/".join(part for part in parts if part)


def sidecar_entry(
    photo: ExportPhoto,
    *,
    targets: Sequence[str] = (),
    split: str | None = None,
    boxes: Sequence[Box] | None = None,
    box_values: bool = False,
) -> dict[str, Any]:
    """A photo's entry in the sidecar: what the format does not express. Empty if it expresses all.

    Args:
        photo: to export.
        targets: whose labels the format expresses.
        split: that the format expresses.
        boxes: that the format expresses; only whether there are some, none, or `None` matters.
        box_values: whether the format expresses the values of boxes, not only their classes.
    """
    content: dict[str, Any] = {}
    labels = {name: label for name, label in photo.labels.items() if name not in targets}
    if labels:
        content["labels"] = labels
    if photo.split != split:
        content["split"] = photo.split
    if photo.group is not None:
        content["group"] = photo.group
    has_values = any(len(box.classes) < len(box.labels) for box in photo.boxes or ())
    is_unlike = (photo.boxes is None) != (boxes is None) or bool(photo.boxes) != bool(boxes)
    if is_unlike or (has_values and not box_values):
        content["boxes"] = None if photo.boxes is None else [box.as_row() for box in photo.boxes]
    return content
