"""Looking after a dataset's files: are they still what they were, and which of them does nobody need."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from plantml import checksums, storage
from plantml.checksums import Verified
from plantml.data import versions
from plantml.errors import InputError, NotFoundError
from plantml.work import Progress, silent

_AT_ONCE = 16


def verify(ref: str, *, threads: int = 2, progress: Progress = silent) -> Verified:
    """Read every file that a version names, and compare its hash.

    Args:
        ref: the dataset.
        threads: files read at the same time.
        progress: called with (files done, files).

    Raises:
        StorageError: the storage cannot be reached.
    """
    version = versions.load(ref)
    named = version.rows.filter(pl.col("path").is_not_null() & pl.col("image_id").is_not_null())
    files = named.select("path", "image_id").unique().sort("path").iter_rows()
    wanted = {path: (version.image_url(path), image_id) for path, image_id in files}
    return checksums.verify(version.ref, wanted, threads=threads, at_once=_AT_ONCE, progress=progress)


@dataclass(frozen=True)
class Collected:
    """What nobody needs.

    Attributes:
        images: files that no version names, left by imports that never ended.
        derived: files that can be made again: embeddings, notes of imports.
        bytes: size of both.
        removed: false after a dry run.
    """

    images: Sequence[str]
    derived: Sequence[str]
    bytes: int
    removed: bool


def collect(ref: str, *, dry_run: bool = False, derived: bool = False, min_age: float = 86_400.0) -> Collected:
    """Remove files that no version of a dataset names.

    Args:
        ref: the dataset.
        dry_run: remove nothing.
        derived: remove what can be made again, too.
        min_age: seconds; younger files are left, as they may belong to an import that is under way.

    Raises:
        InputError: there is no dataset, or a version was named.
    """
    url, at = versions.parse_reference(ref)
    if at is not None:
        raise InputError(f"{ref} names a version", "files belong to all versions", f"Name the dataset alone: {url}")
    named: set[str] = set()
    for number in versions.numbers(url) or [versions.load(url).number]:
        named |= set(versions.load(f"{url}@{number}").rows["path"].drop_nulls())
    before = time.time() - min_age
    loose = [entry for entry in _entries(url, "images") if f"images/{entry.name}" not in named]
    spare = _entries(url, "derived") if derived else []
    old = [entry for entry in (*loose, *spare) if 0 < entry.modified < before]
    if not dry_run:
        for entry in old:
            storage.remove(entry.url)
    gone = {entry.url for entry in old}
    return Collected(
        [entry.name for entry in loose if entry.url in gone],
        [entry.name for entry in spare if entry.url in gone],
        sum(entry.size for entry in old),
        not dry_run,
    )


def _entries(url: str, folder: str) -> list[storage.Entry]:
    try:
        return list(storage.list_files(storage.join(url, folder)))
    except NotFoundError:
        return []
