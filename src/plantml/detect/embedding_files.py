"""`--embeddings`: the vector of each image, as a table or as an array."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from plantml import storage
from plantml.detect import writers
from plantml.detect.journal import Row, unpack
from plantml.errors import UsageError
from plantml.model import records


def write(out: str, rows: Iterable[Row], size: int) -> None:
    """Write the embeddings of rows to a URL, in one step.

    `.parquet`: `image`, `image_id` and `embedding` (float32 [D]) of all images that gave one. `.npy`: float32 [N, D],
    one row a record in their order, NaN where there is none.

    Args:
        out: where to.
        rows: finished images.
        size: D, the length of an embedding.

    Raises:
        UsageError: the URL has neither extension.
    """
    writer = writer_of(out)
    with storage.staged(out) as path:
        writer(path, rows, size)


def writer_of(out: str) -> Callable[[Path, Iterable[Row], int], None]:
    """What writes that extension. Raises `UsageError`."""
    try:
        return WRITERS[storage.suffix(out)]
    except KeyError:
        raise UsageError(f"{out} cannot hold embeddings", "", f"Its name must end in {' or '.join(WRITERS)}.") from None


def _parquet(path: Path, rows: Iterable[Row], size: int) -> None:
    import polars as pl

    found = (
        {name: record[name] for name in ("image", "image_id")} | {"embedding": vector.tolist()}
        for row in rows
        if (vector := unpack(row.embedding)) is not None
        for record in (records.parse(row.record),)
    )
    writers.sink(path, found, {"image": pl.String, "image_id": pl.String, "embedding": pl.Array(pl.Float32, size)})


def _npy(path: Path, rows: Iterable[Row], size: int) -> None:
    with path.open("wb") as file:
        _header(file, 0, size)
        nothing, count = np.full(size, np.nan, "<f4").tobytes(), 0
        for row in rows:
            vector = unpack(row.embedding)
            file.write(nothing if vector is None else vector.astype("<f4").tobytes())
            count += 1
        file.seek(0)
        _header(file, count, size)


def _header(file: IO[bytes], count: int, size: int) -> None:
    # numpy leaves room for a growing first axis, so that the header keeps its length.
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, size)})


WRITERS: Mapping[str, Callable[[Path, Iterable[Row], int], None]] = {".parquet": _parquet, ".npy": _npy}
"""By extension."""
