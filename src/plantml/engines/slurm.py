"""`--on slurm`: job arrays, by SLURM's own commands.

Account, partition, time limit and memory are set as in every SLURM job, by `SBATCH_ACCOUNT`, `SBATCH_PARTITION`, …
"""

import hashlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from plantml import storage
from plantml.engines.dispatch import Event, lost
from plantml.engines.jobs import Job
from plantml.errors import MissingExtraError, StorageError

_PER_WORKER = 4
"""Processes of an array for each CPU: a slow one does not hold up the rest."""

_POLL, _ASK = 1.0, 5.0
"""Seconds between two looks for reports, and between two questions to SLURM."""

_GRACE = 60.0
"""Seconds in which cancelled processes save what they have finished."""

_GONE = "Invalid job id"
"""In the answer of `squeue` when it has forgotten a job that ended."""


class SlurmEngine:
    """Arrays of processes, each of which does its share of the parts.

    Args:
        threads: of a process, which takes as many CPUs.
    """

    name = "slurm"

    def __init__(self, threads: int) -> None:
        self.threads, self.workers = threads, 1
        if missing := [name for name in ("sbatch", "squeue", "scancel", "sinfo", "scontrol") if not shutil.which(name)]:
            raise MissingExtraError(
                "SLURM is not on this machine", f"missing: {', '.join(missing)}", "Run the command on a login node."
            )

    def __enter__(self) -> Self:
        self._job: Job | None = None
        self._arrays: list[str] = []
        self._open: dict[tuple[int, int], str] = {}
        self._asked = 0.0
        cpus = max(int(line.rpartition("/")[2]) for line in _ask("sinfo", "--noheader", "--format=%C").split())
        self.workers = max(1, cpus // self.threads)
        config = dict(line.partition("=")[::2] for line in _ask("scontrol", "show", "config").splitlines())
        self._largest = next((int(value) for name, value in config.items() if name.strip() == "MaxArraySize"), 1001)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return
        _ask("scancel", *self._arrays)
        deadline = time.monotonic() + _GRACE
        while self._in_queue() and time.monotonic() < deadline:
            time.sleep(_POLL)

    def start(self, job: Job, attempts: Sequence[tuple[int, int]]) -> None:
        """See `Engine.start`."""
        if self._job is None:
            _ask("scancel", f"--name={_name(job)}")  # what a killed command has left
        self._job = job
        size = min(len(attempts), self._largest, self.workers * _PER_WORKER)
        number = len(self._arrays) + 1
        job.write_array(number, size, attempts)
        words = [sys.executable, "-m", "plantml.engines.worker", job.url, job.digest, str(number)]
        log = f"{job.url}/%A_%a.log" if storage.is_local(job.url) else "/dev/null"
        array = _ask(
            "sbatch", "--parsable", f"--array=0-{size - 1}", f"--cpus-per-task={self.threads}",
            f"--job-name={_name(job)}", f"--output={log}", f"--chdir={job.folder}",
            text=f"#!/bin/sh\nexec {shlex.join(words)}\n",
        ).strip().partition(";")[0]  # fmt: skip
        self._arrays.append(array)
        for place, (part, attempt) in enumerate(attempts):
            self._open[part, attempt] = f"{array}_{place % size}"

    def wait(self) -> Sequence[Event]:
        """See `Engine.wait`."""
        assert self._job is not None
        time.sleep(_POLL)
        queue = None
        if time.monotonic() - self._asked > _ASK:
            self._asked, queue = time.monotonic(), self._in_queue()
        events = []
        for place in set(self._job.ended()) & self._open.keys():  # looked up after the queue
            del self._open[place]
            events.append(Event(*place, has_ended=True, error=self._job.error(*place)))
        for place, process in list(self._open.items()):
            if queue is not None and process not in queue:
                del self._open[place]
                events.append(Event(*place, has_ended=True, error=lost(self._why(process))))
        return events

    def _in_queue(self) -> set[str] | None:
        """Processes that wait or run; `None` if SLURM does not answer."""
        try:
            return set(
                _ask("squeue", "--noheader", "--array", f"--jobs={','.join(self._arrays)}", "--format=%F_%K").split()
            )
        except StorageError as error:
            return set() if _GONE in error.why else None

    def _why(self, process: str) -> str:
        assert self._job is not None
        log = storage.join(self._job.url, f"{process}.log")
        if storage.is_local(log) and storage.exists(log):
            lines = storage.read(log).decode(errors="replace").strip().splitlines()
            return f"SLURM's {process} ended" + (f": {lines[-1][:300]}" if lines else "")
        return f"SLURM's {process} ended without a report; does its machine see {self._job.url}?"


def _name(job: Job) -> str:
    """The name of all arrays for the same output."""
    return f"plantml-{hashlib.sha256(storage.split(job.url)[0].encode()).hexdigest()[:12]}"


def _ask(*command: str, text: str = "") -> str:
    """What a command of SLURM prints. Raises `StorageError`."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise StorageError(
            f"SLURM refused {command[0]}",
            (done.stderr or done.stdout).strip()[-300:],
            "Check the cluster: sinfo. SBATCH_PARTITION and SBATCH_ACCOUNT choose where jobs go.",
        )
    return done.stdout
