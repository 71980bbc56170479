"""Whether stored bytes are still what was written.

A file that holds the project's own state carries its checksum in itself: the last `"sha256": "…"` in it is the
SHA-256 of the whole file with 64 zeros in the place of the digits. So no bit of the file can change unseen, and one
exclusive creation writes both. Photos and the files of models have theirs elsewhere: `verify` reads and compares them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plantml import storage
from plantml.concurrency import Progress, batched, in_threads, silent
from plantml.errors import InputError, NotFoundError, PlantmlError
from plantml.parsing import parse_json_object

KEY, BLANK = "sha256", "0" * 64
_PREFIX = f'"{KEY}": "'.encode()
CHANGED = "its checksum is not that of its bytes: it was damaged, or edited"


# --- checksums in the file itself -------------------------------------------------------------


def seal(data: bytes) -> bytes:
    """`data` with its checksum in the place of the last `"sha256": "000…"`, which must be there."""
    at = data.rindex(_PREFIX + BLANK.encode()) + len(_PREFIX)
    return data[:at] + _digest(data, at) + data[at + len(BLANK) :]


def is_intact(data: bytes) -> bool:
    """True if a file has a checksum, and it is that of its bytes."""
    at = data.rfind(_PREFIX) + len(_PREFIX)
    return at >= len(_PREFIX) and data[at : at + len(BLANK)] == _digest(data, at)


def seal_text(text: bytes, line: str) -> bytes:
    """A text of lines with one more, which holds its checksum: `line`, such as `{%s}`, with `"sha256": "…"` in it."""
    return seal(text + (line % f'"{KEY}": "{BLANK}"').encode() + b"\n")


def to_json(record: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    """A record as a JSON document that ends with its checksum."""
    return seal((json.dumps({**record, KEY: BLANK}, indent=indent, ensure_ascii=False) + "\n").encode())


def from_json(
    data: bytes, origin: str, hint: str = "Restore it from a backup.", error: type[PlantmlError] = InputError
) -> dict[str, Any]:
    """A record from what `to_json` gave.

    Args:
        data: the bytes of the file.
        origin: its URL.
        hint: how to go on if it is damaged.
        error: raised if it is damaged.
    """
    if not is_intact(data):
        raise error(f"{origin} is damaged", CHANGED if data.strip() else "it is empty", hint)
    record = parse_json_object(data, origin)
    del record[KEY]
    return record


def _digest(data: bytes, at: int) -> bytes:
    """Hex digits of the SHA-256 of `data`, with zeros in the place of the checksum that begins at `at`."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:at])
    digest.update(BLANK.encode())
    digest.update(view[at + len(BLANK) :])
    return digest.hexdigest().encode()


# --- checksums that are kept elsewhere --------------------------------------------------------


@dataclass(frozen=True)
class Verified:
    """What re-hashing files came to.

    Attributes:
        ref: what they belong to.
        files: that were read.
        missing: names of files that are not there any more.
        damaged: names of files whose bytes are others.
    """

    ref: str
    files: int
    missing: Sequence[str]
    damaged: Sequence[str]

    @property
    def sound(self) -> bool:
        """True if every file is there, byte for byte."""
        return not (self.missing or self.damaged)


def verify(
    ref: str,
    files: Mapping[str, tuple[str, str]],
    *,
    threads: int = 1,
    at_once: int = 1,
    progress: Progress = silent,
) -> Verified:
    """Read files and compare their hashes.

    Args:
        ref: what they belong to.
        files: URL and SHA-256 by name.
        threads: batches of files read at the same time.
        at_once: files of a batch, which are all in memory.
        progress: called with (files done, files).

    Raises:
        StorageError: the storage cannot be reached.
    """
    missing, damaged, done = [], [], 0

    def some(names: list[str]) -> list[tuple[str, str]]:
        found = storage.read_many(files[name][0] for name in names)
        return [(name, _state(files[name][1], data)) for name, (_, data) in zip(names, found, strict=True)]

    for states in in_threads(some, batched(files, at_once), threads):
        done += len(states)
        missing += [name for name, state in states if state == "missing"]
        damaged += [name for name, state in states if state == "damaged"]
        progress(done, len(files))
    return Verified(ref, len(files), missing, damaged)


def _state(sha256: str, data: bytes | PlantmlError) -> str:
    if isinstance(data, NotFoundError):
        return "missing"
    if isinstance(data, PlantmlError):
        raise data
    return "" if hashlib.sha256(data).hexdigest() == sha256 else "damaged"
