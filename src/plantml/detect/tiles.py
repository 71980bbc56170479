"""`--tile`: predictions for each tile of a large photo at full resolution, for trays and aerial photos."""

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
    """How a photo is cut.

    Attributes:
        size: of a tile, pixels; a smaller photo is one tile.
        overlap: minimum share of a tile that overlaps its neighbour, 0 to below 1.
    """

    size: int
    overlap: float

    def starts(self, length: int) -> list[int]:
        """Offsets of tiles along one side, pixels: evenly spaced, and the last tile ends at the edge."""
        if length <= self.size:
            return [0]
        count = math.ceil((length - self.size) / (self.size * (1 - self.overlap)) - 1e-9) + 1
        return [round(number * (length - self.size) / (count - 1)) for number in range(count)]


@dataclass(frozen=True, eq=False, kw_only=True)
class TiledPipeline(Pipeline):
    """A pipeline whose records also have `tiles`: predictions for each tile of the photo.

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
            grid = list(
                chain.from_iterable(map(self._predict_tiles, batched(zip(boxes, parts, strict=True), self.batch)))
            )
        except imaging.ImageError as error:  # decoding at reduced size did not reach the damaged part
            return Prediction(
                failed(record.image, record.model, f"{error.code}: {error.why}", record.image_id), None, None
            )
        summary = {
            "size": size,
            "overlap": self.tiling.overlap,
            "columns": len(columns),
            "rows": len(rows),
            "labels": _labels(grid),
            "grid": grid,
        }
        return replace(prediction, more={**prediction.more, "tiles": summary})

    def _predict_tiles(self, tiles: Sequence[tuple[tuple[int, int, int, int], imaging.Pixels]]) -> list[dict[str, Any]]:
        outputs = self.runtime.run(np.stack([pixels for _, pixels in tiles]))
        grid = []
        for row, ((left, top, right, bottom), _) in enumerate(tiles):
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
