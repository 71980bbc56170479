"""Predictions for a number of images: a sequence, a table, a contact sheet."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml import storage
from plantml.api import html
from plantml.imaging import ImageError
from plantml.model.contract import Contract
from plantml.model.pipeline import Prediction

if TYPE_CHECKING:
    import polars as pl

    from plantml.detect.config import TableRows

_SHOWN = 12
"""Photos and rows that a notebook shows."""


@dataclass(frozen=True, repr=False)
class Predictions(Sequence[Prediction]):
    """Predictions in the order of their images.

    Attributes:
        items: one prediction per image.
        contract: of the model.
        images: what was passed to `predict`, in the same order.
    """

    items: Sequence[Prediction]
    contract: Contract
    images: Sequence[Any] = field(default=())

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.items)

    @overload
    def __getitem__(self, at: int) -> Prediction: ...
    @overload
    def __getitem__(self, at: slice) -> "Predictions": ...
    def __getitem__(self, at: int | slice) -> "Prediction | Predictions":
        if isinstance(at, slice):
            return Predictions(self.items[at], self.contract, self.images[at])
        return self.items[at]

    def __repr__(self) -> str:
        return f"<Predictions for {len(self)} images, {sum(each.failure is not None for each in self)} failed>"

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records that `plantml detect` writes; see `docs/records.md`."""
        return [prediction.record.as_json() | dict(prediction.more) for prediction in self]

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """Embeddings, float32 [N, D]; a row of NaN for an image that failed, or whose model finds boxes."""
        size = self.contract.architecture.embedding
        rows = np.full((len(self), size), np.nan, np.float32)
        for row, prediction in zip(rows, self, strict=True):
            if prediction.embedding is not None:
                row[:] = prediction.embedding
        return rows

    def to_polars(self, rows: "TableRows" = "photos") -> "pl.DataFrame":
        """One row per image or per box, with the columns of `plantml detect --rows ROWS --out records.parquet`."""
        import polars as pl

        from plantml.detect.formats import tables

        if rows == "boxes":
            boxes = [box for record in self.records for box in tables.flat_boxes(record, self.contract)]
            return pl.DataFrame(boxes, schema=tables.schema_of(tables.box_columns(self.contract)))
        table = [tables.flat(record, self.contract) for record in self.records]
        return pl.DataFrame(table, schema=tables.schema_of(tables.columns(self.contract)))

    def plot(self, limit: int = 48) -> Image.Image:
        """A contact sheet of the first `limit` images with their labels and decisions, for display.

        What cannot be read any more is crossed out.
        """
        from plantml.detect import record_sheet
        from plantml.imaging import contact_sheet

        pairs = list(zip(self.records, self.images, strict=True))[:limit]
        tiles = [record_sheet.tile(record, partial(_bytes_of, image)) for record, image in pairs]
        return Image.open(io.BytesIO(contact_sheet.draw(tiles)))

    def _repr_html_(self) -> str:
        table = html.frame(self.to_polars().drop("image_id", "model"), _SHOWN)
        return html.picture(self.plot(_SHOWN)) + table if self else table


def _bytes_of(image: Any) -> bytes:
    """Bytes of an image file: those that were passed, those at the URL, or the pixels as PNG."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, Path)):
        return storage.read(str(image))
    try:
        return _png(image)
    except OSError as error:  # a file that Pillow opened and has not read yet
        raise ImageError("damaged", str(error)) from error


def _png(image: "Image.Image | NDArray[np.uint8]") -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
