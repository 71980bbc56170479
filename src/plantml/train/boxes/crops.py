"""Datasets of parts of photos: a crop of each box, for the second stage of a model of two stages, and tiles."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import polars as pl
from PIL import Image

from plantml import imaging, storage
from plantml.concurrency import Progress, Stop
from plantml.data import boxes, manifest, photos, versions
from plantml.data.manifest import Version
from plantml.imaging import Corners
from plantml.settings import Machine
from plantml.train.boxes import tiles
from plantml.train.selection import Selection

Row = Mapping[str, Any]

_KEPT = ("source", "name", "image_id", "path", "width", "height", "format", "mode", "bytes", "boxes", "group", "split",
         "status")  # fmt: skip
"""Columns that a photo keeps which is not cut."""


@dataclass(frozen=True)
class Part:
    """A part of a photo that becomes a photo of its own.

    Attributes:
        name: appended to that of the photo.
        corners: of the part.
        columns: its labels or boxes.
    """

    name: str
    corners: Corners
    columns: Row


def crop_dataset(version: Version, url: str, machine: Machine, progress: Progress, stop: Stop) -> Version:
    """The crops of a version's boxes as a dataset at `url`; the one that is there, if it is of the same version.

    A crop is cut as in detection, see `imaging.corners_of_crop`, and stored without loss. Crops of one photo share a
    group: the photo's group or else its name, so that no split tears them apart.

    Args:
        version: with the targets of its boxes.
        url: of the dataset.
        machine: cache for remote photos.
        progress: called with (done, total) photos.
        stop: checked after each photo.
    """
    drawn = version.usable().filter(pl.col("boxes").list.len() > 0)
    photos_of_crops = ((row, _crops(row)) for row in drawn.iter_rows(named=True))
    return _Cutter(version, url, machine, progress, stop).dataset("crop", {}, photos_of_crops)


def tile_dataset(
    version: Selection, url: str, machine: Machine, progress: Progress, stop: Stop, *, size: int
) -> Version:
    """The tiles of a version's train and val photos as a dataset at `url`, kept as by `crop_dataset`.

    Args:
        version: with boxes.
        url: of the dataset.
        machine: cache for remote photos.
        progress: called with (done, total) photos.
        stop: checked after each photo.
        size: of a tile, pixels of the upright photo; a photo that is not larger is left where it is.
    """
    return _Cutter(version, url, machine, progress, stop).dataset("tile", {"tile": size}, _tiles(version, size))


@dataclass(frozen=True)
class _Cutter:
    """Cuts photos of a version; see `crop_dataset`."""

    version: Version
    url: str
    machine: Machine
    progress: Progress
    stop: Stop

    def dataset(self, operation: str, settings: Row, cut: Iterable[tuple[Row, Sequence[Part]]]) -> Version:
        """The dataset of parts: the one that is there, if it is of the same version and settings, or a new version.

        Args:
            operation: for its commit.
            settings: of the operation.
            cut: the rows of photos, with their parts; a photo without parts is left as it is.
        """
        version, url = self.version, self.url
        parameters = {"from": version.ref, "fingerprint": version.fingerprint, **settings}
        if versions.numbers(url):
            existing = versions.load(url)
            if existing.commit is not None and dict(existing.commit.parameters) == parameters:
                return existing
        whole, to_cut = [], []
        for row, parts in cut:
            if parts:
                to_cut.append((row, parts))
            else:
                path = storage.absolute(version.image_url(row["path"]))
                whole.append({**{name: row[name] for name in _KEPT}, "path": path})
        rows = [*whole, *self._cut(operation, to_cut)]
        frame = manifest.conform(pl.DataFrame(rows, infer_schema_length=None), version.targets)
        head = max(versions.numbers(url), default=0)
        return versions.commit(Version(url, head + 1, frame, version.targets), operation, parameters, head)

    def _cut(self, operation: str, to_cut: Sequence[tuple[Row, Sequence[Part]]]) -> Iterator[Row]:
        """The rows of all parts, whose pixels are stored."""
        refs = ((row["image_id"], self.version.image_url(row["path"])) for row, _ in to_cut)
        read = photos.read_ahead(refs, self.machine.cache())
        for done, ((row, parts), (_, data)) in enumerate(zip(to_cut, read, strict=True), start=1):
            if self.stop:
                raise self.stop.error(f"Training stopped while cutting {operation}s: {done} of {len(to_cut)} photos",
                                      "Repeat the same command to resume.")  # fmt: skip
            if isinstance(data, bytes):  # an unreadable photo is left out, as in training
                yield from _stored(row, parts, data, self.url)
            self.progress(done, len(to_cut))


def _crops(row: Row) -> list[Part]:
    """The crops of a photo's boxes."""
    return [
        Part(
            f"#{number}", imaging.corners_of_crop((box.x, box.y, box.w, box.h), row["width"], row["height"]), box.labels
        )
        for number, box in enumerate(boxes.from_rows(row["boxes"]) or (), start=1)
    ]


def _tiles(version: Selection, size: int) -> Iterator[tuple[Row, Sequence[Part]]]:
    """The photos of a version with their tiles; none of a photo that is not larger."""
    rows = tiles.tiled(version, size).rows.iter_rows(named=True)
    for _, of_photo in groupby(rows, lambda row: (row["source"], row["name"])):
        placed = list(of_photo)
        yield (
            placed[0],
            [
                Part(
                    f"#{row['left']},{row['top']}",
                    (row["left"], row["top"], row["left"] + row["width"], row["top"] + row["height"]),
                    {"boxes": row["boxes"]},
                )
                for row in placed
                if row["left"] is not None
            ],
        )


def _stored(row: Row, parts: Sequence[Part], data: bytes, url: str) -> Iterator[Row]:
    """The rows of a photo's parts, whose pixels are stored."""
    try:
        photo = Image.fromarray(imaging.full(data))
    except photos.UNREADABLE:
        return
    for part in parts:
        picture = photo.crop(part.corners)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        content = buffer.getvalue()
        image_id = hashlib.sha256(content).hexdigest()
        path = f"images/{image_id[:2]}/{image_id}.png"
        storage.write(storage.join(url, path), content)
        yield {
            "source": row["source"], "name": row["name"] + part.name, "image_id": image_id, "path": path,
            "width": picture.width, "height": picture.height, "format": "PNG", "mode": "RGB", "bytes": len(content),
            "group": row["group"] or row["name"], "split": row["split"], "status": manifest.OK, **part.columns,
        }  # fmt: skip
