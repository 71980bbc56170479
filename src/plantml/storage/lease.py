"""A lease on a piece of work: one machine works, and another takes over if it stops renewing.

The lease is a fold over events: the author of the last `take` or `renew` holds it until the time in that event.
Clocks should differ by much less than the lease. If they do not, two machines may work at once, which is harmless:
results are created exclusively, and a promotion expects the version that was compared with.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from plantml.concurrency import Stop
from plantml.errors import PlantmlError, StoppedError
from plantml.storage.event_log import Event, Events

TAKE, RENEW, RELEASE = "take", "renew", "release"
_ACTS = (TAKE, RENEW, RELEASE)
_RENEWALS = 3
"""Renewals per lease, of which two may fail."""


class Lease:
    """A lease, held from `take` to the end of the block and renewed by a thread.

    Args:
        log: URL of the work's events.
        seconds: how long it lasts without renewal.
    """

    def __init__(self, log: str, seconds: float) -> None:
        self._log, self._seconds = log, seconds
        self._me = {**_process(), "lease": uuid.uuid4().hex}
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    def take(self) -> Mapping[str, Any] | None:
        """Take the lease. Returns its holder if another process has it, else `None`."""
        holder: Mapping[str, Any] | None = None

        def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
            nonlocal holder
            holder = current_holder(events)
            return None if holder else self._content(TAKE)

        Events(self._log).append(decide)
        return holder

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        assert self._thread is not None
        self._thread.join()
        with contextlib.suppress(PlantmlError):  # then it expires
            self._append(RELEASE)

    def _renew(self) -> None:
        until = time.time() + self._seconds
        while not self._end.wait(self._seconds / _RENEWALS):
            with contextlib.suppress(PlantmlError):  # the next renewal may succeed
                until = time.time() + self._seconds if self._append(RENEW) else 0.0
            if time.time() > until:
                self.lost = True
                return

    def _append(self, act: str) -> Event | None:
        """Add an event; `None` if the lease is no longer ours."""

        def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
            last = _last(events)
            return self._content(act) if last is not None and last["lease"] == self._me["lease"] else None

        return Events(self._log).append(decide)

    def _content(self, act: str) -> Mapping[str, Any]:
        return {"act": act, "until": time.time() + self._seconds, **self._me}


class LeaseStop(Stop):
    """A stop that a lost lease also triggers."""

    def __init__(self) -> None:
        super().__init__()
        self.lease: Lease | None = None

    def __bool__(self) -> bool:
        return super().__bool__() or (self.lease is not None and self.lease.lost)

    @property
    def lost(self) -> bool:
        """True if the lease was lost and no signal arrived."""
        return self.lease is not None and self.lease.lost and not super().__bool__()

    def error(self, what: str, hint: str) -> StoppedError:
        """See `concurrency.Stop.error`."""
        if self.lost:
            return StoppedError(what, "another machine took over", "The work continues there.")
        return super().error(what, hint)


def current_holder(events: Sequence[Event], now: float | None = None) -> Mapping[str, Any] | None:
    """The holder of the lease; `None` if it is free, expired, or held by a dead process of this machine."""
    last = _last(events)
    if last is None or last["act"] == RELEASE or last["until"] < (time.time() if now is None else now) or _dead(last):
        return None
    return last


def _last(events: Sequence[Event]) -> Mapping[str, Any] | None:
    acts = (event for event in reversed(events) if event.content.get("act") in _ACTS)
    last = next(acts, None)
    if last is None:
        return None
    content = last.content
    kinds = {"lease": str, "host": str, "boot": str, "started": str, "pid": int, "until": float}
    if wrong := [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]:
        raise last.damaged(f"it is not a lease: its {wrong[0]} is {content.get(wrong[0])!r}")
    return content


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}


def _dead(holder: Mapping[str, Any]) -> bool:
    """True if the holder was a process of this machine and container and has ended."""
    if not holder.get("boot") or holder["boot"] != _boot():
        return False
    return bool(_started(int(holder["pid"])) != holder["started"])


def _boot() -> str:
    """Identifies this boot of the machine and its process namespace; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process, in kernel ticks; empty if it has ended or is a zombie."""
    try:
        # The command's name, in parentheses, may contain anything, so fields are counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]
