"""The versions of a dataset: read one, list them, commit the next.

A commit creates the next number exclusively: of two writers one wins and the other gets an error. Versions are
never changed or removed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import polars as pl

from plantml import storage
from plantml.data import manifest, version_files
from plantml.data.manifest import Commit, Version
from plantml.errors import InputError, NotFoundError, PlantmlError, RefusedError
from plantml.storage import checksums, numbered_files
from plantml.targets import Target

_TAG = r"[A-Za-z][A-Za-z0-9._-]{0,63}"
_DIGITS = 12
"""A longer version number is not looked up."""


Report = TypeVar("Report")


@dataclass(frozen=True)
class Committed(Generic[Report]):
    """The version after a change, and the change's report; `changed` is false if there was nothing to do."""

    version: Version
    changed: bool
    report: Report


def parse_reference(ref: str) -> tuple[str, str | None]:
    """`DATASET@7` as its URL and `7`, or the name of a tag."""
    return storage.reference(ref, _TAG)


def dataset_of(ref: str) -> str:
    """The dataset that a change applies to. Raises `InputError` if a version is named."""
    url, at = parse_reference(ref)
    if at is not None:
        raise InputError(f"{ref} cannot be changed", "versions are immutable", f"Leave out the version: {url}")
    return url


def numbers(url: str) -> list[int]:
    """All version numbers, ascending; empty where there is no dataset yet."""
    return list(numbered_files.list_numbers(storage.join(url, "versions"), ".parquet"))


def check_place(url: str) -> None:
    """Raise `InputError` if a new dataset would share its folder with other files."""
    if numbers(url) or not storage.exists(url):
        return
    if not storage.is_dir(url):
        raise InputError(f"{url} is a file", "a dataset is a folder", "Choose another path for the dataset.")
    own = ("images/", "versions/", "tags/", "derived/")
    foreign = next((entry.name for entry in storage.list_files(url) if not entry.name.startswith(own)), None)
    if foreign is not None:
        raise InputError(
            f"{url} contains other files", f"such as {foreign}", "Choose a new or empty folder for the dataset."
        )


def load(ref: str) -> Version:
    """The version that a reference names: `URL`, `URL@7` or `URL@tag`.

    Raises:
        InputError: there is no dataset, no such version or tag, or the version is damaged.
    """
    url, number = find(ref)
    return version_files.from_parquet(url, number, storage.read(file_of(url, number)))


def find(ref: str) -> tuple[str, int]:
    """The dataset's URL and the number of the version that a reference names. Raises `InputError` if there is none."""
    url, at = parse_reference(ref)
    known = numbers(url)
    if not known:
        raise NotFoundError(
            f"There is no dataset at {url}", "it has no versions", f"Create one: plantml dataset import PHOTOS {url}"
        )
    if at is None:
        return url, known[-1]
    number = _tagged(url, at) if not at.isdecimal() else int(at) if len(at) <= _DIGITS else -1
    if number not in known:
        raise InputError(
            f"{url} has no version {number if number >= 0 else at}", f"it has versions {known[0]} to {known[-1]}",
            f"List them: plantml dataset log {url}",
        )  # fmt: skip
    return url, number


def history(ref: str) -> list[tuple[int, Commit | InputError]]:
    """All versions up to the one that a reference names, newest first: each commit record, or what is wrong with it.

    Raises:
        InputError: there is no dataset, or no such version or tag.
    """
    url, last = find(ref)
    known = [number for number in reversed(numbers(url)) if number <= last]
    records: list[tuple[int, Commit | InputError]] = []
    for number, (_, data) in zip(known, storage.read_many(file_of(url, number) for number in known), strict=True):
        if isinstance(data, RefusedError):  # not a file at all
            records.append((number, data))
            continue
        if isinstance(data, PlantmlError):
            raise data
        try:
            records.append((number, version_files.read_commit(f"{url}@{number}", data)))
        except InputError as error:
            records.append((number, error))
    return records


def log(ref: str) -> list[tuple[int, Commit]]:
    """As `history`, but raises `InputError` if a version is damaged."""
    commits = []
    for number, record in history(ref):
        if isinstance(record, InputError):
            raise record
        commits.append((number, record))
    return commits


