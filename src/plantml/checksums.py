"""Whether stored files are still what was written: read all, and compare their hashes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plantml import storage
from plantml.errors import NotFoundError, PlantmlError
from plantml.work import Progress, batched, in_threads, silent


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
