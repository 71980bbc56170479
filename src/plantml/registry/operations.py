"""Operations on a registered model; each is one event, decided by all events before it."""

import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plantml.errors import GateError, InputError, UsageError
from plantml.registry import evidence as evidences
from plantml.registry import ledger, references
from plantml.registry.ledger import History, Ledger
from plantml.storage.event_log import Event

GUARDED = "production"
"""This alias, and aliases that start with it, move only with evidence."""


@dataclass(frozen=True)
class Change:
    """Result of an operation.

    `number` is the version that the alias points to now, or that was removed; `before` the one it pointed to, 0 for
    none. The event is `None` if there was nothing to do.
    """

    model: str
    alias: str
    number: int
    before: int
    event: Event | None

    @property
    def changed(self) -> bool:
        """False if there was nothing to do."""
        return self.event is not None


def current_user() -> str:
    """Default author of an event: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # users of containers may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def is_guarded(alias: str) -> bool:
    """True for an alias that names a version in service."""
    return alias.lower().startswith(GUARDED)


def aliases(model: str) -> Mapping[str, int]:
    """The version that each alias points to."""
    return ledger.load(model).aliases


def history(model: str) -> Sequence[Event]:
    """All events, in order."""
    return ledger.load(model).events


def promote(
    model: str,
    number: int,
    alias: str,
    *,
    by: str | None = None,
    why: str = "",
    evidence: Mapping[str, Any] | str | None = None,
    expected: int | str | None = None,
    force: bool = False,
) -> Change:
    """Point an alias to a version.

    `production`, and aliases that start with it in any case, need evidence (see `evidence.check`), or `force` and a
    reason.

    `evidence` is the result of `plantml validate`, as JSON or as a URL. `expected` is the number or digest of the
    version that the caller thinks the alias points to, 0 or an empty string for none; it is not checked if `None`.

    Raises:
        InputError: there is no such version, or the alias is malformed.
        UsageError: `force` without a reason.
        GateError: the evidence does not allow it, or the alias was moved in the meantime.
    """
    ledger.check_alias(alias)
    if force and not why:
        raise UsageError("A forced promotion needs a reason", "", "Give one: --why TEXT")
    model_history = History(model)
    validation = evidences.read(evidence) if evidence is not None else None
    needs_evidence = is_guarded(alias) and not force
    summary: Mapping[str, Any] | None = None

    def decide(state: Ledger) -> Mapping[str, Any] | None:
        entry, current = ledger.existing(state).entry(number), state.aliases.get(alias, 0)
        if current == number:
            return None
        check_expected(state, alias, expected)
        if needs_evidence:
            evidences.check(validation, state, entry, alias)
        content = {"act": "promote", "version": number, "digest": entry.digest, "alias": alias, "from": current}
        content |= {"by": by or current_user(), "why": why, "forced": force}
        return content if summary is None else content | {"evidence": summary}

    bundle = references.find(f"{model_history.url}@{number}")
    if validation is not None:
        # Decided before anything is written, so that a refused promotion leaves nothing behind.
        if decide(model_history.ledger()) is None:
            return Change(model_history.url, alias, number, number, None)
        splits = evidences.check_test_photos(validation, bundle.contract) if needs_evidence else ()
        summary = evidences.store(model_history.url, validation, splits)
    event = model_history.append(decide)
    return Change(model_history.url, alias, number, _from(event, number), event)


def rollback(
    model: str, alias: str, *, by: str | None = None, why: str = "", expected: int | str | None = None
) -> Change:
    """Point an alias to its previous version; repeated, to the one before that. Arguments are those of `promote`.

    Raises:
        InputError: there is no such alias, or no previous version.
        GateError: the alias was moved in the meantime.
    """
    model_history, target = History(model), 0

    def decide(state: Ledger) -> Mapping[str, Any]:
        nonlocal target
        current = ledger.existing(state).entry(alias)
        check_expected(state, alias, expected)
        target = state.before(alias) or 0
        if not target:
            raise InputError(
                f"{alias} of {model_history.url} has no previous version",
                f"version {current.number} is the first existing version it pointed to",
                f"plantml models history {model_history.url}",
            )
        return {"act": "rollback", "version": target, "digest": state.entries[target].digest, "alias": alias,
                "from": current.number, "by": by or current_user(), "why": why}  # fmt: skip

    event = model_history.append(decide)
    return Change(model_history.url, alias, target, _from(event, 0), event)


def unalias(model: str, alias: str, *, by: str | None = None, why: str = "") -> Change:
    """Remove an alias; does nothing if it does not exist.

    Raises:
        UsageError: an alias that needs evidence, without a reason.
    """
    if is_guarded(alias) and not why:
        raise UsageError(f"Removing {alias} needs a reason", "", "Give one: --why TEXT")
    model_history, before = History(model), 0

    def decide(state: Ledger) -> Mapping[str, Any] | None:
        nonlocal before
        before = ledger.existing(state).aliases.get(alias, 0)
        return (
            {"act": "unalias", "alias": alias, "from": before, "by": by or current_user(), "why": why}
            if before
            else None
        )

    event = model_history.append(decide)
    return Change(model_history.url, alias, 0, before, event)


def remove(model: str, number: int, *, by: str | None = None, why: str = "") -> Change:
    """Remove a version, so that it can no longer be used. `collect_garbage` deletes its files.

    Raises:
        InputError: there is no such version.
        GateError: an alias points to it.
    """
    model_history = History(model)

    def decide(state: Ledger) -> Mapping[str, Any] | None:
        if number in ledger.existing(state).removed:
            return None
        entry = state.entry(number)
        names = state.names(number)
        if names:
            raise GateError(
                f"Version {number} of {model_history.url} is not removed",
                f"{' and '.join(names)} points to it",
                "Promote another version first, or remove the alias: plantml models unalias",
            )
        return {"act": "remove", "version": number, "digest": entry.digest, "by": by or current_user(), "why": why}

    return Change(model_history.url, "", number, 0, model_history.append(decide))


def check_expected(state: Ledger, alias: str, expected: int | str | None) -> None:
    """Raise `GateError` unless an alias points to the expected version, by number or digest."""
    if expected is None:
        return
    number = state.aliases.get(alias, 0)
    digest = state.entries[number].digest if number else ""
    if expected not in ({0, ""} if not number else {number, digest}):
        last = next((event for event in reversed(state.events) if event.content.get("alias") == alias), None)
        target = f"version {number} ({digest[:12]})" if number else "no version"
        raise GateError(
            f"{alias} of {state.url} was moved in the meantime",
            f"it points to {target}" + (f" since {last.time}, by {last.content['by']}" if last else ""),
            "See plantml models history, and validate against the version in service.",
        )


def _from(event: Event | None, default: int) -> int:
    return int(event.content["from"]) if event else default
