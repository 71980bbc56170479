"""The versions of a dataset: read one, list them, commit the next.

A commit is the exclusive creation of the next number, so that of two writers one wins and the other
is told so. Nothing is ever changed or removed.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from plantml import storage
from plantml.data import manifest
from plantml.data.manifest import Commit, Version
from plantml.errors import AlreadyExistsError, InputError, NotFoundError, StorageError
from plantml.targets import Target

_TAG = r"[A-Za-z][A-Za-z0-9._-]{0,63}"
_TRIES = 20


@dataclass(frozen=True)
class Committed:
    """What a change of a dataset came to. `changed` is false where there was nothing to do."""

    version: Version
    changed: bool


def parse_reference(ref: str) -> tuple[str, str | None]:
    """`DATASET@7` as its URL and `7`, or the name of a tag."""
    return storage.reference(ref, _TAG)


def numbers(url: str) -> list[int]:
    """All version numbers, ascending; empty where there is no dataset yet."""
    return list(storage.numbered(storage.join(url, "versions"), ".parquet"))


def check_place(url: str) -> None:
    """Raise `InputError` if a dataset would be made among files that are not its own."""
    if numbers(url) or not storage.exists(url):
        return
    if not storage.is_dir(url):
        raise InputError(f"{url} is a file", "a dataset is a folder", "Choose another place for the dataset.")
    own = ("images/", "versions/", "tags/", "derived/")
    foreign = next((entry.name for entry in storage.list_files(url) if not entry.name.startswith(own)), None)
    if foreign is not None:
        raise InputError(
            f"{url} holds other files", f"such as {foreign}", "Choose a new or empty folder for the dataset."
        )


def load(ref: str) -> Version:
    """The version that a reference names: `URL`, `URL@7` or `URL@tag`.

    Raises:
        InputError: there is no dataset, or no such version or tag.
    """
    url, at = parse_reference(ref)
    known = numbers(url)
    if not known:
        raise NotFoundError(
            f"There is no dataset at {url}",
            "it has no versions",
            f"Make one: plantml dataset import PHOTOS {url}",
        )
    if at is None:
        number = known[-1]
    elif at.isdecimal():
        number = int(at)
    else:
        number = _tagged(url, at)
    if number not in known:
        raise InputError(f"{url} has no version {number}", f"it has {known[0]} to {known[-1]}")
    return manifest.from_parquet(url, number, storage.read(_file(url, number)))


def log(ref: str) -> list[tuple[int, Commit]]:
    """All versions with their commit records, newest first."""
    url, _ = parse_reference(ref)
    known = numbers(url)
    if not known:
        load(url)  # raises, with the explanation
    files = [_file(url, number) for number in reversed(known)]
    commits = []
    for number, (file, data) in zip(reversed(known), storage.read_many(files), strict=True):
        if isinstance(data, Exception):
            raise data
        commits.append((number, manifest.read_commit(file, data)))
    return commits


def commit(version: Version, operation: str, parameters: Mapping[str, Any], parent: int) -> Version:
    """Write the version after `parent`.

    Raises:
        AlreadyExistsError: another writer made that version first; nothing was changed.
    """
    number = parent + 1
    record, data = manifest.to_parquet(version, operation, parameters, parent)
    storage.create(_file(version.url, number), data)
    return Version(version.url, number, version.rows, version.targets, record)


def change(
    ref: str,
    operation: str,
    parameters: Mapping[str, Any],
    apply: Callable[[Version], tuple[pl.DataFrame, tuple[Target, ...]]],
) -> Committed:
    """Apply a pure function to the newest version and commit what it gives.

    When another writer commits meanwhile, the function is applied again to that newer version. A change
    that changes nothing commits nothing.

    Args:
        ref: the dataset; a missing one starts empty.
        operation: written into the commit record.
        parameters: written into the commit record.
        apply: from a version to new rows and targets.
    """
    url, at = parse_reference(ref)
    if at is not None:
        raise InputError(f"{ref} cannot be changed", "versions are immutable", f"Name the dataset alone: {url}")
    for _ in range(_TRIES):
        head = load(url) if numbers(url) else Version(url, 0, manifest.empty_rows(), ())
        rows, targets = apply(head)
        rows = manifest.conform(rows, targets)
        if head.number and targets == head.targets and rows.equals(head.rows):
            return Committed(head, changed=False)
        try:
            return Committed(commit(Version(url, 0, rows, targets), operation, parameters, head.number), changed=True)
        except AlreadyExistsError:
            continue
    raise StorageError(
        f"Could not commit to {url}",
        f"other writers were faster {_TRIES} times",
        "Repeat the command; nothing was lost.",
    )


def tag(ref: str, name: str) -> int:
    """Name a version; the newest tag of a name wins. Returns the version's number."""
    if not re.fullmatch(_TAG, name):
        raise InputError(f"{name!r} cannot be a tag", "a tag starts with a letter and has letters, digits, . _ -")
    version = load(ref)
    for _ in range(_TRIES):
        known = _tag_numbers(version.url)
        number = known[-1] + 1 if known else 1
        record = {"name": name, "version": version.number, "time": storage.now_utc()}
        try:
            storage.create(storage.join(version.url, "tags", f"{number:06d}.json"), json.dumps(record).encode())
        except AlreadyExistsError:
            continue
        return version.number
    raise StorageError(f"Could not tag {ref}", f"other writers were faster {_TRIES} times", "Repeat the command.")


def tags(url: str) -> dict[str, int]:
    """All tags and the version that each names."""
    found: dict[str, int] = {}
    for number in _tag_numbers(url):
        record = json.loads(storage.read(storage.join(url, "tags", f"{number:06d}.json")))
        found[record["name"]] = record["version"]
    return found


def _tag_numbers(url: str) -> list[int]:
    return list(storage.numbered(storage.join(url, "tags"), ".json"))


def _tagged(url: str, name: str) -> int:
    found = tags(url)
    if name not in found:
        raise InputError(f"{url} has no tag {name!r}", f"its tags: {', '.join(sorted(found)) or 'none'}")
    return found[name]


def _file(url: str, number: int) -> str:
    return storage.join(url, "versions", f"{number:06d}.parquet")
