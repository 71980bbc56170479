"""The file of a dataset version: Parquet, with the commit record in its metadata.

The record is the value of `plantml`, and ends with the checksum of the file.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from plantml import storage
from plantml.about import __version__
from plantml.data import manifest, row_checks
from plantml.data.manifest import Commit, Version
from plantml.errors import InputError
from plantml.parsing import parse_json_object
from plantml.storage import checksums

_RECORD = "plantml"
"""Key of the commit record in the file's metadata."""

_COMMIT = TypeAdapter(Commit)
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises on bytes that are not Parquet."""


def to_parquet(version: Version, operation: str, parameters: Mapping[str, Any], parent: int) -> tuple[Commit, bytes]:
    """The version as the bytes of its Parquet file, and the commit record in it.

    Raises:
        InputError: a row is invalid, and could not be read back.
    """
    if fault := row_checks.first_fault(version.rows, version.targets):
        raise InputError(
            f"No new version of {version.url} was written", fault, "Fix the source and repeat the command."
        )
    counts = dict(sorted(version.rows["status"].value_counts().iter_rows()))
    commit = Commit(
        operation=operation,
        parameters=parameters,
        parent=parent,
        time=storage.now_utc(),
        plantml=__version__,
        targets=version.targets,
        counts=counts,
        fingerprint=manifest.fingerprint(version.rows, version.targets),
    )
    buffer = io.BytesIO()
    record = json.dumps({**asdict(commit), checksums.KEY: checksums.BLANK})
    version.rows.write_parquet(buffer, metadata={_RECORD: record})
    return commit, checksums.seal(buffer.getvalue())


def from_parquet(url: str, number: int, data: bytes) -> Version:
    """A version from the bytes of its file.

    Raises:
        InputError: they are not a version file, fail the checksum, or contain an invalid row.
    """
    ref = f"{url}@{number}"
    commit = read_commit(ref, data)
    try:
        rows = pl.read_parquet(io.BytesIO(data))
    except _UNREADABLE as error:
        raise _damaged(ref, str(error).splitlines()[0]) from error
    if fault := row_checks.first_fault(rows, commit.targets):
        raise _damaged(ref, fault)
    row_checks.check_paths(ref, rows)
    return Version(url, number, rows, commit.targets, commit)


def read_commit(ref: str, data: bytes) -> Commit:
    """The commit record of a version's file. Raises `InputError`, also if the file fails its checksum."""
    try:
        text = pl.read_parquet_metadata(io.BytesIO(data))[_RECORD]
        record = parse_json_object(text, "its commit record")
        record.pop(checksums.KEY, None)
        commit = _commit_of(record)
    except (KeyError, ValueError, InputError, *_UNREADABLE) as error:
        why = "it is empty" if not data else f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise InputError(f"The file of {ref} is not a dataset version", why, _next(ref)) from error
    if not checksums.is_intact(data):
        raise _damaged(ref, checksums.CHANGED)
    if ref.rpartition("@")[2] != str(commit.parent + 1):
        raise _damaged(ref, f"its file is that of version {commit.parent + 1}")
    return commit


def _commit_of(record: Mapping[str, Any]) -> Commit:
    if unknown := set(record) - {item.name for item in fields(Commit)}:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
    return _COMMIT.validate_python(record)


def _damaged(ref: str, why: str) -> InputError:
    return InputError(f"{ref} is damaged", why, _next(ref))


def _next(ref: str) -> str:
    url = ref.rpartition("@")[0]
    return (
        f"plantml dataset log {url} shows the versions; plantml dataset restore {url} N continues from version N. "
        "Or restore the file from a backup."
    )
