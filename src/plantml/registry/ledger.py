"""The versions and aliases of a registered model, as a fold over its events.

    REGISTRY/leaf/
      events/000001.json   see `event_log`: begin, add, promote, rollback, unalias, remove, collect
      0001/                an immutable bundle, a version once its `add` is written
      evidence/<sha256>.json

`begin` reserves a number, then the files are written, and `add` makes them a version. So files of a killed command
are never a version. References: `REGISTRY/leaf@3`, `REGISTRY/leaf@production`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from plantml import storage
from plantml.errors import InputError, NotFoundError
from plantml.storage.event_log import Event, Events

EVENTS = "events"
_VERSIONS_SHOWN = 10
_ALIAS = r"[A-Za-z][A-Za-z0-9_-]{0,63}"


@dataclass(frozen=True)
class Entry:
    """One version of a model in a registry.

    Numbers start at 1 and are never reused. `files` are SHA-256 by name, `size` is that of all, in bytes.
    """

    number: int
    url: str
    digest: str
    files: Mapping[str, str]
    size: int
    event: Event


@dataclass
class Ledger:
    """The state after all events. Built by `fold`; do not modify.

    Attributes:
        url: of the model in its registry.
        events: all events.
        entries: existing versions by number.
        begun: `begin` events by number, of versions whose `add` is under way or was killed.
        removed: `remove` events by number, of versions whose files may still exist.
        trails: by alias, the versions it pointed to; the last one is current.
        last: highest number ever reserved.
    """

    url: str
    events: tuple[Event, ...] = ()
    entries: dict[int, Entry] = field(default_factory=dict)
    begun: dict[int, Event] = field(default_factory=dict)
    removed: dict[int, Event] = field(default_factory=dict)
    trails: dict[str, list[int]] = field(default_factory=dict)
    last: int = 0

    def current(self, alias: str) -> Entry | None:
        """The version that an alias points to."""
        number = self.aliases.get(alias)
        return None if number is None else self.entries[number]

    @property
    def aliases(self) -> Mapping[str, int]:
        """The version that each alias points to."""
        return MappingProxyType({name: trail[-1] for name, trail in sorted(self.trails.items()) if trail})

    def names(self, number: int) -> list[str]:
        """Aliases that point to a version."""
        return [name for name, at in self.aliases.items() if at == number]

    def with_digest(self, digest: str) -> Entry | None:
        """The version with a model's digest."""
        return next((entry for entry in self.entries.values() if entry.digest == digest), None)

    def before(self, alias: str) -> int | None:
        """The version that `rollback` would restore: the latest earlier one that still exists."""
        return next((at for at in reversed(self.trails.get(alias, [])[:-1]) if at in self.entries), None)

    def entry(self, version: int | str) -> Entry:
        """The version of a number or alias. Raises `InputError` that lists the existing ones."""
        is_alias = isinstance(version, str) and not version.isdecimal()
        number = self.aliases.get(str(version)) if is_alias else int(version)
        if number is None or number not in self.entries:
            missing = f"alias {version!r}" if is_alias else f"version {version}"
            why = "it was removed" if number in self.removed else ""
            raise InputError(f"{self.url} has no {missing}", why or self.summary(), f"plantml models list {self.url}")
        return self.entries[number]

    def summary(self) -> str:
        """A summary of versions and aliases."""
        known = sorted(self.entries)
        versions = f"its versions: {', '.join(map(str, known[-_VERSIONS_SHOWN:]))}" if known else "it has no version"
        more = f" and {len(known) - _VERSIONS_SHOWN} earlier ones" if len(known) > _VERSIONS_SHOWN else ""
        return "; ".join([versions + more, *(f"{name} is version {number}" for name, number in self.aliases.items())])


def fold(url: str, events: Iterable[Event]) -> Ledger:
    """The state after these events."""
    state = Ledger(url, tuple(events))
    for event in state.events:
        try:
            _apply(state, event)
            if lost := [name for name, number in state.aliases.items() if number not in state.entries]:
                raise event.damaged(f"{lost[0]} points to a version that does not exist")
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise event.damaged(f"it contradicts the events before it: {error!r}") from error
    return state


