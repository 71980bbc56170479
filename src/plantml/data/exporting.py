"""Export a dataset's photos and labels; the table of formats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.data import boxes, manifest, versions
from plantml.data.exporters import (
    ExportPhoto,
    ExportSet,
    Written,
    bundle,
    coco,
    croissant,
    crops,
    cvat,
    folder,
    label_studio,
    table,
    voc,
    webdataset,
    yolo,
)
from plantml.data.exporters.naming import file_names
from plantml.data.exporters.output import Output
from plantml.data.manifest import Version
from plantml.errors import InputError, UsageError

BUNDLE = "bundle"

FORMATS: Mapping[str, Callable[[ExportSet, Output], Written]] = {
    "folder": folder.write,
    "csv": table.write_csv,
    "parquet": table.write_parquet,
    "coco": coco.write,
    "yolo": yolo.write,
    "voc": voc.write,
    "cvat": cvat.write,
    "label-studio": label_studio.write,
    "webdataset": webdataset.write,
    "crops": crops.write,
    "croissant": croissant.write,
}
"""Exporters that fill a directory, by format name; a bundle is a single file."""

NAMES = (*FORMATS, BUNDLE)

_WITH_BARE_ROWS = ("csv", "parquet", BUNDLE)
"""Formats that can hold rows without a photo."""


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    version: Version
    out: str
    format: str
    counts: Mapping[str, int]
    files: int
    bytes: int
    notes: Sequence[str]


def export_dataset(
    ref: str,
    out: str,
    *,
    format: str,  # noqa: A002 - the name of the option
    splits: Sequence[str] = (),
    progress: Progress = silent,
) -> Exported:
    """Write a version's photos and labels in another format.

    Excluded rows are left out, except in a bundle. So are rows without a photo, except in a table or a bundle. Photos
    are copied as they are.

    `out` is the URL of a new or empty directory, or of a new `.zip` for a bundle. Without `splits`, all rows are
    written.

    Raises:
        UsageError: there is no such format or split.
        InputError: there is no such dataset, nothing to write, or `out` is not empty or lies in a source.
        StorageError: a photo cannot be read, or `out` cannot be written.
    """
    if format not in NAMES:
        raise UsageError(f"There is no format {format!r}", f"formats: {', '.join(NAMES)}", "Choose one of them.")
    unknown = set(splits) - set(manifest.SPLITS)
    if unknown:
        raise UsageError(
            f"There is no split {min(unknown)!r}", f"splits: {', '.join(manifest.SPLITS)}", "Choose one of them."
        )
    version = versions.load(ref)
    out = storage.absolute(out)
    _check_apart(version, out)
    rows, bare = version.rows if format == BUNDLE else version.usable(), version.without_photo()
    if splits:
        rows = rows.filter(pl.col("split").is_in(list(splits)))
        bare = bare.filter(pl.col("split").is_in(list(splits)))
    keeps_bare = format in _WITH_BARE_ROWS
    if rows.is_empty() and not (keeps_bare and bare.height):
        raise InputError(
            f"{version.ref} has nothing to export",
            f"no usable photos {' or '.join(splits)}".rstrip(),
            "See what it has: plantml dataset info " + version.url,
        )
    if format == BUNDLE:
        return _export_bundle(ExportSet(version, _photos(version, rows)), out, progress)
    content = ExportSet(version, _photos(version, rows), _bare(version, bare) if keeps_bare else ())
    if storage.inside(out):
        raise InputError(
            f"{out} is named like an archive", "this format is written as a folder", "Choose another name."
        )
    with Output(out, progress, len(content.photos)) as output:
        written = FORMATS[format](content, output)
        output.finish(written)
    notes = [*written.notes]
    if bare.height and not keeps_bare:
        *others, last = _WITH_BARE_ROWS
        keeping = f"{', '.join(others)} and {last}"
        notes.append(f"Rows without a photo, left out: {bare.height}. The formats {keeping} keep them.")
    return Exported(version, out, format, written.counts, output.files, output.size, notes)


def _export_bundle(content: ExportSet, out: str, progress: Progress) -> Exported:
    if storage.suffix(out) != ".zip":
        raise InputError(
            f"A bundle cannot be named {storage.basename(out)}", "it is a zip file", f"Export to {out}.zip"
        )
    if storage.exists(out):
        raise InputError(f"{out} exists already", "an export never overwrites files", "Export to a new path.")
    with storage.staged(out) as file:
        written = bundle.write(content, file, progress)
        size = file.stat().st_size
    return Exported(content.version, out, BUNDLE, written.counts, 1, size, written.notes)


def _photos(version: Version, rows: pl.DataFrame) -> tuple[ExportPhoto, ...]:
    sorted_rows = list(rows.sort(manifest.KEY).iter_rows(named=True))
    photos = [
        _export_photo(version, row, file, version.image_url(row["path"] or ""))
        for row, file in zip(sorted_rows, file_names(sorted_rows), strict=True)
    ]
    return tuple(sorted(photos, key=lambda photo: photo.file))


def _bare(version: Version, rows: pl.DataFrame) -> tuple[ExportPhoto, ...]:
    return tuple(_export_photo(version, row, "", "") for row in rows.sort(manifest.KEY).iter_rows(named=True))


def _export_photo(version: Version, row: dict[str, Any], file: str, url: str) -> ExportPhoto:
    labels = {target.name: row[target.name] for target in version.targets if row[target.name] is not None}
    return ExportPhoto(file, url, row, labels, boxes.from_rows(row["boxes"]))


def _check_apart(version: Version, out: str) -> None:
    dataset = version.url
    if storage.is_within(out, dataset) or storage.is_within(dataset, out):
        raise InputError(
            f"The dataset {dataset} and the export {out} are nested",
            "a dataset's folder contains no other files",
            "Choose another path for the export.",
        )
    for source in version.rows["source"].unique():
        if storage.is_within(out, source):
            raise InputError(
                f"The export {out} would lie in {source}",
                "photos were imported from there, and a source is never written to",
                "Choose another path for the export.",
            )
