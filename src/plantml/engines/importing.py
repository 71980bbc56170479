"""`plantml dataset import --on`: parts read photos, store them, and leave notes from which the import goes on."""

from collections.abc import Callable, Sequence

from plantml import storage
from plantml.concurrency import Listener, Stop
from plantml.data import ingest
from plantml.data.importers import Item
from plantml.data.ingest import Bringer, Fill
from plantml.engines import dispatch, jobs
from plantml.engines.dispatch import Engine
from plantml.engines.jobs import Job, Part
from plantml.engines.work import Count, Work
from plantml.settings import Machine

KIND = "import"

_SECONDS = 20.0
"""After which a segment is written with the notes that there are."""


def filler(engine: Engine, machine: Machine, listener: Listener) -> Fill:
    """What reads photos of an import on an engine."""

    def fill(bringer: Bringer, items: Sequence[Item], count: Callable[[int], None]) -> None:
        def plan() -> Job:
            return jobs.plan(
                storage.join(bringer.notes.url, "parts"),
                KIND,
                {"source": bringer.source, "dataset": bringer.dataset, "reference": bringer.reference},
                ([item.url, item.name] for item in items),
                total=len(items),
                workers=engine.workers,
                threads=engine.threads,
                offline=machine.offline,
                libraries=["scipy"],
                segments=bringer.notes.url,
                ending=bringer.notes.ending,
                after=bringer.notes.last,
            )

        dispatch.complete_or_stop(plan, engine, "The import", listener, count)

    return fill


def open_work(job: Job, machine: Machine) -> Work:
    """What reads parts."""
    options = job.options
    bringer = Bringer(
        options["source"], options["dataset"], reference=options["reference"], threads=machine.threads, stored=()
    )

    def work(part: Part, stop: Stop, count: Count) -> None:
        items = [Item(name, url) for url, name in part.rows()]
        segments, done = part.segments(len(items), _SECONDS), 0
        try:
            for rows in bringer.read(stop.until(items)):
                segments.add(*map(ingest.encode, rows))
                done += len(rows)
                count(done)
        finally:
            segments.flush()

    return work
