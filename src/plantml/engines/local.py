"""`--on local:N`: N processes on this machine."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from plantml.engines.dispatch import Event, lost
from plantml.engines.jobs import Job, error_from_json

COMMAND = (sys.executable, "-m", "plantml.engines.worker")

_GRACE = 30.0
"""Seconds in which a worker saves what it has finished; then it is killed."""


@dataclass
class _Worker:
    """A process, the part that it does (number and attempt), and the last lines of its standard error."""

    process: "subprocess.Popen[bytes]"
    place: tuple[int, int] | None = None
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=5))


class LocalEngine:
    """Worker processes, each with its share of the processor cores.

    Args:
        workers: number of processes.
        threads: of each.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.name, self.workers, self.threads = f"local:{workers}", workers, threads

    def __enter__(self) -> Self:
        self._todo: deque[tuple[int, int]] = deque()
        self._processes: list[_Worker] = []
        self._messages: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._processes:
            worker.process.terminate()
        deadline = time.monotonic() + _GRACE
        for worker in self._processes:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.process.pid, signal.SIGKILL)
                worker.process.wait()

    def start(self, job: Job, attempts: Sequence[tuple[int, int]]) -> None:
        """See `Engine.start`."""
        self._todo += attempts
        for worker in self._processes:
            if worker.place is None and self._todo:
                self._give(worker)
        while len(self._processes) < self.workers and self._todo:
            self._give(self._begin(job))

    def wait(self) -> Sequence[Event]:
        """See `Engine.wait`."""
        events = []
        with contextlib.suppress(queue.Empty):
            timeout = 1.0
            while True:
                events += self._events(*self._messages.get(timeout=timeout))
                timeout = 0.0
        return events

    def _events(self, worker: _Worker, message: dict[str, Any] | None) -> list[Event]:
        place = worker.place
        if message is None:  # the process has ended
            self._processes.remove(worker)
            code = worker.process.wait()
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            why = "; ".join([reason, *worker.errors])
            return [] if place is None else [Event(*place, has_ended=True, error=lost(why))]
        if place is None:
            return []
        if "ended" not in message:
            return [Event(*place, photos=message["photos"])]
        worker.place = None
        if self._todo:
            self._give(worker)
        return [Event(*place, has_ended=True, error=error_from_json(message["ended"]))]

    def _begin(self, job: Job) -> _Worker:
        process = subprocess.Popen(  # noqa: S603 - no shell, and words of our own
            [*COMMAND, job.url, job.digest],
            # As Ray sets it: else the libraries of each process would start a thread for every core.
            env={"OMP_NUM_THREADS": str(self.threads), **os.environ},
            stdin=subprocess.PIPE,  # closes when this process dies, which ends the other
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in its time
        )
        worker = _Worker(process)
        self._processes.append(worker)
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()
        threading.Thread(target=_read_errors, args=(worker,), daemon=True).start()
        return worker

    def _give(self, worker: _Worker) -> None:
        worker.place = self._todo.popleft()
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is noticed by who reads its output
            worker.process.stdin.write(f"{worker.place[0]} {worker.place[1]}\n".encode())
            worker.process.stdin.flush()

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            with contextlib.suppress(ValueError):  # a library wrote something
                message = json.loads(line)
                if isinstance(message, dict):
                    self._messages.put((worker, message))
        self._messages.put((worker, None))


def _read_errors(worker: _Worker) -> None:
    assert worker.process.stderr is not None
    for line in worker.process.stderr:
        worker.errors.append(line[:300].decode(errors="replace").strip())