def _apply(state: Ledger, event: Event) -> None:
    content = event.content
    act, number, alias = content["act"], int(content.get("version", 0)), str(content.get("alias", ""))
    state.last = max(state.last, number)
    match act:
        case "begin":
            state.begun[number] = event
        case "add":
            state.begun.pop(number, None)
            files = {str(name): str(sha256) for name, sha256 in content["files"].items()}
            size = int(content["size"])
            state.entries[number] = Entry(
                number, version_url(state.url, number), str(content["digest"]), files, size, event
            )
        case "promote":
            state.trails.setdefault(alias, []).append(number)
        case "rollback":
            trail = state.trails[alias]
            trail.pop()
            while trail[-1] != number:
                trail.pop()
        case "unalias":
            state.trails.pop(alias, None)
        case "remove":
            state.entries.pop(number, None)
            state.begun.pop(number, None)
            state.removed[number] = event
        case "collect":
            state.removed.pop(number, None)
        case _:
            raise InputError(
                f"{state.url} has an event {act!r}", "a newer plantml wrote it", "Update plantml on this machine."
            )


Decide = Callable[[Ledger], Mapping[str, Any] | None]
"""From the state after all events so far to the content of the next one; see `event_log.Decide`."""


class History:
    """The events of one model, to read and to append to."""

    def __init__(self, url: str) -> None:
        self.url = storage.absolute(url)
        self.log = Events(storage.join(self.url, EVENTS))

    def ledger(self) -> Ledger:
        """The state after all events so far."""
        return fold(self.url, self.log.read())

    def append(self, decide: Decide) -> Event | None:
        """Add the event that `decide` wants, if it wants one; see `event_log.Events.append`."""
        return self.log.append(lambda events: decide(fold(self.url, events)))


def version_url(model: str, number: int) -> str:
    """URL of the bundle of a version."""
    return storage.join(model, f"{number:04d}")


def parse_reference(ref: str) -> tuple[str, str | None]:
    """Split `REGISTRY/leaf@3` into the model's URL and `3`. The `@` counts only in the last path segment."""
    return storage.reference(ref, _ALIAS) if holds_registries(ref) else (storage.absolute(ref), None)


def holds_registries(url: str) -> bool:
    """False for locations that cannot be listed or written to: archives and plain web servers."""
    return "::" not in url and not url.startswith(("http://", "https://"))


def check_alias(name: str) -> None:
    """Raise `InputError` for a malformed alias."""
    if not re.fullmatch(_ALIAS, name):
        raise InputError(
            f"{name!r} is not a valid alias",
            "an alias starts with a letter and has letters, digits, _ and -",
            "Choose a name such as challenger.",
        )


def load(url: str) -> Ledger:
    """Read the versions and aliases of the model at `url`.

    Raises:
        NotFoundError: there is no such model.
    """
    return existing(History(url).ledger())


def existing(state: Ledger) -> Ledger:
    """The state of a model that exists. Raises `NotFoundError` for any other."""
    if not state.events:
        raise NotFoundError(
            f"There is no registered model at {state.url}",
            f"it has no {EVENTS}/",
            f"Add one: plantml models add RUN {state.url}",
        )
    return state


def resolve(ref: str) -> tuple[Ledger, Entry]:
    """The model and version of a reference. Raises `InputError` or `NotFoundError`."""
    url, version = parse_reference(ref)
    state = load(url)
    if version is None:
        raise missing_version_error(state)
    return state, state.entry(version)


def missing_version_error(state: Ledger) -> InputError:
    """The error for a reference without a version."""
    aliases = sorted(state.aliases, key=lambda name: not name.startswith("production"))
    names = [*aliases, *(str(number) for number in sorted(state.entries, reverse=True)[:1])]
    return InputError(
        f"{state.url} is a registered model, but the reference names no version",
        state.summary(),
        f"Name one: {state.url}@{names[0]}" if names else f"Add one: plantml models add RUN {state.url}",
    )


def find_entry(ref: str) -> Entry | None:
    """The version if `ref` is `MODEL@VERSION` of a registry, else `None`. Raises `InputError`."""
    url, version = parse_reference(ref)
    if version is None:
        return None
    state = History(url).ledger()
    return state.entry(version) if state.events else None


def is_model(url: str) -> bool:
    """True if there is a registered model at a URL."""
    return holds_registries(url) and bool(History(url).log.read())
