"""Predictions or boxes from tiles of a large photo at full resolution, for trays and aerial photos."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from plantml import imaging
from plantml.concurrency import batched
from plantml.errors import UsageError
from plantml.imaging import Corners, Photo, Tiling
from plantml.model.box_merging import View, merge
from plantml.model.bundle import Bundle
from plantml.model.covariates import Columns
from plantml.model.pipeline import BATCH, Pipeline, Prediction
from plantml.model.records import failed
from plantml.model.runtimes import Outputs, Runtime
from plantml.settings import OVERLAP

_EDGE = 4
"""A box that ends this close to the edge of a tile may be cut, in pixels of the model's input: a cell of its map."""


def build_pipeline(
    bundle: Bundle,
    runtime: Runtime,
    *,
    tile: int | None = None,
    overlap: float = OVERLAP,
    threads: int = 2,
    batch: int = BATCH,
    top_k: int = 5,
) -> Pipeline:
    """The pipeline of a model.

    Args:
        bundle: of the model.
        runtime: that runs its network.
        tile: side of the tiles that it looks at, pixels of the photo; 0 for whole photos only; if not given, that of
            the tiles it was trained on, if any.
        overlap: of neighbouring tiles, as a share of their size.
        threads: images processed at the same time.
        batch: batch size.
        top_k: classes to list per class target.
    """
    detection = bundle.contract.detection
    if tile is None and detection is not None:
        tile = detection.tile
    if not tile:
        return Pipeline(bundle, runtime, threads=threads, batch=batch, top_k=top_k)
    if bundle.contract.anomaly is not None:
        raise UsageError("A model of anomalies looks at no tiles", "it has learnt from whole photos", "Leave tile out.")
    tiling = Tiling(tile, overlap)
    return TiledPipeline(bundle, runtime, tiling=tiling, threads=threads, batch=batch, top_k=top_k)


@dataclass(frozen=True, eq=False, kw_only=True)
class TiledPipeline(Pipeline):
    """A pipeline that also looks at each tile of a photo.

    The records of a model of whole images have its predictions for each tile as `tiles`. Those of a detector have the
    boxes of the tiles and of the whole photo, where large objects are whole, each object once.

    Attributes:
        tiling: how photos are cut.
    """

    tiling: Tiling

    @property
    def chunk(self) -> int:
        """One image, which is a batch of tiles or more: so a few large photos keep all threads busy."""
        return 1

    def _refined(self, prediction: Prediction, photo: Photo, columns: Columns) -> Prediction:
        """See `Pipeline._refined`."""
        tiled = self._tiled(prediction, photo, columns)
        return super()._refined(tiled, photo, columns) if tiled.failure is None else tiled

    def _tiled(self, prediction: Prediction, photo: Photo, columns: Columns) -> Prediction:
        record = prediction.record
        assert record.width is not None
        assert record.height is not None
        places = self.tiling.places(record.width, record.height)
        try:
            if self.bundle.contract.detection is not None:
                return self._with_boxes(prediction, photo, places, columns)
            parts = self._outputs(photo, places, columns)
            grid = [tile for outputs, batch in parts for tile in self._grid(outputs, batch)]
        except imaging.ImageError as error:  # decoding at reduced size did not reach the damaged part
            reason = f"{error.code}: {error.why}"
            lost = failed(record.image, record.model, reason, record.image_id, record.form)
            return Prediction(lost, None, None)
        summary = {
            "size": self.tiling.size,
            "overlap": self.tiling.overlap,
            "columns": len(self.tiling.starts(record.width)),
            "rows": len(self.tiling.starts(record.height)),
            "labels": _labels(grid),
            "grid": grid,
        }
        return replace(prediction, more={**prediction.more, "tiles": summary})

    def _outputs(
        self, photo: Photo, places: Sequence[Corners], columns: Columns
    ) -> Iterator[tuple[Outputs, Sequence[Corners]]]:
        """The model's outputs for tiles, batch by batch, so that memory does not grow with their number."""
        parts = imaging.cut(photo, places, self.bundle.contract.input)
        for batch in batched(zip(places, parts, strict=True), self.batch):
            pixels = np.stack([pixels for _, pixels in batch])
            yield self.compute(pixels, columns.repeat(len(batch), axis=0)), [place for place, _ in batch]

    def _with_boxes(
        self, prediction: Prediction, photo: Photo, places: Sequence[Corners], columns: Columns
    ) -> Prediction:
        detection, width, height = self.bundle.contract.detection, prediction.record.width, prediction.record.height
        assert width is not None
        assert height is not None
        if len(places) == 1 or detection is None:
            return prediction
        views = [
            self._view(outputs, row, place)
            for outputs, batch in self._outputs(photo, places, columns)
            for row, place in enumerate(batch)
        ]
        views.append(View((0, 0, width, height), (0, 0), prediction.record.boxes))
        boxes = merge(views, width, height, detection.threshold)
        return replace(prediction, record=self._reader.with_boxes(prediction.record, boxes))

    def _view(self, outputs: Outputs, row: int, place: Corners) -> View:
        left, top, right, bottom = place
        boxes = self._reader.read_boxes(outputs, row, right - left, bottom - top)
        scale = self.bundle.contract.input.placement(right - left, bottom - top)
        moved = [{**box, "x": round(box["x"] + left, 2), "y": round(box["y"] + top, 2)} for box in boxes]
        return View(place, (_EDGE / scale.across, _EDGE / scale.down), moved)

    def _grid(self, outputs: Outputs, places: Sequence[Corners]) -> list[dict[str, Any]]:
        grid = []
        for row, (left, top, right, bottom) in enumerate(places):
            targets, decision, unknown = self._reader.read(outputs, row)
            brief = {
                name: {key: value for key, value in prediction.items() if key != "top"}
                for name, prediction in targets.items()
            }
            place = {"x": left, "y": top, "w": right - left, "h": bottom - top}
            grid.append(place | {"targets": brief, "decision": decision, "unknown": unknown})
        return grid


def _labels(grid: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Tiles per label by class target, the most frequent label first."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for tile in grid:
        for name, prediction in tile["targets"].items():
            if "label" in prediction:
                counts[name][prediction["label"]] += 1
    return {name: dict(labels.most_common()) for name, labels in counts.items()}
