"""Maintain a dataset's files: verify checksums, and remove unused files."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.data import versions
from plantml.errors import InputError, NotFoundError, RefusedError
from plantml.storage import checksums
from plantml.storage.checksums import Verified

_AT_ONCE = 16


def verify(ref: str, *, threads: int = 2, progress: Progress = silent) -> Verified:
    """Verify the SHA-256 of every file of a version, including the version's own file.

    Without a number, all versions and tags are verified, and the photos of the newest version.

    Raises:
        InputError: there is no such version.
        StorageError: the storage cannot be reached.
    """
    url, number = versions.find(ref)
    is_all = versions.parse_reference(ref)[1] is None
    files = [versions.file_of(url, each) for each in (versions.numbers(url) if is_all else [number])]
    files += [versions.tag_file(url, each) for each in versions.tag_numbers(url)] if is_all else []
    damaged = ["/".join(file.split("/")[-2:]) for file in files if not _is_intact(file)]
    photos = _photos(url, number, threads, progress)
    return replace(photos, files=photos.files + len(files), damaged=[*damaged, *photos.damaged])


def _is_intact(file: str) -> bool:
    try:
        return checksums.is_intact(storage.read(file))
    except RefusedError:  # no file at all
        return False


def _photos(url: str, number: int, threads: int, progress: Progress) -> Verified:
    """State of a version's photos; of none if the version is damaged."""
    expected = {}
    with contextlib.suppress(InputError):
        version = versions.load(f"{url}@{number}")
        named = version.rows.filter(pl.col("path").is_not_null() & pl.col("image_id").is_not_null())
        files = named.select("path", "image_id").unique().sort("path").iter_rows()
        expected = {path: (version.image_url(path), image_id) for path, image_id in files}
    return checksums.verify(f"{url}@{number}", expected, threads=threads, at_once=_AT_ONCE, progress=progress)


@dataclass(frozen=True)
class UnusedFiles:
    """Images that no version names, and derived files, which can be rebuilt. `removed` is false after a dry run."""

    images: Sequence[str]
    derived: Sequence[str]
    bytes: int
    removed: bool


def collect(ref: str, *, dry_run: bool = False, derived: bool = False, min_age: float = 86_400.0) -> UnusedFiles:
    """Remove files that no version of a dataset names, and with `derived` those that can be rebuilt.

    Files younger than `min_age` seconds stay, as they may belong to a running import.

    Raises:
        InputError: there is no dataset, or `ref` names a version.
    """
    url = versions.dataset_of(ref)
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
    return UnusedFiles(
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
