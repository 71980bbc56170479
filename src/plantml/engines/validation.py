"""`plantml validate --on`: parts predict photos, and the validation takes the predictions into its cache."""

import hashlib
import json
from collections.abc import Callable, Sequence

from plantml import storage
from plantml.concurrency import Listener, Stop
from plantml.engines import dispatch, jobs
from plantml.engines.dispatch import Engine
from plantml.engines.jobs import Job, Part
from plantml.engines.work import Count, Work, check_model
from plantml.model.pipeline import Pipeline
from plantml.registry.references import open_pipeline
from plantml.settings import Machine
from plantml.storage.segments import Segments
from plantml.validate import predictions
from plantml.validate.config import ValidateConfig
from plantml.validate.prediction_cache import PredictionCache, encode, identity

KIND = "validate"


def filler(
    engine: Engine, dataset: str, config: ValidateConfig, *, machine: Machine, stop: Stop, listener: Listener
) -> predictions.Fill:
    """What predicts photos on an engine; predictions are kept in a dataset until they are in the cache here."""

    def fill(
        pipeline: Pipeline,
        photos: Sequence[tuple[str, str, str]],
        cache: PredictionCache,
        count: Callable[[int], None],
    ) -> None:
        bundle = pipeline.bundle
        options = {
            "model": bundle.place,
            "digest": bundle.digest,
            "identity": identity(pipeline, config.device),  # also of its runtime and libraries
            "runtime": config.runtime,
            "device": config.device,
            "tile": config.tile,
            "batch": config.batch,
        }
        name = hashlib.sha256(json.dumps(options).encode()).hexdigest()[:16]
        place = storage.join(dataset, "derived", f"predictions-{name}")
        stored = _take(place, cache)  # what the parts of a killed command have left
        todo = [photo for photo in photos if cache.get(photo[2]) is None]
        if not todo:
            return

        def plan() -> Job:
            return jobs.plan(
                storage.join(place, "parts"),
                KIND,
                options,
                todo,
                total=len(todo),
                workers=engine.workers,
                threads=engine.threads,
                offline=machine.offline,
                libraries=[pipeline.runtime.name.partition(".")[0]],
                segments=place,
                ending=stored.ending,
                after=stored.last,
            )

        dispatch.complete(plan, engine, stop, listener, count, take=lambda: _take(place, cache))

    return fill


def _take(place: str, cache: PredictionCache) -> Segments:
    """Take predictions into the cache, and remove them."""
    stored = Segments(place)
    cache.add_rows(stored)
    last = stored.last
    stored.remove()
    return Segments(place, after=last)


def open_work(job: Job, machine: Machine) -> Work:
    """What predicts parts."""
    options, files = job.options, machine.cache()
    pipeline = open_pipeline(
        options["model"],
        runtime=options["runtime"],
        device=options["device"],
        cache=files,
        tile=options["tile"],
        threads=machine.threads,
        batch=options["batch"],
    )
    contract = pipeline.bundle.contract
    here = {"digest": pipeline.bundle.digest, "identity": identity(pipeline, options["device"])}
    check_model(options["model"], here, {key: options[key] for key in here})

    def work(part: Part, stop: Stop, count: Count) -> None:
        photos = [(url, image_id, key) for url, image_id, key in part.rows()]
        segments = part.segments(len(photos), 10.0)
        wanted = ((url, image_id) for url, image_id, _ in stop.until(photos))
        predicted = zip(photos, predictions.predict_photos(pipeline, wanted, files), strict=False)
        try:
            for done, ((_, _, key), prediction) in enumerate(predicted, start=1):
                if prediction.probabilities is not None:
                    segments.add(encode(key, *predictions.entry(contract, prediction)))
                count(done)
        finally:
            segments.flush()

    return work
