"""What a registry says of one model: its versions and aliases, as a fold over all acts.

    REGISTRY/leaf/
      events/000001.json   the acts, see `event_log`: begin, add, promote, rollback, unalias, remove, collect
      0001/                a version: an immutable bundle, there as a version from its `add` on
      evidence/<sha256>.json

A version's number is taken by `begin`, its files are written, and `add` makes it a version. So what a killed
command left behind is never one. References: `REGISTRY/leaf@3`, `REGISTRY/leaf@production`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from plantml import storage
from plantml.errors import InputError, NotFoundError
from plantml.storage.event_log import Event, Events

EVENTS = "events"
_VERSIONS_SHOWN = 10
_ALIAS = r"[A-Za-z][A-Za-z0-9_-]{0,63}"


@dataclass(frozen=True)
class Entry:
    """One version of a model in a registry.

    Attributes:
        number: of the version, from 1; never used again.
        url: of its bundle.
        digest: of the model.
        files: SHA-256 of each of its files, by name.
        size: bytes of all files.
        event: that added it.
    """

    number: int
    url: str
    digest: str
    files: Mapping[str, str]
    size: int
    event: Event


@dataclass
class Ledger:
    """What all acts so far come to. Made by `fold`, and not to be changed.

    Attributes:
        url: of the model in its registry.
        events: all acts.
        entries: versions that are there, by number.
        begun: acts that took a number which is no version yet: an `add` is under way, or was killed.
        removed: versions that were removed and whose files may still be there, with the act.
        trails: by alias, the versions it pointed to, one after the other; the last one is current.
        last: highest number that was ever taken.
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
        """The version that is this model."""
        return next((entry for entry in self.entries.values() if entry.digest == digest), None)

    def before(self, alias: str) -> int | None:
        """The version that `rollback` would go back to: the last one before this that is still there."""
        return next((at for at in reversed(self.trails.get(alias, [])[:-1]) if at in self.entries), None)

    def entry(self, at: int | str) -> Entry:
        """The version of a number or alias. Raises `InputError` that says what there is."""
        number = self.aliases.get(at) if isinstance(at, str) and not at.isdecimal() else int(at)
        if number is None or number not in self.entries:
            what = f"{self.url} has no version {at}" if number is not None else f"{self.url} has no alias {at!r}"
            gone = "it was removed" if number in self.removed else ""
            raise InputError(what, gone or self.summary(), f"plantml models list {self.url}")
        return self.entries[number]

    def summary(self) -> str:
        """Versions and aliases in a few words."""
        known = sorted(self.entries)
        versions = f"its versions: {', '.join(map(str, known[-_VERSIONS_SHOWN:]))}" if known else "it has no version"
        more = f" and {len(known) - _VERSIONS_SHOWN} before" if len(known) > _VERSIONS_SHOWN else ""
        return "; ".join([versions + more, *(f"{name} is version {number}" for name, number in self.aliases.items())])


def fold(url: str, events: Iterable[Event]) -> Ledger:
    """What the acts come to, in their order."""
    state = Ledger(url, tuple(events))
    for event in state.events:
        try:
            _apply(state, event)
            if lost := [name for name, number in state.aliases.items() if number not in state.entries]:
                raise event.damaged(f"{lost[0]} points to a version that is not there")
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise event.damaged(f"it makes no sense after those before it: {error!r}") from error
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
                f"{state.url} has an act {act!r}", "a newer plantml wrote it", "Update plantml on this machine."
            )


class History:
    """The acts of one model, open for reading and for new ones."""

    def __init__(self, url: str) -> None:
        self.url = storage.absolute(url)
        self.log = Events(storage.join(self.url, EVENTS))

    def ledger(self) -> Ledger:
        """What all acts come to by now."""
        return fold(self.url, self.log.read())


def version_url(model: str, number: int) -> str:
    """Where the bundle of a version is."""
    return storage.join(model, f"{number:04d}")


def parse_reference(ref: str) -> tuple[str, str | None]:
    """`REGISTRY/leaf@3` as the model's URL and `3`; the `@` counts only at the end of the last path segment."""
    return storage.reference(ref, _ALIAS) if holds_registries(ref) else (storage.absolute(ref), None)


def holds_registries(url: str) -> bool:
    """False for what cannot be listed, or not be written to: archives and plain web servers."""
    return "::" not in url and not url.startswith(("http://", "https://"))


def check_alias(name: str) -> None:
    """Raise `InputError` if an alias cannot be called that."""
    if not re.fullmatch(_ALIAS, name):
        raise InputError(
            f"{name!r} cannot be an alias", "an alias starts with a letter and has letters, digits, _ and -"
        )


def load(url: str) -> Ledger:
    """What a registry says of the model at `url`.

    Raises:
        NotFoundError: there is no model of that name.
    """
    state = History(url).ledger()
    if not state.events:
        raise NotFoundError(
            f"There is no registered model at {state.url}",
            f"it has no {EVENTS}/",
            f"Add one: plantml models add RUN {state.url}",
        )
    return state


def resolve(ref: str) -> tuple[Ledger, Entry]:
    """The model and the version that a reference means. Raises `InputError` or `NotFoundError`."""
    url, at = parse_reference(ref)
    state = load(url)
    if at is None:
        raise missing_version_error(state)
    return state, state.entry(at)


def missing_version_error(state: Ledger) -> InputError:
    """The error for a model without a version."""
    aliases = sorted(state.aliases, key=lambda name: not name.startswith("production"))
    names = [*aliases, *(str(number) for number in sorted(state.entries, reverse=True)[:1])]
    return InputError(
        f"{state.url} is a registered model, and no version of it is named",
        state.summary(),
        f"Say which: {state.url}@{names[0]}" if names else f"Add one: plantml models add RUN {state.url}",
    )


def find_entry(ref: str) -> Entry | None:
    """The version if `ref` is one of a registry with `@`, else `None`. Raises `InputError`."""
    url, at = parse_reference(ref)
    if at is None:
        return None
    state = History(url).ledger()
    return state.entry(at) if state.events else None


def is_model(url: str) -> bool:
    """True if a registered model is at that URL."""
    return holds_registries(url) and bool(History(url).log.read())
