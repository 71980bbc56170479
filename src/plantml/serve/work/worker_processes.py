"""The workers of one server: processes of `plantml work`, started again if they end, and ended with the server."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from plantml.serve.work.subcommand import COMMAND

_NICE = 10
"""By which trainings come after predictions on a processor that both want."""

_PAUSE, _GRACE = 5.0, 120.0
"""Seconds before a worker that ended is started again, and for workers to save their trainings in."""


class WorkerProcesses:
    """Workers, from the beginning of the block to its end.

    Args:
        number: of workers.
        words: of the command line of each, after `plantml`.
        say: receives messages.
    """

    def __init__(self, number: int, words: Sequence[str], say: Callable[[str], None]) -> None:
        self._words, self._say = words, say
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._keep, daemon=True) for _ in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _keep(self) -> None:
        while not self._ending.is_set():
            process = subprocess.Popen(  # noqa: S603 - no shell, and words of our own
                [*COMMAND, *self._words], stdin=subprocess.PIPE, start_new_session=True
            )
            with contextlib.suppress(OSError):  # it may have ended, or the system has no priorities
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
            while process.poll() is None and not self._ending.wait(0.2):
                pass
            if self._ending.is_set():
                _end(process)
            else:
                self._say(f"A worker ended with exit code {process.returncode}. Starting it again.")
                self._ending.wait(_PAUSE)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    deadline = time.monotonic() + _GRACE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()  # which its commands notice, and end
        process.wait()
