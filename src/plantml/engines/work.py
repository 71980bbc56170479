"""What a worker does with a part, by the kind of its job."""

import contextlib
import os
import socket
from collections.abc import Callable

from plantml import settings
from plantml.concurrency import Stop
from plantml.engines import jobs
from plantml.engines.jobs import Job, Part
from plantml.errors import InputError

Count = Callable[[int], None]
"""Called with the number of photos of a part that are done."""

Work = Callable[[Part, Stop, Count], None]
"""Does a part, until a stop, and writes what it finished."""


def open_work(url: str, digest: str) -> tuple[Job, Work]:
    """Load a job on the machine that works on it, and open what all its parts need, such as the model.

    Raises:
        InputError: this machine sees other files, has other versions, or another model.
    """
    job = jobs.load(url, digest)
    with contextlib.suppress(OSError):  # then nothing is local, or the photos would not have been seen
        os.chdir(job.folder)
    machine = settings.machine(offline=job.offline).model_copy(update={"threads": job.threads})
    from plantml.engines import detection

    kinds: dict[str, Callable[[Job, settings.Machine], Work]] = {"detect": detection.open_work}
    return job, kinds[job.kind](job, machine)


def check_model(ref: str, digest: str, expected: object) -> None:
    """Raise `InputError` if the model here is not the one that the job was planned with."""
    if digest != expected:
        raise InputError(
            f"{socket.gethostname()} has another model",
            f"{ref} is {digest[:12]} there, and was {str(expected)[:12]} when the command started",
            "Name a model that every machine sees and that does not change: --model REGISTRY/NAME@NUMBER",
        )
