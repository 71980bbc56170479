"""Bundle: a whole dataset in one zip, which imports to the same fingerprint."""

import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import polars as pl

from plantml.concurrency import Progress
from plantml.data import tables
from plantml.data.exporters import ExportPhoto, ExportSet, Written
from plantml.data.exporters.output import read
from plantml.data.importers.bundle import FILE, ROWS, VERSION, member


def write(content: ExportSet, file: Path, progress: Progress) -> Written:
    """Write every row, whatever its status, and every distinct photo to a local file."""
    once: dict[str, ExportPhoto] = {}
    empty: set[str] = set()
    for photo in content.photos:
        name = member(photo.row)
        if name and photo.row["path"]:
            once.setdefault(name, photo)
        elif name:  # an empty file: a dataset does not store those
            empty.add(name)
    version = content.version
    with zipfile.ZipFile(file, "w") as archive:
        names = sorted(once)
        photos = read([once[name] for name in names])
        for done, (name, (_, data)) in enumerate(zip(names, photos, strict=True), start=1):
            _add_member(archive, name, data)
            progress(done, len(once))
        for name in sorted(empty - set(once)):
            _add_member(archive, name, b"")
        _add_member(archive, ROWS, _rows(content), zipfile.ZIP_DEFLATED)
        head = {
            "plantml_bundle": VERSION,
            "version": version.number,
            "fingerprint": version.fingerprint,
            "targets": [asdict(target) for target in content.targets],
        }
        _add_member(archive, FILE, json.dumps(head, ensure_ascii=False).encode())
    return Written(None, None, {"photos": len(once), "rows": len(content.photos)})


def _rows(content: ExportSet) -> bytes:
    rows = [{**photo.row, "path": member(photo.row)} for photo in content.photos]
    return tables.to_parquet(pl.DataFrame(rows, schema=content.version.rows.schema))


def _add_member(archive: zipfile.ZipFile, name: str, data: bytes, method: int = zipfile.ZIP_STORED) -> None:
    info = zipfile.ZipInfo(name)  # dated 1980, so that the same dataset gives the same bytes
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, method)
