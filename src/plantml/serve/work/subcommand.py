"""One plantml command line in a process of its own, which ends when the process that started it is gone.

Its standard input is a pipe that the other process keeps open: when that one dies, however it dies, the pipe closes.
A training then saves its state, for whoever resumes it.
"""

import contextlib
import json
import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, Self

COMMAND = (sys.executable, "-m", "plantml.serve.work.subcommand")
"""Runs the command line that follows."""

_GRACE = 60.0
"""Seconds for a command to save its work in, after which it is killed with its children."""

_MOST_OUTPUT = 16 * 2**20
"""Bytes of a result."""


class Subcommand:
    """A process, whose standard error is read as lines and whose standard output is a JSON document.

    Args:
        words: of the command line, after `plantml`.
        command: what runs it.
    """

    def __init__(self, words: Sequence[str], command: Sequence[str] = COMMAND) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - no shell, and words of our own
            [*command, *words],
            stdin=subprocess.PIPE,  # closes when this process dies
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the other in its time
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._output = b""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self._process.stderr,), daemon=True),
            threading.Thread(target=self._read_output, args=(self._process.stdout,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def code(self) -> int:
        """The exit code; negative for a signal."""
        return self._process.wait()

    def running(self) -> bool:
        """True until it has ended; waits for a moment."""
        try:
            self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            return True
        for reader in self._readers:
            reader.join(5)  # longer only if a grandchild has kept the pipe
        return False

    def new_lines(self) -> list[str]:
        """Lines since the last call."""
        lines = []
        with contextlib.suppress(queue.Empty):
            while True:
                lines.append(self._lines.get_nowait())
        return lines

    def end(self) -> None:
        """End it: it has some time to save its work."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        for reader in self._readers:
            reader.join(5)

    def result(self) -> Mapping[str, Any]:
        """The document on its standard output; empty if there is none."""
        try:
            content = json.loads(self._output)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _read_lines(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._lines.put(line[:4000].decode(errors="replace"))

    def _read_output(self, stream: IO[bytes]) -> None:
        self._output = stream.read(_MOST_OUTPUT)
        while stream.read(1 << 16):
            pass


def end_with_parent() -> None:
    """End this process when its standard input closes, from a thread of its own."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    runpy.run_module("plantml", run_name="__main__")
