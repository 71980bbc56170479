"""Making a bundle a version: a number is taken, the files are written, and only then it is there."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plantml import storage
from plantml.errors import InputError, StorageError, UsageError
from plantml.model import bundle as bundles
from plantml.model.runtimes import FILES
from plantml.registry import ledger
from plantml.registry.ledger import Acts, Entry, Ledger
from plantml.registry.operations import guarded, promote
from plantml.registry.version_files import Parts, inspect

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TRIES = 20


@dataclass(frozen=True)
class Added(Entry):
    """A version that `add` made, or that was there. `changed` is false where there was nothing to do."""

    changed: bool


def add(
    ref: str,
    model: str,
    *,
    by: str,
    why: str = "",
    evidence: Mapping[str, Any] | None = None,
    alias: str | None = None,
    cache: storage.Cache | None = None,
) -> Added:
    """Make a bundle a version of a registered model.

    Safe to repeat and to kill: the same model is added once, and what is not added whole is no version.

    Args:
        ref: a run, a bundle, a pack, or a version of another registry.
        model: URL of the model in its registry; a new one starts with version 1.
        by: who.
        why: for the history.
        evidence: anything as JSON that belongs to it, for the history.
        alias: that is to point to it then; one that needs evidence is set by `promote` only.
        cache: for remote files.

    Raises:
        InputError: it is not a sound bundle, or not a place for one.
        UsageError: the alias needs evidence.
        StorageError: a file is not what its hash promises, or the storage failed.
    """
    acts = Acts(model)
    check_place(acts)
    if alias is not None and guarded(alias):
        raise UsageError(f"{alias} needs evidence", "", "Add the model first, then: plantml models promote")
    parts = inspect(ref, cache)
    origin = _origin(ref, parts)
    for _ in range(_TRIES):
        number, size = _begin(acts, parts, by), 0
        if number:
            size = _write(ledger.version_url(acts.url, number), parts)
        content = _content(parts, number, size) | {"by": by, "why": why, "source": origin}
        if evidence:
            content["evidence"] = dict(evidence)
        event = acts.log.append(lambda events, wanted=content: _admit(ledger.fold(acts.url, events), wanted))  # type: ignore[misc]
        entry = acts.ledger().with_digest(parts.bundle.digest)
        if entry is not None:
            if alias is not None:
                promote(acts.url, entry.number, alias, by=by, why=why)
            return Added(**vars(entry), changed=event is not None)
    raise StorageError(
        f"Could not add to {acts.url}", "what was written was taken away again and again", "Repeat the command."
    )


def check_place(acts: Acts) -> None:
    """Raise `InputError` if a model would be made where something else is, or cannot be called that."""
    url = acts.url
    name = storage.basename(url)
    if not _NAME.fullmatch(name) or storage.suffix(name) in {*FILES, bundles.PACK}:
        raise InputError(
            f"{name!r} cannot be the name of a model", "", "Letters, digits, dots and dashes, like REGISTRY/leaf"
        )
    if not acts.log.read() and storage.exists(url):
        foreign = next((entry.name for entry in storage.list_files(url)), None) if storage.is_dir(url) else url
        if foreign is not None:
            raise InputError(f"{url} holds other files", f"such as {foreign}", "Choose a new name for the model.")


def _begin(acts: Acts, parts: Parts, by: str) -> int:
    """The number to write to: a new one, or that of a killed `add` of the same files; 0 if nothing is to do."""
    taken = 0

    def decide(events: Any) -> Mapping[str, Any] | None:
        nonlocal taken
        state = ledger.fold(acts.url, events)
        if state.with_digest(parts.bundle.digest):
            taken = 0
            return None
        same = [number for number, event in state.begun.items() if event.content["files"] == parts.files]
        taken = same[0] if same else state.last + 1
        if same:
            return None
        return {"act": "begin", "version": taken, "digest": parts.bundle.digest, "files": parts.files, "by": by}

    acts.log.append(decide)
    return taken


def _write(url: str, parts: Parts) -> int:
    """Write all files, `model.json` last; returns their size in bytes."""
    size = 0
    for name, data in parts.read():
        storage.write(storage.join(url, name), data)
        size += len(data)
    return size


def _admit(state: Ledger, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The act that makes it a version, unless it is one, or its number was taken away meanwhile."""
    if state.with_digest(content["digest"]) or content["version"] not in state.begun:
        return None
    return content


def _content(parts: Parts, number: int, size: int) -> dict[str, Any]:
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


def _origin(ref: str, parts: Parts) -> Any:
    """Where it came from; of a version in a registry with all that was done to it there."""
    url, _ = ledger.parse(ref)
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
