"""Numbered events: a history that many machines write and nobody can change.

    FOLDER/
      000001.json   one event with its checksum, created exclusively
      000002.json
      …

What is current is a fold over the events, in their order. Whoever acts reads all events, decides by them, and
creates the next number. If somebody else was faster, the act is decided again by what is true then. So every act
is judged by all that came before it: two machines never act past each other.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from plantml import storage
from plantml.errors import StorageError
from plantml.storage import checksums, numbered_files

_ID, _TIME, _ENDING = "id", "time", ".json"
_RESTORE = "Bring the file back from a backup or another machine: no event is ever removed or changed."


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        number: its place in the history, from 1.
        time: ISO 8601 in UTC, by the clock of the machine that wrote it; the numbers, not the times, are the order.
        content: what was written.
        url: of its file.
    """

    number: int
    time: str
    content: Mapping[str, Any]
    url: str = field(default="", compare=False, repr=False)

    def as_json(self) -> dict[str, Any]:
        """The event as JSON types."""
        return {"number": self.number, "time": self.time, **self.content}

    def damaged(self, why: object) -> StorageError:
        """The error for an event that cannot be what was written."""
        return StorageError(f"{self.url or f'Event {self.number}'} is damaged", str(why), _RESTORE)


_FOLDERS = 64
_kept: dict[str, list[tuple[str, Event]]] = {}
"""Events of the last folders that were read, with the stamps of their files."""
_keeping = threading.Lock()

Decide = Callable[[Sequence[Event]], Mapping[str, Any] | None]
"""From all events so far to the content of the next one; `None` if there is nothing to do, an error if it may not be.

May be called several times, and must not act itself.
"""


class Events:
    """The events in one folder.

    What was read once in a process is kept, as events never change: looking again costs a listing.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._last = -1

    def grown(self) -> bool:
        """True if there is an event after those that were read last: one question, where `read` lists all."""
        return self._last < 0 or storage.exists(self._file(self._last + 1))

    def read(self) -> Sequence[Event]:
        """All events, in their order; none where there is no such folder.

        Raises:
            StorageError: an event is missing between others, or damaged.
        """
        stamps = {number: entry.stamp for number, entry in numbered_files.list_numbers(self.url, _ENDING).items()}
        if sorted(stamps) != list(range(1, len(stamps) + 1)):
            gap = next(number for number in range(1, len(stamps) + 1) if number not in stamps)
            raise StorageError(
                f"{self.url} is damaged",
                f"event {gap} is missing, and {max(stamps)} is there",
                _RESTORE,
            )
        # A folder that was put in the place of another one has the same numbers, and other stamps.
        with _keeping:
            kept = [pair for pair in _kept.get(self.url, ()) if stamps.get(pair[1].number) == pair[0]]
        known = {event.number: event for _, event in kept}
        urls = [self._file(number) for number in range(1, len(stamps) + 1) if number not in known]
        for url, data in storage.read_many(urls):
            if isinstance(data, Exception):
                raise data
            event = _parse(url, data)
            known[event.number] = event
        events = [known[number] for number in range(1, len(stamps) + 1)]
        with _keeping:
            _kept.pop(self.url, None)  # the last one that was read is the last to go
            _kept[self.url] = [(stamps[event.number], event) for event in events]
            while len(_kept) > _FOLDERS:
                del _kept[next(iter(_kept))]
        self._last = len(events)
        return events

    def append(self, decide: Decide) -> Event | None:
        """Add the event that `decide` wants; returns it, or `None` if it wants none.

        Raises:
            StorageError: others were faster again and again, or the storage failed.
            PlantmlError: whatever `decide` raises.
        """

        def attempt() -> Event | None:
            events = self.read()
            content = decide(events)
            if content is None:
                return None
            record = {_ID: os.urandom(16).hex(), _TIME: storage.now_utc(), **content}
            numbered_files.create(self.url, len(events) + 1, _ENDING, checksums.to_json(record))
            return _event(self._file(len(events) + 1), record)

        return numbered_files.create_next(self.url, attempt)

    def _file(self, number: int) -> str:
        return numbered_files.file_url(self.url, number, _ENDING)


def _parse(url: str, data: bytes) -> Event:
    record = checksums.from_json(data, url, _RESTORE, StorageError)
    try:
        datetime.fromisoformat(record[_TIME])
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{url} is damaged", "it is no event: it has no time", _RESTORE) from error
    return _event(url, record)


def _event(url: str, record: Mapping[str, Any]) -> Event:
    number = int(storage.basename(url).split(".")[0])
    content = {key: value for key, value in record.items() if key not in {_ID, _TIME}}
    return Event(number, record[_TIME], content, url)
