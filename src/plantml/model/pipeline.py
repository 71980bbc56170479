"""Images through a model: each thread takes its images from bytes to predictions.

Reading, decoding and inference of one chunk happen in one thread, with a session that uses one thread a call:
no queue between stages has to be kept full, and all cores are always at work. Only what is far is fetched ahead,
by threads that do little but wait. Order out is order in, and the number of chunks under way is bounded, so that
memory does not grow with the number of images.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml import imaging, storage
from plantml.concurrency import batched, in_threads
from plantml.errors import DamagedError, InputError, NotFoundError, PlantmlError, RefusedError
from plantml.imaging import ImageError, Photo, Pixels, Tiling
from plantml.model.bundle import Bundle
from plantml.model.contract import ANOMALY
from plantml.model.covariates import Columns, CovariateRow, encode
from plantml.model.records import Decision, Reader, Record, failed, heat_of, worst
from plantml.model.runtimes import Outputs, Runtime, TwoStageRuntime

BATCH = 8
"""Default batch size."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A record and, if the image was read, the raw outputs it was made from.

    Attributes:
        record: for the output.
        probabilities: by target: float32 [classes], or [1] for a value; of boxes none, `None` after a failure.
        embedding: float32 [D]; `None` after a failure, and of a model of boxes or anomalies.
        more: further keys of the record, added by options.
    """

    record: Record
    probabilities: dict[str, NDArray[np.float32]] | None
    embedding: NDArray[np.float32] | None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """URL of the image; empty for one that came as bytes or pixels."""
        return self.record.image

    @property
    def decision(self) -> Decision | None:
        """`accept`, `review` or `unknown`; `None` after a failure."""
        return self.record.decision

    @property
    def targets(self) -> Mapping[str, Mapping[str, Any]]:
        """The answer for each target, as in the record; empty after a failure."""
        return self.record.targets or {}

    @property
    def boxes(self) -> Sequence[Mapping[str, Any]]:
        """Detected boxes; empty for models of whole images."""
        return self.record.boxes

    @property
    def unknown(self) -> float | None:
        """How unlike the training photos it is; `None` after a failure."""
        return self.record.unknown

    @property
    def score(self) -> float | None:
        """How anomalous it is, 0 (normal) to 1, 0.5 the threshold; `None` of other models, and after a failure."""
        answer = self.targets.get(ANOMALY.name) if self.record.heat_map else None
        return None if answer is None else float(answer["score"])

    @property
    def heat_map(self) -> NDArray[np.float32] | None:
        """Where it is anomalous: float32 [rows, columns] over the photo, as `score`; `None` as that."""
        return None if self.record.heat_map is None else heat_of(self.record.heat_map)

    @property
    def failure(self) -> str | None:
        """Why there is no prediction; `None` if there is one."""
        return self.record.failure


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A model, ready to predict for any number of images.

    Attributes:
        bundle: whose contract holds.
        runtime: that runs the network.
        threads: images processed at the same time.
        batch: batch size.
        top_k: classes to list per class target.
        weakest: score from which boxes are in the records, if below the model's threshold.
        tiling: how photos are cut; `None` for whole photos.
    """

    bundle: Bundle
    runtime: Runtime
    _: KW_ONLY
    threads: int = 2
    batch: int = BATCH
    top_k: int = 5
    weakest: float = 1.0
    tiling: Tiling | None = None

    @property
    def chunk(self) -> int:
        """Images that a thread takes at a time."""
        return self.batch

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.bundle.contract, self.top_k, self.weakest)

    @cached_property
    def _crop_reader(self) -> Reader:
        assert isinstance(self.runtime, TwoStageRuntime)
        return Reader(self.runtime.bundle.contract, self.top_k)

    def run(self, urls: Iterable[str]) -> Iterator[Prediction]:
        """One prediction for every URL, in order."""
        for chunk in self.run_chunks((url, None) for url in urls):
            yield from chunk

    def run_chunks(self, photos: Iterable[tuple[str, CovariateRow | None]]) -> Iterator[list[Prediction]]:
        """The same of URLs and covariates, in chunks, which is how they are computed."""
        return in_threads(lambda work: work(), self._works(photos), self.threads)

    def _works(self, photos: Iterable[tuple[str, CovariateRow | None]]) -> Iterator[Callable[[], list[Prediction]]]:
        """Work for the threads: chunks of local URLs to read, or of fetched bytes."""
        for near, same_kind in groupby(photos, lambda photo: _is_near(photo[0])):
            if near:
                for chunk in batched(same_kind, self.chunk):
                    yield partial(self.predict_urls, [url for url, _ in chunk], [row for _, row in chunk])
            else:
                rows: deque[CovariateRow | None] = deque()
                urls = _apart(same_kind, rows)
                for contents in batched(storage.read_ahead(urls, storage.MAX_PHOTO), self.chunk):
                    yield partial(self.predict_bytes, contents, [rows.popleft() for _ in contents])

    def predict_urls(
        self, urls: Sequence[str], covariates: Sequence[CovariateRow | None] | None = None
    ) -> list[Prediction]:
        """Predictions for one chunk of URLs, computed in the calling thread; see `predict_bytes`."""
        return self.predict_bytes(list(storage.read_many(urls, storage.MAX_PHOTO)), covariates)

    def predict_bytes(
        self,
        sources: Sequence[tuple[str, bytes | PlantmlError]],
        covariates: Sequence[CovariateRow | None] | None = None,
    ) -> list[Prediction]:
        """Predictions for images already read.

        Args:
            sources: URL, and bytes or the read error.
            covariates: of the images; a model without covariates does not look at them.
        """
        columns = self._columns(covariates, len(sources))
        predictions = self._predict([(url, partial(self._read, data), _digest(data)) for url, data in sources], columns)
        return [
            self._refined(prediction, data, columns[at : at + 1])
            if isinstance(data, bytes) and prediction.failure is None
            else prediction
            for at, (prediction, (_, data)) in enumerate(zip(predictions, sources, strict=True))
        ]

    def predict_measured(
        self, photos: Sequence[tuple[str, bytes | PlantmlError, CovariateRow | None]]
    ) -> list[Prediction]:
        """As `predict_bytes`, of photos that each come with their covariates."""
        return self.predict_bytes([(url, data) for url, data, _ in photos], [row for *_, row in photos])

    def predict_pictures(
        self, pictures: Sequence[Image.Image], covariates: Sequence[CovariateRow | None] | None = None
    ) -> list[Prediction]:
        """Predictions for pictures that Pillow has opened or created. Their records have no URL and no `image_id`."""
        fit, columns = self.bundle.contract.input, self._columns(covariates, len(pictures))
        predictions = self._predict(
            [("", partial(imaging.read_picture, picture, fit), None) for picture in pictures], columns
        )
        return [
            self._refined(prediction, picture, columns[at : at + 1]) if prediction.failure is None else prediction
            for at, (prediction, picture) in enumerate(zip(predictions, pictures, strict=True))
        ]

    def _columns(self, covariates: Sequence[CovariateRow | None] | None, images: int) -> Columns:
        """The covariates of images as the model takes them, [N, C]; [N, 0] for a model without any."""
        return encode(self.bundle.contract.covariates or (), covariates or [None] * images)

    def compute(self, pixels: Pixels, columns: Columns) -> Outputs:
        """The network's outputs for photos, uint8 [N, H, W, 3], and their covariates, [N, C]."""
        return self.runtime.run(pixels, columns) if columns.shape[1] else self.runtime.run(pixels)

    def _refined(self, prediction: Prediction, photo: Photo, columns: Columns) -> Prediction:  # noqa: ARG002 - of tiles
        """The prediction after a second look at the photo: with a model of two stages, at each of its boxes.

        Args:
            prediction: from the whole photo, not failed.
            photo: from which boxes are cut at its full resolution.
            columns: its covariates, [1, C].
        """
        runtime, record = self.runtime, prediction.record
        if not isinstance(runtime, TwoStageRuntime) or not record.boxes:
            return prediction
        assert record.width is not None
        assert record.height is not None
        corners = [
            imaging.corners_of_crop((box["x"], box["y"], box["w"], box["h"]), record.width, record.height)
            for box in record.boxes
        ]
        boxes = []
        crops = imaging.cut(photo, corners, runtime.bundle.contract.input)
        for part in batched(zip(record.boxes, crops, strict=True), self.batch):
            outputs = runtime.classifier.run(np.stack([pixels for _, pixels in part]))
            for row, (box, _) in enumerate(part):
                targets, decision, unknown = self._crop_reader.read(outputs, row)
                decision = worst([decision, box["decision"]])
                boxes.append({**box, "targets": targets, "unknown": unknown, "decision": decision})
        return replace(prediction, record=self._reader.with_boxes(record, boxes))

    def _predict(
        self, sources: Sequence[tuple[str, Callable[[], tuple[imaging.Facts, Pixels]], str | None]], columns: Columns
    ) -> list[Prediction]:
        """Predictions for one chunk of (URL, function that reads facts and pixels, hash of the bytes)."""
        predictions: dict[int, Prediction] = {}
        decoded: list[tuple[int, imaging.Facts, Pixels]] = []
        for number, (url, read, image_id) in enumerate(sources):
            try:
                decoded.append((number, *read()))
            except PlantmlError as error:
                record = failed(url, self.bundle.digest, _reason(error), image_id, self.bundle.form_note)
                predictions[number] = Prediction(record, None, None)
        outputs: Outputs = {}
        if decoded:
            outputs = self.compute(np.stack([pixels for *_, pixels in decoded]), columns[[at for at, *_ in decoded]])
        for row, (number, facts, _) in enumerate(decoded):
            url, _, image_id = sources[number]
            predictions[number] = self._prediction(url, image_id, facts, outputs, row)
        return [predictions[number] for number in range(len(sources))]

    def _read(self, data: bytes | PlantmlError) -> tuple[imaging.Facts, Pixels]:
        if isinstance(data, PlantmlError):
            raise data
        return imaging.read(data, self.bundle.contract.input)

    def _prediction(
        self, url: str, image_id: str | None, facts: imaging.Facts, outputs: Outputs, row: int
    ) -> Prediction:
        size, form = (facts.width, facts.height), self.bundle.form_note
        if self.bundle.contract.detection is not None:
            record = Record(url, image_id, *size, self.bundle.digest, {}, (), None, None, None, form=form)
            boxes = self._reader.read_boxes(outputs, row, *size)
            return Prediction(self._reader.with_boxes(record, boxes), {}, None)
        targets, decision, unknown = self._reader.read(outputs, row)
        if self.bundle.contract.anomaly is not None:
            heat_map = self._reader.read_heat_map(outputs, row, *size)
            plain = Record(url, image_id, *size, self.bundle.digest, targets, (), decision, unknown, None)
            record = replace(plain, heat_map=heat_map, form=form)
            return Prediction(record, {ANOMALY.name: np.array([1 - unknown, unknown], np.float32)}, None)
        record = Record(url, image_id, *size, self.bundle.digest, targets, (), decision, unknown, None, form=form)
        probabilities = {target.name: outputs[f"target.{target.name}"][row] for target in self.bundle.contract.targets}
        return Prediction(record, probabilities, outputs["embedding"][row])


def _apart(photos: Iterable[tuple[str, CovariateRow | None]], rows: deque[CovariateRow | None]) -> Iterator[str]:
    """The URLs of photos; their covariates are added to `rows`."""
    for url, row in photos:
        rows.append(row)
        yield url


def _digest(data: bytes | PlantmlError) -> str | None:
    return hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else None


def _is_near(url: str) -> bool:
    """True for what lies on this machine, in an archive too."""
    return storage.is_local(url.rpartition("::")[2])


def _reason(error: PlantmlError) -> str:
    """Why an image has no prediction: a code, and the error's own words."""
    if isinstance(error, ImageError):
        return f"{error.code}: {error.why}"
    if isinstance(error, NotFoundError):
        code = "not-found"
    elif isinstance(error, RefusedError) or isinstance(error.__cause__, PermissionError):
        code = "refused"
    elif isinstance(error.__cause__, TimeoutError):
        code = "timeout"
    else:
        # Damaged: an archive's member, or a photo that is not the imported one.
        code = "damaged" if isinstance(error, InputError | DamagedError) else "unreachable"
    return f"{code}: {error}"
