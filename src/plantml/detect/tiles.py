"""`--tile`: a large photo looked at piece by piece at its full size, for trays and for pictures from above."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from plantml import imaging
from plantml.concurrency import batched
from plantml.errors import PlantmlError
from plantml.model.pipeline import Pipeline, Prediction
from plantml.model.records import failed


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        size: of a tile, pixels; a picture that is smaller is one tile.
        overlap: share of a tile that its neighbour shows too, at least, 0 to below 1.
    """

    size: int
    overlap: float

    def starts(self, length: int) -> list[int]:
        """Where tiles begin along one side, pixels: evenly spread, the last one ends where the picture does."""
        if length <= self.size:
            return [0]
        count = math.ceil((length - self.size) / (self.size * (1 - self.overlap)) - 1e-9) + 1
        return [round(number * (length - self.size) / (count - 1)) for number in range(count)]


@dataclass(frozen=True, eq=False, kw_only=True)
class TiledPipeline(Pipeline):
    """A pipeline whose records have `tiles` too: the model's answers for each part of the photo.

    Attributes:
        tiling: how photos are cut.
    """

    tiling: Tiling

    def predict_bytes(self, sources: Sequence[tuple[str, bytes | PlantmlError]]) -> list[Prediction]:
        """See `Pipeline.predict_bytes`."""
        whole = super().predict_bytes(sources)
        return [self._tiled(prediction, data) for prediction, (_, data) in zip(whole, sources, strict=True)]

    def _tiled(self, prediction: Prediction, data: bytes | PlantmlError) -> Prediction:
        record = prediction.record
        if not isinstance(data, bytes) or record.width is None or record.height is None:
            return prediction
        rows, columns = self.tiling.starts(record.height), self.tiling.starts(record.width)
        size = self.tiling.size
        boxes = [
            (left, top, min(left + size, record.width), min(top + size, record.height))
            for top in rows
            for left in columns
        ]
        try:
            parts = imaging.cut(data, boxes, self.bundle.contract.input)
            grid = list(chain.from_iterable(map(self._answers, batched(zip(boxes, parts, strict=True), self.batch))))
        except imaging.ImageError as error:  # decoded small it had not come to the damaged part
            return Prediction(
                failed(record.image, record.model, f"{error.code}: {error.why}", record.image_id), None, None
            )
        tiles = {
            "size": size,
            "overlap": self.tiling.overlap,
            "columns": len(columns),
            "rows": len(rows),
            "labels": _labels(grid),
            "grid": grid,
        }
        return replace(prediction, more={**prediction.more, "tiles": tiles})

    def _answers(self, some: Sequence[tuple[tuple[int, int, int, int], imaging.Pixels]]) -> list[dict[str, Any]]:
        outputs = self.runtime.run(np.stack([pixels for _, pixels in some]))
        found = []
        for row, ((left, top, right, bottom), _) in enumerate(some):
            targets, decision, unknown = self._reader.read(outputs, row)
            short = {
                name: {key: value for key, value in answer.items() if key != "top"} for name, answer in targets.items()
            }
            place = {"x": left, "y": top, "w": right - left, "h": bottom - top}
            found.append(place | {"targets": short, "decision": decision, "unknown": unknown})
        return found


def _labels(grid: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """By class target, how many tiles have each label, the most frequent first."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for tile in grid:
        for name, answer in tile["targets"].items():
            if "label" in answer:
                counts[name][answer["label"]] += 1
    return {name: dict(labels.most_common()) for name, labels in counts.items()}
