"""`POST /v1/predict`: from what a caller names to the records that they may see."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from plantml.data import photos as dataset_photos
from plantml.detect import advice as advice_texts
from plantml.detect.advice import Advice
from plantml.errors import InputError, NotFoundError, PlantmlError, RefusedError, StorageError, UsageError
from plantml.model.covariates import CovariateRow, check_names
from plantml.model.pipeline import Pipeline, Prediction
from plantml.parsing import parse_json
from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.models.inference import InferenceQueue
from plantml.serve.models.model_pool import OpenModel
from plantml.serve.photos import fetching
from plantml.serve.photos.datasets import Datasets
from plantml.serve.predict.history import History
from plantml.serve.predict.similar_photos import SimilarPhotos, nearest
from plantml.serve.telemetry import Metrics
from plantml.serve.users.caller import Caller
from plantml.serve.web.problems import RequestError, busy
from plantml.serve.web.tracing import Tracing
from plantml.settings import Machine

Photo = tuple[str, bytes | PlantmlError]
"""What its record calls it, and its bytes or why they could not be read."""


class PredictionOptions(BaseModel):
    """How a caller wants their photos predicted."""

    model: str | None = Field(
        None, max_length=256, description="NAME, NAME@ALIAS or NAME@NUMBER.", examples=["leaf@production"]
    )
    similar: int = Field(0, ge=0, le=100, description="Number of similar photos of the dataset to show.")
    covariates: str | None = Field(
        None,
        max_length=32_768,
        description="Measured values beside the photos, of a model that takes some: a JSON list with an object, or"
        " null, for each photo, in their order.",
        examples=['[{"temperature": 21.5, "variety": "Roma"}]'],
    )
    advice: bool = Field(default=False, description="Add the operator's texts for the predicted labels.")


class Predictor:
    """Predicts for callers.

    Args:
        config: limits, datasets, advice.
        machine: network access and cache.
        queue: in front of the models.
        database: keeps the history.
        datasets: whose photos can be named.
        metrics: count photos.
        tracing: of what photos wait for.

    Attributes:
        history: the predictions that each user asked for.
    """

    def __init__(
        self,
        config: ServeConfig,
        machine: Machine,
        *,
        queue: InferenceQueue,
        database: Database,
        datasets: Datasets,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self._config, self._machine, self._queue = config, machine, queue
        self._datasets, self._metrics, self._tracing = datasets, metrics, tracing
        self.history = History(database, config.keep_history)
        self._similar = SimilarPhotos(datasets, machine)
        # A pool of its own: however slow other people's servers are, requests without URLs do not wait for them.
        self._fetching = ThreadPoolExecutor(8, thread_name_prefix="fetch")

    async def gather(self, urls: Sequence[str], items: Sequence[str], until: float) -> list[Photo]:
        """The photos at URLs, then those of datasets, in order.

        A photo that cannot be fetched gets a record with the reason, as everywhere.

        Args:
            urls: of the internet.
            items: `DATASET@7/NAME`, `DATASET/NAME`, or an image id in place of the name.
            until: the deadline, seconds of the monotonic clock.

        Raises:
            NotFoundError: there is no such item.
            RequestError: 413, together they are larger than one request may be; 503, the deadline has passed.
        """
        if not urls and not items:
            return []
        loop, limit = asyncio.get_running_loop(), self._config.max_upload
        try:
            with self._tracing.span("fetch", photos=len(urls) + len(items)):
                async with asyncio.timeout(until - time.monotonic()):
                    fetches = [loop.run_in_executor(self._fetching, self._fetch, url, limit) for url in urls]
                    stored = await run_in_threadpool(self._read_items, items) if items else []
                    photos = [*zip(urls, await asyncio.gather(*fetches), strict=True), *stored]
        except TimeoutError:
            raise busy("the photos did not arrive in time") from None
        if sum(len(data) for _, data in photos if isinstance(data, bytes)) > limit:
            raise RequestError(413, "The photos are too large", f"at most {limit} bytes", "Send several requests.")
        return photos

    async def predict(
        self, model: OpenModel, caller: Caller, photos: Sequence[Photo], options: PredictionOptions, until: float
    ) -> list[dict[str, Any]]:
        """The records of photos, in order, with the targets that the caller may see; kept in their history.

        Args:
            model: predicts.
            caller: asks.
            photos: at least one.
            options: what else the records have; the model was chosen before.
            until: the deadline, seconds of the monotonic clock.

        Raises:
            RequestError: 403, the caller may see no target of the model; 422, covariates do not fit; 503, busy, or the
                deadline has passed.
            UsageError: the server or the model cannot fulfil the options.
        """
        view = visible_view(model, caller)
        texts = await run_in_threadpool(self._texts, model.pipeline) if options.advice else None
        embedded = None
        if options.similar:
            embedded = await run_in_threadpool(self._similar.of_model, model)
        rows = parse_covariates(options.covariates, len(photos))
        check_names(model.pipeline.bundle.contract.covariates or (), rows)
        items = [
            ((image, data, row), len(data) if isinstance(data, bytes) else 0)
            for (image, data), row in zip(photos, rows, strict=True)
        ]
        predictions: list[Prediction] = await self._queue.compute(
            view.predict_measured, items, until - time.monotonic()
        )
        similar = None
        if embedded is not None:
            try:
                similar = await asyncio.wait_for(
                    asyncio.shield(asyncio.wrap_future(embedded)), max(0.0, until - time.monotonic())
                )
            except TimeoutError:
                raise busy("it looks at the photos of the dataset for the first time") from None

        def finish() -> list[dict[str, Any]]:
            records = []
            for prediction in predictions:
                record = prediction.record.as_json() | dict(prediction.more)
                if similar is not None:
                    record["similar"] = nearest(similar, prediction.embedding, options.similar, caller)
                if texts is not None:
                    record["advice"] = texts.of(record)
                records.append(record)
            return records

        records = finish() if similar is None else await run_in_threadpool(finish)
        self._metrics.note_records(records)
        self.history.add(caller, model.ref, records)
        return records

    def can_compare(self, model: OpenModel) -> bool:
        """True if similar photos can be shown at once; else they are looked at in the background, if there are any."""
        try:
            embedded = self._similar.of_model(model)
        except PlantmlError:
            return False
        return embedded.done() and embedded.exception() is None

    def close(self) -> None:
        """End the threads."""
        self._fetching.shutdown(cancel_futures=True)
        self.history.close()
        self._similar.close()

    def _fetch(self, url: str, limit: int) -> bytes | PlantmlError:
        if self._machine.offline:
            return RefusedError(f"{url:.200} is not fetched", "the server is offline", "Send the photo as a file.")
        try:
            return fetching.fetch(url, limit)
        except RefusedError as error:
            return error
        except InputError as error:
            away = StorageError(error.what, error.why, error.hint)
            away.__cause__ = error.__cause__
            return away

    def _read_items(self, items: Sequence[str]) -> list[Photo]:
        return list(dataset_photos.read_ahead(map(self._item, items), self._machine.cache()))

    def _item(self, item: str) -> tuple[str, str]:
        """Image id and URL of `DATASET@7/NAME`."""
        ref, _, name = item.partition("/")
        try:
            version = self._datasets.load(ref)
        except NotFoundError:
            raise
        except InputError as error:
            raise NotFoundError(f"There is no version {ref!r:.80}", error.why, "Leave the version out.") from error
        rows = version.usable()
        rows = rows.filter((rows["name"] == name) | (rows["image_id"] == name))
        if not len(rows):
            raise NotFoundError(f"There is no photo {item!r:.200}", "", "Name it as the dataset does, or by image id.")
        return rows["image_id"][0], version.image_url(rows["path"][0])

    def _texts(self, pipeline: Pipeline) -> Advice:
        contract, url = pipeline.bundle.contract, self._config.advice
        if url is None:
            raise UsageError("There is no advice", "the server was started without --advice", "Leave advice out.")
        if contract.detection is not None:
            raise UsageError("There is no advice for this model", "it finds boxes", "Leave advice out.")
        advice_texts.check_free([target.name for target in contract.targets])
        return advice_texts.read(url, contract)


def parse_covariates(text: str | None, photos: int) -> list[CovariateRow | None]:
    """The covariates of so many photos; `None` where there are none.

    Raises:
        RequestError: 422, it is not a JSON list of an object or null per photo.
    """
    if text is None:
        return [None] * photos
    hint = 'Send a list such as [{"temperature": 21.5}, null].'
    try:
        rows = parse_json(text, "covariates")
    except InputError as error:
        raise RequestError(422, "covariates cannot be read", error.why or str(error), hint) from error
    if not isinstance(rows, list) or not all(row is None or isinstance(row, dict) for row in rows):
        raise RequestError(422, "covariates cannot be read", "it is not a list of objects", hint)
    if len(rows) != photos:
        raise RequestError(422, "covariates do not fit the photos", f"{len(rows)} of {photos} photos", hint)
    return rows


def visible_view(model: OpenModel, caller: Caller) -> Pipeline:
    """The model as a caller sees it. Raises `RequestError` 403 if they may see nothing that it predicts."""
    view = model.view(caller)
    targets = model.pipeline.bundle.contract.targets
    if targets and not view.bundle.contract.targets:
        raise RequestError(
            403, "This is not allowed", "your roles are for no target of this model", "Ask an administrator for a role."
        )
    return view
