"""Maintain a dataset's files: verify checksums, and remove unused files."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.data import manifest, version_files, versions
from plantml.errors import InputError, NotFoundError, PlantmlError, RefusedError
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
    states = {
        f"versions/{file}": state for file, state in _version_states(url, versions.numbers(url) if is_all else [number])
    } | ({f"tags/{file}": state for file, state in _tag_states(url)} if is_all else {})
    names = {state: [name for name, its in states.items() if its == state] for state in ("damaged", "unchecked")}
    photos = _photos(url, number, threads, progress)
    return replace(
        photos,
        files=photos.files + len(states),
        damaged=[*names["damaged"], *photos.damaged],
        unchecked=names["unchecked"],
    )


def _photos(url: str, number: int, threads: int, progress: Progress) -> Verified:
    """State of a version's photos; of none if the version is damaged."""
    expected = {}
    with contextlib.suppress(InputError):
        version = versions.load(f"{url}@{number}")
        named = version.rows.filter(pl.col("path").is_not_null() & pl.col("image_id").is_not_null())
        files = named.select("path", "image_id").unique().sort("path").iter_rows()
        expected = {path: (version.image_url(path), image_id) for path, image_id in files}
    return checksums.verify(f"{url}@{number}", expected, threads=threads, at_once=_AT_ONCE, progress=progress)


def _version_states(url: str, numbers: Sequence[int]) -> Iterator[tuple[str, str]]:
    """File and state of versions. Without a checksum only the fingerprint is compared, which proves less."""
    for number in numbers:
        file = versions.file_of(url, number)
        try:
            data = storage.read(file)
        except RefusedError:
            yield storage.basename(file), "damaged"
            continue
        if checksums.is_intact(data):
            yield storage.basename(file), "intact"
            continue
        try:
            version = version_files.from_parquet(url, number, data)
            same = manifest.fingerprint(version.rows, version.targets) == version.fingerprint
        except InputError:
            same = False
        yield storage.basename(file), "unchecked" if same else "damaged"


def _tag_states(url: str) -> Iterator[tuple[str, str]]:
    for file, data in storage.read_many(versions.tag_file(url, number) for number in versions.tag_numbers(url)):
        if isinstance(data, RefusedError):
            yield storage.basename(file), "damaged"
            continue
        if isinstance(data, PlantmlError):
            raise data
        intact = checksums.check_text(data)
        state = "unchecked" if intact is None else "intact"
        try:
            versions.read_tag(file, data)
        except InputError:
            state = "damaged"
        yield storage.basename(file), state


@dataclass(frozen=True)
class UnusedFiles:
    """Unused files.

    Attributes:
        images: files that no version names, left by unfinished imports.
        derived: files that can be rebuilt: embeddings, notes of imports.
        bytes: size of both.
        removed: false after a dry run.
    """

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
