"""What can be done to a registered model: each act is decided by all acts before it, and then one more of them."""

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
"""This alias, and those that begin with it and a dash, move only with evidence."""


@dataclass(frozen=True)
class Change:
    """What an act came to.

    Attributes:
        model: its URL.
        alias: that was moved; empty where none was.
        number: version that the alias points to now, or that the act was about.
        before: version that it pointed to; 0 for none.
        changed: false where there was nothing to do.
        event: the act; `None` where there was nothing to do.
    """

    model: str
    alias: str
    number: int
    before: int
    event: Event | None

    @property
    def changed(self) -> bool:
        """False where there was nothing to do."""
        return self.event is not None


def current_user() -> str:
    """Who acts where nobody says it: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def guarded(alias: str) -> bool:
    """True for an alias that decides what is in service."""
    return alias.lower().startswith(GUARDED)


def aliases(model: str) -> Mapping[str, int]:
    """The version that each alias points to."""
    return ledger.load(model).aliases


def history(model: str) -> Sequence[Event]:
    """All acts, in their order."""
    return ledger.load(model).events


def promote(
    model: str,
    number: int,
    alias: str,
    *,
    by: str,
    why: str = "",
    evidence: Mapping[str, Any] | str | None = None,
    expected: int | str | None = None,
    force: bool = False,
) -> Change:
    """Let an alias point to a version.

    `production` and what begins with it, in any case, need evidence, see `evidence.check`, or `force` and a reason.

    Args:
        model: URL of the model in its registry.
        number: of the version.
        alias: its name.
        by: who.
        why: for the history.
        evidence: what `plantml validate` found, as its JSON or the URL of it.
        expected: number or digest of the version that the alias points to as far as the caller knows, 0 or an
            empty text for none; not compared if `None`.
        force: without a look at the evidence.

    Raises:
        InputError: there is no such version, or the alias cannot be called that.
        UsageError: force without a reason.
        GateError: the evidence does not allow it, or somebody moved the alias meanwhile.
    """
    ledger.check_alias(alias)
    if force and not why:
        raise UsageError("A forced promotion needs its reason", "", "Say why: --why TEXT")
    acts = History(model)
    shown = evidences.read(evidence) if evidence is not None else None
    judged = guarded(alias) and not force
    kept: Mapping[str, Any] | None = None

    def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
        state = _known(acts, events)
        entry, now = state.entry(number), state.aliases.get(alias, 0)
        if now == number:
            return None
        check_expected(state, alias, expected)
        if judged:
            evidences.check(shown, state, entry, alias)
        content = {"act": "promote", "version": number, "digest": entry.digest, "alias": alias, "from": now}
        content |= {"by": by, "why": why, "forced": force}
        return content if kept is None else content | {"evidence": kept}

    bundle = references.find(f"{acts.url}@{number}")
    if shown is not None:
        # Decided once before anything is written, so that what is refused leaves nothing behind.
        if decide(acts.log.read()) is None:
            return Change(acts.url, alias, number, number, None)
        kept = evidences.keep(acts.url, shown, evidences.judged_on(shown, bundle.contract) if judged else ())
    event = acts.log.append(decide)
    return Change(acts.url, alias, number, _from(event, number), event)


def rollback(model: str, alias: str, *, by: str, why: str = "", expected: int | str | None = None) -> Change:
    """Let an alias point to the version again that it pointed to before; repeated, to the one before that.

    Args:
        model: URL of the model in its registry.
        alias: its name.
        by: who.
        why: for the history.
        expected: as of `promote`.

    Raises:
        InputError: there is no such alias, or nothing before.
        GateError: somebody moved the alias meanwhile.
    """
    acts, target = History(model), 0

    def decide(events: Sequence[Event]) -> Mapping[str, Any]:
        nonlocal target
        state = _known(acts, events)
        now = state.entry(alias)
        check_expected(state, alias, expected)
        target = state.before(alias) or 0
        if not target:
            raise InputError(
                f"{alias} of {acts.url} has nothing to go back to",
                f"version {now.number} is the first that it points to, of those that are there",
                f"plantml models history {acts.url}",
            )
        return {"act": "rollback", "version": target, "digest": state.entries[target].digest, "alias": alias,
                "from": now.number, "by": by, "why": why}  # fmt: skip

    event = acts.log.append(decide)
    return Change(acts.url, alias, target, _from(event, 0), event)


def unalias(model: str, alias: str, *, by: str, why: str = "") -> Change:
    """Take an alias away. One that is not there is no error.

    Raises:
        UsageError: one that decides what is in service, without a reason.
    """
    if guarded(alias) and not why:
        raise UsageError(f"Taking {alias} away needs its reason", "", "Say why: --why TEXT")
    acts, before = History(model), 0

    def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
        nonlocal before
        before = _known(acts, events).aliases.get(alias, 0)
        return {"act": "unalias", "alias": alias, "from": before, "by": by, "why": why} if before else None

    event = acts.log.append(decide)
    return Change(acts.url, alias, 0, before, event)


def remove(model: str, number: int, *, by: str, why: str = "") -> Change:
    """Remove a version: it cannot be named any more. Its files go with the next `collect`.

    Raises:
        InputError: there is no such version.
        GateError: an alias points to it.
    """
    acts = History(model)

    def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
        state = _known(acts, events)
        if number in state.removed:
            return None
        entry = state.entry(number)
        names = state.names(number)
        if names:
            raise GateError(
                f"Version {number} of {acts.url} is not removed",
                f"{' and '.join(names)} points to it",
                "Promote another version first, or take the alias away: plantml models unalias",
            )
        return {"act": "remove", "version": number, "digest": entry.digest, "by": by, "why": why}

    return Change(acts.url, "", number, 0, acts.log.append(decide))


def check_expected(state: Ledger, alias: str, expected: int | str | None) -> None:
    """Raise `GateError` if an alias does not point to the version, by number or digest, that somebody thinks."""
    if expected is None:
        return
    number = state.aliases.get(alias, 0)
    digest = state.entries[number].digest if number else ""
    if expected not in ({0, ""} if not number else {number, digest}):
        raise GateError(
            f"{alias} of {state.url} was moved meanwhile",
            f"it points to {_named(state, number)}" + _by_whom(state, alias),
            "Look at it (plantml models history), and judge against what is in service now.",
        )


def _named(state: Ledger, number: int) -> str:
    return f"version {number} ({state.entries[number].digest[:12]})" if number else "no version"


def _by_whom(state: Ledger, alias: str) -> str:
    last = next((event for event in reversed(state.events) if event.content.get("alias") == alias), None)
    return f" since {last.time}, by {last.content['by']}" if last else ""


def _known(acts: History, events: Sequence[Event]) -> Ledger:
    if not events:
        ledger.load(acts.url)  # raises, with the explanation
    return ledger.fold(acts.url, events)


def _from(event: Event | None, otherwise: int) -> int:
    return int(event.content["from"]) if event else otherwise
