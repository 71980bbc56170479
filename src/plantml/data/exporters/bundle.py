"""A whole dataset in one zip, which another plantml imports to the same fingerprint."""

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import polars as pl

from plantml.concurrency import Progress
from plantml.data.exporters import Photo, Set, Written
from plantml.data.exporters.output import read
from plantml.data.importers.bundle import FILE, ROWS, VERSION, member


def write(content: Set, file: Path, progress: Progress) -> Written:
    """Fill a local file: every row, excluded ones too, and the bytes of every photo that was ever read, once."""
    once: dict[str, Photo] = {}
    empty: set[str] = set()
    for photo in content.photos:
        name = member(photo.row)
        if name and photo.row["path"]:
            once.setdefault(name, photo)
        elif name:  # a file of 0 bytes: a dataset does not keep those
            empty.add(name)
    version = content.version
    with zipfile.ZipFile(file, "w") as archive:
        for done, (name, data) in enumerate(_members(once), start=1):
            _put(archive, name, data)
            progress(done, len(once))
        for name in sorted(empty - set(once)):
            _put(archive, name, b"")
        _put(archive, ROWS, _rows(content), zipfile.ZIP_DEFLATED)
        head = {
            "plantml_bundle": VERSION,
            "version": version.number,
            "fingerprint": version.fingerprint,
            "targets": [asdict(target) for target in content.targets],
        }
        _put(archive, FILE, json.dumps(head, ensure_ascii=False).encode())
    return Written(None, None, {"photos": len(once), "rows": len(content.photos)})


def _members(once: dict[str, Photo]) -> Iterator[tuple[str, bytes]]:
    names = sorted(once)
    for name, (_, data) in zip(names, read([once[name] for name in names]), strict=True):
        yield name, data


def _rows(content: Set) -> bytes:
    rows = [{**photo.row, "path": member(photo.row)} for photo in content.photos]
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema=content.version.rows.schema).write_parquet(buffer)
    return buffer.getvalue()


def _put(archive: zipfile.ZipFile, name: str, data: bytes, method: int = zipfile.ZIP_STORED) -> None:
    info = zipfile.ZipInfo(name)  # its date is 1980: the same dataset gives the same bytes
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, method)
