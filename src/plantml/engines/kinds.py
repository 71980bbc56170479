"""What a worker does with a part, by the kind of its job."""

import contextlib
import os
from collections.abc import Callable, Mapping

from plantml import settings
from plantml.engines import jobs
from plantml.engines.jobs import Job
from plantml.engines.work import Work


def open_work(url: str, digest: str) -> tuple[Job, Work]:
    """Load a job on the machine that works on it, and open what all its parts need, such as the model.

    Raises:
        InputError: this machine sees other files, has other versions, or another model.
    """
    job = jobs.load(url, digest)
    with contextlib.suppress(OSError):  # then nothing is local, or the photos would not have been seen
        os.chdir(job.folder)
    machine = settings.machine(offline=job.offline).model_copy(update={"threads": job.threads})
    return job, KINDS[job.kind](job, machine)


def _detect(job: Job, machine: settings.Machine) -> Work:
    from plantml.engines import detection  # each loads what its parts need, and no more

    return detection.open_work(job, machine)


def _embed(job: Job, machine: settings.Machine) -> Work:
    from plantml.engines import embedding

    return embedding.open_work(job, machine)


def _import(job: Job, machine: settings.Machine) -> Work:
    from plantml.engines import importing

    return importing.open_work(job, machine)


def _keypoints(_: Job, machine: settings.Machine) -> Work:
    from plantml.engines import keypoints

    return keypoints.open_keypoints(machine)


def _copies(job: Job, machine: settings.Machine) -> Work:
    from plantml.engines import keypoints

    return keypoints.open_copies(job, machine)


def _validate(job: Job, machine: settings.Machine) -> Work:
    from plantml.engines import validation

    return validation.open_work(job, machine)


KINDS: Mapping[str, Callable[[Job, settings.Machine], Work]] = {
    "copies": _copies,
    "detect": _detect,
    "embed": _embed,
    "import": _import,
    "keypoints": _keypoints,
    "validate": _validate,
}
"""What does a part, by the kind of its job. Add new ones here."""
