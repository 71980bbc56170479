"""Looking after a registry's files: are they still what they were, and which of them does nobody need."""

import time
from calendar import timegm
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.errors import InputError
from plantml.model import bundle as bundles
from plantml.registry import ledger, references
from plantml.registry.evidence import FOLDER
from plantml.registry.ledger import Entry, History, Ledger
from plantml.storage import checksums
from plantml.storage.checksums import Verified
from plantml.storage.event_log import Decide, Event


def verify(ref: str, progress: Progress = silent) -> Verified:
    """Read every file of one version, or of all and of the evidence, and compare its hash.

    That the history is whole is a condition of reading it at all.

    Raises:
        StorageError: the storage cannot be reached, or an act is missing.
    """
    url, at = ledger.parse_reference(ref)
    state = ledger.load(url)
    entries = [state.entries[number] for number in sorted(state.entries)] if at is None else [state.entry(at)]
    wanted = [(f"{entry.number:04d}/{name}", sha256) for entry in entries for name, sha256 in entry.files.items()]
    if at is None:
        wanted += [(f"{FOLDER}/{sha256}.json", sha256) for sha256 in sorted(_evidence(state))]
    files = {name: (storage.join(url, name), sha256) for name, sha256 in wanted}
    found = checksums.verify(url if at is None else f"{url}@{at}", files, progress=progress)
    broken = {name.split("/")[0] for name in (*found.missing, *found.damaged)}
    whole = [entry for entry in entries if f"{entry.number:04d}" not in broken]
    others = [f"{entry.number:04d}: its content has another digest" for entry in whole if not _named(entry)]
    return replace(found, damaged=[*found.damaged, *others])


def _named(entry: Entry) -> bool:
    """True if it is the model that was added: see `bundle`."""
    try:
        bundle = references.find(entry.url)
        bundle.read(bundles.WEIGHTS)
        bundle.read(bundles.ONNX)
    except InputError:
        return False
    return bundle.digest == entry.digest


def _evidence(state: Ledger) -> set[str]:
    promoted = (event.content for event in state.events if event.content["act"] == "promote")
    return {content["evidence"]["sha256"] for content in promoted if "evidence" in content}


@dataclass(frozen=True)
class CollectedGarbage:
    """What nobody needs.

    Attributes:
        unfinished: versions that were begun and never added.
        removed: versions that were removed.
        files: of both, and evidence that no act names.
        bytes: size of the files.
        gone: false after a dry run.
    """

    unfinished: Sequence[int]
    removed: Sequence[int]
    files: Sequence[str]
    bytes: int
    gone: bool


def collect_garbage(model: str, *, by: str, dry_run: bool = False, min_age: float = 86_400.0) -> CollectedGarbage:
    """Remove the files of versions that were removed, or begun and never added.

    What was begun is removed by an act first: an `add` that is under way after all knows then that it must take
    another number. Safe to kill: the files go before the act that says so.

    Args:
        model: URL of the model in its registry.
        by: who.
        dry_run: remove nothing.
        min_age: seconds; what was begun or removed later is left.

    Raises:
        InputError: a version was named, or what was begun was added just now.
    """
    url, at = ledger.parse_reference(model)
    if at is not None:
        raise InputError(f"{model} names a version", "", f"Name the model alone: {url}")
    acts, before, state = History(url), time.time() - min_age, ledger.load(url)
    unfinished, removed = (_older(group, before) for group in (state.begun, state.removed))
    files = _loose(state, {*unfinished, *removed}, before)
    if not dry_run:
        for number in unfinished:
            acts.log.append(_deciding(acts, "remove", number, by))
        for each in files:
            storage.remove(each.url)
        for number in (*unfinished, *removed):
            acts.log.append(_deciding(acts, "collect", number, by))
    return CollectedGarbage(
        unfinished, removed, [each.name for each in files], sum(each.size for each in files), not dry_run
    )


def _loose(state: Ledger, numbers: set[int], before: float) -> list[storage.Entry]:
    """Files of these versions, of such that were collected before, and evidence that no act names."""
    named = _evidence(state)
    kept = {*state.entries, *state.begun, *state.removed} - numbers
    found = []
    for each in storage.list_files(state.url):
        folder, _, name = each.name.partition("/")
        if folder == FOLDER:
            loose = name.removesuffix(".json") not in named and 0 < each.modified <= before
        else:
            loose = folder.isdecimal() and int(folder) <= state.last and int(folder) not in kept
        if loose:
            found.append(each)
    return found


def _deciding(acts: History, act: str, number: int, by: str) -> Decide:
    def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
        state = ledger.fold(acts.url, events)
        if number in state.entries:
            raise InputError(f"Version {number} of {acts.url} was added just now", "", "Repeat the command.")
        todo = state.begun if act == "remove" else state.removed
        return {"act": act, "version": number, "by": by, "why": "gc"} if number in todo else None

    return decide


def _older(group: Mapping[int, Event], before: float) -> list[int]:
    return [number for number, event in sorted(group.items()) if _seconds(event.time) <= before]


def _seconds(moment: str) -> float:
    return timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ"))
