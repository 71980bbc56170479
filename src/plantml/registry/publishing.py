"""Add a bundle as a version: reserve a number, write the files, and only then make it a version."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from plantml import storage
from plantml.errors import InputError, StorageError, UsageError
from plantml.model import bundle as bundles
from plantml.model.runtimes import FILES
from plantml.registry import ledger
from plantml.registry.ledger import Entry, History, Ledger
from plantml.registry.operations import current_user, is_guarded, promote
from plantml.registry.version_files import VersionFiles, inspect

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TRIES = 20


@dataclass(frozen=True)
class AddedVersion(Entry):
    """A version that `add` created, or that existed. `changed` is false if there was nothing to do."""

    changed: bool


def add(
    ref: str,
    model: str,
    *,
    by: str | None = None,
    why: str = "",
    evidence: Mapping[str, Any] | None = None,
    alias: str | None = None,
    cache: storage.Cache | None = None,
) -> AddedVersion:
    """Add a bundle as a version of a registered model.

    Safe to repeat and to kill: a model is added once, and an incomplete copy is never a version.

    `ref` is a run, a bundle, a pack, or a version of another registry; `evidence` is any JSON, for the history. An
    alias that needs evidence can only be set by `promote`.

    Raises:
        InputError: the bundle is damaged, or `model` is not a possible location.
        UsageError: the alias needs evidence.
        StorageError: a file does not match its hash, or the storage failed.
    """
    history, by = History(model), by or current_user()
    check_location(history)
    if alias is not None and is_guarded(alias):
        raise UsageError(f"{alias} needs evidence", "", "Add the model first, then: plantml models promote")
    parts = inspect(ref, cache)
    origin = _origin(ref, parts)
    for _ in range(_TRIES):
        number, size = _begin(history, parts, by), 0
        if number:
            size = _write(ledger.version_url(history.url, number), parts)
        content = _content(parts, number, size) | {"by": by, "why": why, "source": origin}
        if evidence:
            content["evidence"] = dict(evidence)
        event = history.append(partial(_admit, content))
        entry = history.ledger().with_digest(parts.bundle.digest)
        if entry is not None:
            if alias is not None:
                promote(history.url, entry.number, alias, by=by, why=why)
            return AddedVersion(**vars(entry), changed=event is not None)
    raise StorageError(
        f"Could not add to {history.url}", "its files were collected again and again", "Repeat the command."
    )


def check_name(name: object) -> None:
    """Raise `InputError` unless a model of a registry can be called so, or lie so in folders: `crops/leaf`."""
    *folders, last = name.split("/") if isinstance(name, str) else [""]
    if {"", ".", ".."} & {*folders} or not _NAME.fullmatch(last) or storage.suffix(last) in {*FILES, bundles.PACK}:
        hint = "Use letters, digits, dots and dashes: leaf"
        raise InputError(f"{name!r} is not a valid name for a model", "it names a place or a file", hint)


def check_location(history: History) -> None:
    """Raise `InputError` if the location holds other files, or the name is invalid."""
    url = history.url
    check_name(storage.basename(url))
    if not history.log.read() and storage.exists(url):
        foreign = next((entry.name for entry in storage.list_files(url)), None) if storage.is_dir(url) else url
        if foreign is not None:
            raise InputError(f"{url} holds other files", f"such as {foreign}", "Choose a new name for the model.")


def _begin(history: History, parts: VersionFiles, by: str) -> int:
    """Reserve a number: a new one, or that of a killed `add` of the same files; 0 if there is nothing to do."""
    number = 0

    def decide(state: Ledger) -> Mapping[str, Any] | None:
        nonlocal number
        if state.with_digest(parts.bundle.digest):
            number = 0
            return None
        same = [begun for begun, event in state.begun.items() if event.content["files"] == parts.files]
        number = same[0] if same else state.last + 1
        if same:
            return None
        return {"act": "begin", "version": number, "digest": parts.bundle.digest, "files": parts.files, "by": by}

    history.append(decide)
    return number


def _write(url: str, parts: VersionFiles) -> int:
    """Write all files, `model.json` last; returns their total size in bytes."""
    size = 0
    for name, data in parts.read():
        storage.write(storage.join(url, name), data)
        size += len(data)
    return size


def _admit(content: Mapping[str, Any], state: Ledger) -> Mapping[str, Any] | None:
    """The event that makes it a version, unless it is one already or its number was collected."""
    if state.with_digest(content["digest"]) or content["version"] not in state.begun:
        return None
    return content


def _content(parts: VersionFiles, number: int, size: int) -> dict[str, Any]:
    contract = parts.bundle.contract
    return {
        "act": "add",
        "version": number,
        "digest": parts.bundle.digest,
        "files": parts.files,
        "size": size,
        "dataset": contract.dataset.model_dump(mode="json"),
        "metrics": {name: value for name, value in contract.metrics.items() if "[" not in name},
    }


def _origin(ref: str, parts: VersionFiles) -> Any:
    """Origin of the bundle; for a version of a registry, with its history there."""
    url, _ = ledger.parse_reference(ref)
    if not parts.bundle.ref:
        return storage.absolute(ref)
    state = ledger.load(url)
    entry = state.with_digest(parts.bundle.digest)
    assert entry is not None
    past = [
        {key: value for key, value in event.as_json().items() if key != "files"}
        for event in state.events
        if event.content.get("version") == entry.number and event.content["act"] != "begin"
    ]
    return {"model": url, "version": entry.number, "history": past}
