"""Looking after a dataset's files: are they still what they were, and which of them does nobody need."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from plantml import storage
from plantml.data import versions
from plantml.errors import InputError, NotFoundError, PlantmlError
from plantml.work import Progress, batched, in_threads, silent

_AT_ONCE = 16


@dataclass(frozen=True)
class Verified:
    """What re-hashing a version's files came to.

    Attributes:
        ref: the version.
        files: that it names.
        missing: paths that are not there any more.
        damaged: paths whose bytes are not those that were imported.
    """

    ref: str
    files: int
    missing: Sequence[str]
    damaged: Sequence[str]

    @property
    def sound(self) -> bool:
        """True if every file is there, byte for byte."""
        return not (self.missing or self.damaged)


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
    files = dict(named.select("path", "image_id").unique().sort("path").iter_rows())
    missing, damaged = [], []

    def some(paths: list[str]) -> list[tuple[str, str]]:
        found = storage.read_many(version.image_url(path) for path in paths)
        return [(path, _state(files[path], data)) for path, (_, data) in zip(paths, found, strict=True)]

    done = 0
    for states in in_threads(some, batched(files, _AT_ONCE), threads):
        done += len(states)
        missing += [path for path, state in states if state == "missing"]
        damaged += [path for path, state in states if state == "damaged"]
        progress(done, len(files))
    return Verified(version.ref, len(files), missing, damaged)


def _state(image_id: str, data: bytes | PlantmlError) -> str:
    if isinstance(data, NotFoundError):
        return "missing"
    if isinstance(data, PlantmlError):
        raise data
    return "" if hashlib.sha256(data).hexdigest() == image_id else "damaged"


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
