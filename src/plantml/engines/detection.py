"""`plantml detect --on`: parts fill the journal of the output, from which the command then writes it."""

import io
from collections.abc import Iterator
from typing import Any

from plantml import storage
from plantml.concurrency import Listener, Progress, Stop
from plantml.detect import journal as journals
from plantml.detect.config import DetectConfig
from plantml.detect.detect import Detection, Fill
from plantml.detect.journal import Journal
from plantml.detect.options import journal_options
from plantml.detect.photo_list import PhotoList, Source
from plantml.detect.session import Session
from plantml.detect.similar import Similar
from plantml.engines import dispatch, jobs, kubernetes
from plantml.engines.dispatch import Engine
from plantml.engines.jobs import Job, Part
from plantml.engines.kubernetes import KubernetesPlan
from plantml.engines.work import Count, Work, check_model
from plantml.errors import InputError
from plantml.settings import Machine

KIND = "detect"

_JOBS = "parts"
"""Folder of jobs in a journal."""

_HERE = {"engine": None, "shard": None, "retry_failed": False, "threads": None}
"""Settings that concern the command alone."""


def filler(engine: Engine, machine: Machine, listener: Listener) -> Fill:
    """What fills a journal with the help of an engine, in the place of `Detection.fill`."""

    def fill(detection: Detection, journal: Journal, photos: PhotoList, stop: Stop, progress: Progress) -> int:
        resumed = sum(source in journal for source in photos)
        if resumed < len(photos):
            dispatch.complete(
                lambda: plan(detection, journal, photos, engine, machine, resumed=resumed),
                engine,
                stop,
                listener,
                lambda done: progress(resumed + done, len(photos)),
                take=journal.read_new,
            )
        return resumed

    return fill


def manifest(session: Session, pods: KubernetesPlan, machine: Machine, *, fresh: bool) -> tuple[Job, dict[str, Any]]:
    """Write the job of the photos that are still to do, and the manifest of the pods that do it.

    Raises:
        InputError: nothing is left to do.
        UsageError: a path is of this machine.
    """
    detection, photos = session.detection, session.list_sources().photos
    config = detection.config
    for flag, url in (("--model", config.model), ("--out", config.journal or config.out)):
        kubernetes.check_url(flag, str(url))
    journal = detection.open_journal(fresh=fresh)
    resumed = sum(source in journal for source in photos)
    if resumed == len(photos):
        raise InputError("No photo is left to process", "", "Repeat the command without --on: it writes the output.")
    job = plan(detection, journal, photos, pods, machine, resumed=resumed)
    return job, kubernetes.manifest(job, pods)


def plan(
    detection: Detection,
    journal: Journal,
    photos: PhotoList,
    engine: Engine | KubernetesPlan,
    machine: Machine,
    *,
    resumed: int,
) -> Job:
    """Write the job of the photos that the journal lacks."""

    def rows() -> Iterator[jobs.Row]:
        return (source.fields for source in photos if source not in journal)

    settings = detection.config.model_dump(mode="json") | _HERE
    return jobs.plan(
        storage.join(journal.url, _JOBS),
        KIND,
        {"config": settings, "model": journal_options(detection.pipeline.bundle, detection.config, detection.extras)},
        rows(),
        total=len(photos) - resumed,
        workers=engine.workers,
        threads=engine.threads,
        offline=machine.offline,
        libraries=[detection.pipeline.runtime.name.partition(".")[0]],
        segments=journal.url,
        ending=journals.ROWS_IN,
        after=journal.last,
    )


def open_work(job: Job, machine: Machine) -> Work:
    """What does parts of a detection."""
    config = DetectConfig(**job.options["config"])
    session = Session([], config, machine, _find_similar, Listener(), stdin=io.BytesIO(), stdout=io.StringIO())
    detection = session.detection
    here = journal_options(detection.pipeline.bundle, config, detection.extras)
    check_model(str(config.model), here, job.options["model"])

    def work(part: Part, stop: Stop, count: Count) -> None:
        segments = part.segments(journals.SEGMENT_ROWS, journals.SEGMENT_SECONDS)
        sources = [Source(*row) for row in part.rows()]
        try:
            for done, row in enumerate(detection.rows(sources, stop), start=1):
                segments.add(journals.encode(*row))
                count(done)
        finally:
            segments.flush()

    return work


def _find_similar(config: DetectConfig, machine: Machine, progress: Progress) -> Similar:
    from plantml.curate import similar  # loads polars

    return similar.for_detection(config, machine, progress)
