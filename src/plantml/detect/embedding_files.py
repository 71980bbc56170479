"""`--embeddings`: one embedding per image, as a table or as an array."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from plantml import storage
from plantml.detect.formats import tables
from plantml.detect.output_row import OutputRow
from plantml.errors import UsageError
from plantml.storage.segments import unpack


def write(out: str, rows: Iterable[OutputRow], size: int) -> None:
    """Write the embeddings of rows to a URL, in one step.

    `.parquet`: `image`, `image_id` and `embedding` (float32 [D]) of all images that did not fail. `.npy`: float32
    [N, D], one row per record in the order of the records, NaN for failures.

    Args:
        out: URL of the output.
        rows: finished images.
        size: D, the length of an embedding.

    Raises:
        UsageError: the URL has neither extension.
    """
    writer = writer_of(out)
    with storage.staged(out) as path:
        writer(path, rows, size)


def writer_of(out: str) -> Callable[[Path, Iterable[OutputRow], int], None]:
    """The writer for an extension. Raises `UsageError`."""
    try:
        return WRITERS[storage.suffix(out)]
    except KeyError:
        raise UsageError(f"{out} cannot hold embeddings", "", f"Its name must end in {' or '.join(WRITERS)}.") from None


def _parquet(path: Path, rows: Iterable[OutputRow], size: int) -> None:
    import polars as pl

    names = ("image", "image_id")
    table = (
        {name: row.unicode_record()[name] for name in names} | {"embedding": unpack(row.embedding, "<f2").tolist()}
        for row in rows
        if row.embedding
    )
    tables.write_parquet(
        path, table, {"image": pl.String, "image_id": pl.String, "embedding": pl.Array(pl.Float32, size)}
    )


def _npy(path: Path, rows: Iterable[OutputRow], size: int) -> None:
    with path.open("wb") as file:
        _header(file, 0, size)
        blank, count = np.full(size, np.nan, "<f4").tobytes(), 0
        for row in rows:
            file.write(unpack(row.embedding, "<f2").astype("<f4").tobytes() if row.embedding else blank)
            count += 1
        file.seek(0)
        _header(file, count, size)


def _header(file: IO[bytes], count: int, size: int) -> None:
    # numpy pads the header for a growing first axis, so rewriting it keeps its length.
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, size)})


WRITERS: Mapping[str, Callable[[Path, Iterable[OutputRow], int], None]] = {".parquet": _parquet, ".npy": _npy}
"""Writers by extension."""
