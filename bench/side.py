"""The other end of `measure.Side`: a process that prepares, warms up, and works when it is told to."""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO


class Rounds:
    """The conversation with whoever measures: one line in for every turn, one line out."""

    def __init__(self, turns: TextIO, answers: TextIO) -> None:
        self._turns, self._answers = turns, answers
        self.helpers: Sequence[int] = ()
        """Processes, on Linux, whose computing counts as this one's."""
        self.only_helpers = False
        """True if this process is not what is measured: its own computing is reported apart."""

    def run(self, work: Callable[[], int], *, warm: bool = True) -> None:
        """Work in turns until the end.

        Args:
            work: one round; gives the number of images.
            warm: true if a round goes ahead that nobody measures.
        """
        if warm:
            work()
        self.ready()
        while self.wait():
            clock = Clock(self.helpers, only_helpers=self.only_helpers)
            images = work()
            self.report(images, clock)

    def ready(self) -> None:
        """Say that the preparations are over."""
        self._say({})

    def wait(self) -> bool:
        """Wait for the next turn; false if there is none."""
        return bool(self._turns.readline())

    def report(self, images: int, clock: "Clock") -> None:
        """Answer with what one turn took."""
        seconds, cpu = clock.read()
        self._say({"images": images, "seconds": seconds, "cpu": cpu, "peak": peak_memory(), "apart": clock.apart})

    def _say(self, content: dict[str, float]) -> None:
        print(json.dumps(content), file=self._answers, flush=True)


class Clock:
    """Time and computing time since it was made, until it is stopped."""

    def __init__(self, helpers: Sequence[int] = (), *, only_helpers: bool = False) -> None:
        self._helpers, self._only_helpers = helpers, only_helpers
        self.apart, self._own = 0.0, time.process_time()
        self._start = time.perf_counter(), self._computed()
        self._stopped: tuple[float, float] | None = None

    def stop(self) -> None:
        """Stand still."""
        self.apart = time.process_time() - self._own if self._only_helpers else 0.0
        self._stopped = time.perf_counter() - self._start[0], self._computed() - self._start[1]

    def _computed(self) -> float:
        own = 0.0 if self._only_helpers else time.process_time()
        return own + sum(map(_computed_by, self._helpers))

    def read(self) -> tuple[float, float]:
        """Seconds that passed, and seconds that this process and its helpers computed."""
        if self._stopped is None:
            self.stop()
        assert self._stopped is not None
        return self._stopped


def _computed_by(process: int) -> float:
    """Seconds that another process computed, all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory() -> float:
    """The most memory that this process ever held, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's `ru_maxrss` counts what the parent held when it started this process
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """`python -m bench.side MODULE:FUNCTION ARGUMENTS`."""
    where, arguments = sys.argv[1:]
    module, _, function = where.partition(":")
    # Libraries write to stdout; the answers go where only they go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    getattr(importlib.import_module(module), function)(Rounds(sys.stdin, answers), **json.loads(arguments))


if __name__ == "__main__":
    main()
