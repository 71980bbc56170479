"""Verify the files of a registry, and remove those that are no longer needed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.errors import InputError
from plantml.registry import ledger, references
from plantml.registry.evidence import FOLDER
from plantml.registry.ledger import Decide, Entry, History, Ledger
from plantml.registry.operations import current_user
from plantml.storage import checksums
from plantml.storage.checksums import Verified
from plantml.storage.event_log import Event


def verify(ref: str, progress: Progress = silent) -> Verified:
    """Read every file of one version, or of all versions and the evidence, and compare its hash.

    Reading the history already checks that it is complete.

    Raises:
        StorageError: the storage cannot be reached, or an event is missing.
    """
    url, version = ledger.parse_reference(ref)
    state = ledger.load(url)
    entries = [state.entries[number] for number in sorted(state.entries)] if version is None else [state.entry(version)]
    hashes = [(f"{entry.number:04d}/{name}", sha256) for entry in entries for name, sha256 in entry.files.items()]
    if version is None:
        hashes += [(f"{FOLDER}/{sha256}.json", sha256) for sha256 in sorted(_evidence(state))]
    files = {name: (storage.join(url, name), sha256) for name, sha256 in hashes}
    verified = checksums.verify(url if version is None else f"{url}@{version}", files, progress=progress)
    broken = {name.split("/")[0] for name in (*verified.missing, *verified.damaged)}
    intact = [entry for entry in entries if f"{entry.number:04d}" not in broken]
    others = [f"{entry.number:04d}: its content has another digest" for entry in intact if not _has_digest(entry)]
    return replace(verified, damaged=[*verified.damaged, *others])


def _has_digest(entry: Entry) -> bool:
    """True if the files are those of the model that was added."""
    try:
        bundle = references.find(entry.url)
        for name in bundle.files:
            bundle.read(name)
    except InputError:
        return False
    return bundle.digest == entry.digest


def _evidence(state: Ledger) -> set[str]:
    promoted = (event.content for event in state.events if event.content["act"] == "promote")
    return {content["evidence"]["sha256"] for content in promoted if "evidence" in content}


@dataclass(frozen=True)
class CollectedGarbage:
    """Files of versions that were never finished, or were removed, and evidence that no event names.

    `gone` is false after a dry run.
    """

    unfinished: Sequence[int]
    removed: Sequence[int]
    files: Sequence[str]
    bytes: int
    gone: bool


def collect_garbage(
    model: str, *, by: str | None = None, dry_run: bool = False, min_age: float = 86_400.0
) -> CollectedGarbage:
    """Delete the files of versions that were removed, or begun and never added.

    An unfinished version is removed by an event first, so that an `add` that is still running takes another number.
    Safe to kill: the files are deleted before the `collect` event.

    Versions that were begun or removed less than `min_age` seconds ago are kept.

    Raises:
        InputError: the reference names a version, or an unfinished version has just been added.
    """
    url, version = ledger.parse_reference(model)
    by = by or current_user()
    if version is not None:
        raise InputError(f"{model} names a version", "", f"Name the model alone: {url}")
    history, before, state = History(url), time.time() - min_age, ledger.load(url)
    unfinished, removed = (_older(group, before) for group in (state.begun, state.removed))
    files = _unreferenced(state, {*unfinished, *removed}, before)
    if not dry_run:
        for number in unfinished:
            history.append(_decide_removal(history, "remove", number, by))
        for each in files:
            storage.remove(each.url)
        for number in (*unfinished, *removed):
            history.append(_decide_removal(history, "collect", number, by))
    return CollectedGarbage(
        unfinished, removed, [each.name for each in files], sum(each.size for each in files), not dry_run
    )


def _unreferenced(state: Ledger, numbers: set[int], before: float) -> list[storage.Entry]:
    """Files of these versions and of versions collected earlier, and evidence that no event names."""
    named = _evidence(state)
    current = {*state.entries, *state.begun, *state.removed} - numbers
    files = []
    for each in storage.list_files(state.url):
        folder, _, name = each.name.partition("/")
        if folder == FOLDER:
            is_unreferenced = name.removesuffix(".json") not in named and 0 < each.modified <= before
        else:
            is_unreferenced = folder.isdecimal() and int(folder) <= state.last and int(folder) not in current
        if is_unreferenced:
            files.append(each)
    return files


def _decide_removal(history: History, act: str, number: int, by: str) -> Decide:
    def decide(state: Ledger) -> Mapping[str, Any] | None:
        if number in state.entries:
            raise InputError(f"Version {number} of {history.url} has just been added", "", "Repeat the command.")
        todo = state.begun if act == "remove" else state.removed
        return {"act": act, "version": number, "by": by, "why": "gc"} if number in todo else None

    return decide


def _older(group: Mapping[int, Event], before: float) -> list[int]:
    return [
        number for number, event in sorted(group.items()) if datetime.fromisoformat(event.time).timestamp() <= before
    ]
