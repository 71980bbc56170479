"""`--on` for embeddings: of `plantml dataset embed`, and of the checks that compare them."""

from collections.abc import Callable, Sequence

from plantml import storage
from plantml.concurrency import Listener, Stop
from plantml.curate import embeddings
from plantml.curate.embeddings import Embedder, Photo
from plantml.engines import dispatch, jobs
from plantml.engines.dispatch import Engine
from plantml.engines.jobs import Job, Part
from plantml.engines.work import Count, Work, check_model
from plantml.settings import Machine
from plantml.storage.segments import Segments

KIND = "embed"


def filler(engine: Engine, model: str | None, machine: Machine, listener: Listener) -> embeddings.Fill:
    """What embeds photos of a dataset on an engine, by a model or the pretrained backbone."""

    def fill(embedder: Embedder, photos: Sequence[Photo], stored: Segments, count: Callable[[int], None]) -> None:
        def plan() -> Job:
            return jobs.plan(
                storage.join(stored.url, "parts"),
                KIND,
                {"model": model, "digest": embedder.digest},
                ([url, image_id] for image_id, url in photos),
                total=len(photos),
                workers=engine.workers,
                threads=engine.threads,
                offline=machine.offline,
                libraries=[embedder.runtime.name.partition(".")[0]],
                segments=stored.url,
                ending=stored.ending,
                after=stored.last,
            )

        dispatch.complete_or_stop(plan, engine, "Embedding", listener, count)

    return fill


def open_work(job: Job, machine: Machine) -> Work:
    """What embeds parts."""
    model = job.options["model"]
    embedder = embeddings.open_embedder(model, machine)
    check_model(model or embedder.name, {"digest": embedder.digest}, {"digest": job.options["digest"]})

    def work(part: Part, stop: Stop, count: Count) -> None:
        photos = [(image_id, url) for url, image_id in part.rows()]
        is_local = storage.is_local(photos[0][1])
        segments, done = part.segments(len(photos), embeddings.SECONDS), 0
        try:
            for names, vectors in embeddings.embed_photos(stop.until(photos), embedder, machine, is_local=is_local):
                segments.add(*embeddings.rows(names, vectors))
                done += len(names)
                count(done)
        finally:
            segments.flush()

    return work