def commit(version: Version, operation: str, parameters: Mapping[str, Any], parent: int) -> Version:
    """Write the version after `parent`.

    Raises:
        AlreadyExistsError: another writer committed that number first; nothing was changed.
    """
    number = parent + 1
    record, data = version_files.to_parquet(version, operation, parameters, parent)
    numbered_files.create(storage.join(version.url, "versions"), number, ".parquet", data)
    return Version(version.url, number, version.rows, version.targets, record)


def change(
    ref: str,
    operation: str,
    parameters: Mapping[str, Any],
    apply: Callable[[Version], tuple[pl.DataFrame, tuple[Target, ...], Report]],
    *,
    over_damage: bool = False,
) -> Committed[Report]:
    """Apply a pure function to the newest version and commit what it gives.

    When another writer commits meanwhile, the function is applied again to that newer version. A change
    that changes nothing commits nothing.

    A missing dataset starts empty. With `over_damage`, the function is applied to an empty version where the newest one
    cannot be read.
    """
    url = dataset_of(ref)

    def attempt() -> Committed[Report]:
        head = _head(url, over_damage=over_damage)
        rows, targets, report = apply(head)
        rows = manifest.conform(rows, targets)
        if head.number and targets == head.targets and rows.equals(head.rows):
            return Committed(head, changed=False, report=report)
        version = commit(Version(url, 0, rows, targets), operation, parameters, head.number)
        return Committed(version, changed=True, report=report)

    return numbered_files.create_next(url, attempt)


def _head(url: str, *, over_damage: bool) -> Version:
    known = numbers(url)
    try:
        return load(f"{url}@{known[-1]}") if known else Version(url, 0, manifest.empty_rows(), ())
    except InputError:
        if not over_damage:
            raise
        return Version(url, known[-1], manifest.empty_rows(), ())


def tag(ref: str, name: str) -> int:
    """Name a version; the newest tag of a name wins. Returns the version's number."""
    if not re.fullmatch(_TAG, name):
        raise InputError(
            f"{name!r} cannot be a tag",
            "a tag starts with a letter and contains only letters, digits, . _ -",
            "Choose a name such as field-2025.",
        )
    version = load(ref)
    folder = storage.join(version.url, "tags")
    record = {"name": name, "version": version.number, "time": storage.now_utc()}

    def attempt() -> int:
        numbered_files.create(folder, max(tag_numbers(version.url), default=0) + 1, ".json", checksums.to_json(record))
        return version.number

    return numbered_files.create_next(folder, attempt)


def tags(url: str) -> dict[str, int]:
    """All tags and the version that each names."""
    versions: dict[str, int] = {}
    for file, data in storage.read_many(tag_file(url, number) for number in tag_numbers(url)):
        if isinstance(data, PlantmlError):
            raise data
        name, number = read_tag(file, data)
        versions[name] = number
    return versions


def read_tag(file: str, data: bytes) -> tuple[str, int]:
    """Name and version from the bytes of a tag's file. Raises `InputError` if the file is damaged."""
    url = storage.split(storage.split(file)[0])[0]
    hint = f"Restore it from a backup, or remove it and tag again: plantml dataset tag {url}@N NAME"
    record = checksums.from_json(data, file, hint)
    name, number = record.get("name"), record.get("version")
    if not isinstance(name, str) or type(number) is not int:
        raise InputError(f"{file} is damaged", "it does not name a tag and a version", hint)
    return name, number


def tag_numbers(url: str) -> list[int]:
    """Numbers of all tag files, ascending."""
    return list(numbered_files.list_numbers(storage.join(url, "tags"), ".json"))


def tag_file(url: str, number: int) -> str:
    """URL of the file of a tag."""
    return numbered_files.file_url(storage.join(url, "tags"), number, ".json")


def _tagged(url: str, name: str) -> int:
    numbers_by_tag = tags(url)
    if name not in numbers_by_tag:
        raise InputError(
            f"{url} has no tag {name!r}",
            f"its tags: {', '.join(sorted(numbers_by_tag)) or 'none'}",
            "Name one of its tags or versions: plantml dataset log " + url,
        )
    return numbers_by_tag[name]


def file_of(url: str, number: int) -> str:
    """URL of the file of a version."""
    return numbered_files.file_url(storage.join(url, "versions"), number, ".parquet")
