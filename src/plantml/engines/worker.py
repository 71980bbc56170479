"""The process of a worker: it does parts of one job, one after another.

python -m plantml.engines.worker JOB DIGEST         parts that standard input names, until it closes
python -m plantml.engines.worker JOB DIGEST ARRAY   its share of the parts of an array of processes

The first writes to standard output what it did, one JSON object per line; the second writes it beside the job, as
nobody waits for it. Its place in the array follows from SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from plantml.concurrency import Stop, terminable
from plantml.engines.jobs import Job, Part, error_as_json, load
from plantml.engines.kinds import open_work
from plantml.engines.work import Count, Work
from plantml.errors import Exit, PlantmlError

_EVERY = 0.5
"""Seconds between two reports of progress."""

_INDEX = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")


def main(arguments: list[str]) -> int:
    """Do parts; returns the exit code."""
    url, digest, *array = arguments
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with terminable(), Stop() as stop:
        try:
            if array:
                return _do_share(url, digest, int(array[0]), stop)
            return _do_asked(url, digest, stop)
        except PlantmlError as error:
            logging.getLogger(__name__).error("%s. %s", error, error.hint)  # noqa: TRY400 - a sentence, no traceback
            return int(error.exit_code)


def attempt(job: Job, work: Work, place: tuple[int, int], stop: Stop, count: Count) -> PlantmlError | None:
    """Do a part, of which `place` has the number and the attempt; returns why it could not be done."""
    try:
        work(Part(job, *place), stop, count)
    except PlantmlError as error:
        return error
    except Exception as error:
        logging.getLogger(__name__).exception("A part failed")
        return PlantmlError(f"plantml has a bug: {type(error).__name__}: {error}", "", "Report it, with this message.")
    return None


def _do_asked(url: str, digest: str, stop: Stop) -> int:
    places: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(places,), daemon=True).start()
    try:
        job, work = open_work(url, digest)
    except PlantmlError as error:
        _tell({"ended": error_as_json(error)})
        return int(error.exit_code)
    while not stop:
        try:
            place = places.get(timeout=0.1)
        except queue.Empty:
            continue
        failure = attempt(job, work, place, stop, _throttled(lambda photos: _tell({"photos": photos})))
        if not stop:
            _tell({"ended": error_as_json(failure)})
    return int(Exit.TERMINATED)


def _do_share(url: str, digest: str, array: int, stop: Stop) -> int:
    index = int(next(os.environ[name] for name in _INDEX if name in os.environ))
    job = load(url, digest)
    ended = set(job.ended())  # if the cluster starts this process again
    share = [place for place in job.share(array, index) if place not in ended or job.error(*place)]
    try:
        _, work = open_work(url, digest)
    except PlantmlError as error:
        for place in share:
            job.end(*place, error)
        return int(error.exit_code)
    code = Exit.DONE
    for place in stop.until(share):
        failure = attempt(job, work, place, stop, lambda _: None)
        if stop:
            return int(Exit.TERMINATED)
        job.end(*place, failure)
        code = failure.exit_code if failure else code
    return int(code)


def _read(places: "queue.SimpleQueue[tuple[int, int]]") -> None:
    """Parts from standard input; at its end the process ends, with what it finished saved."""
    for line in sys.stdin.buffer:
        number, _, tried = line.decode().partition(" ")
        places.put((int(number), int(tried)))
    os.kill(os.getpid(), signal.SIGTERM)


def _throttled(count: Count) -> Count:
    last = time.monotonic()

    def report(photos: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            count(photos)

    return report


def _tell(message: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # standard input closes too, which ends this process
        sys.stdout.write(f"{json.dumps(message)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
