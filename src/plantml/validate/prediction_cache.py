"""A cache of predictions on this machine, from which a killed validation resumes.

    CACHE/predictions/<model>-<what>/000001.jsonl     segments of some hundred photos

A folder is keyed by the model's bytes, its runtime and tiles, and the library versions that affect predictions; a row
by the photo's bytes.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import storage
from plantml.about import __version__
from plantml.errors import PlantmlError, StorageError
from plantml.model.pipeline import Pipeline
from plantml.settings import Machine
from plantml.storage.segments import Segments, pack, unpack

SEGMENT_ROWS, SEGMENT_SECONDS = 256, 5.0

_MODELS = 64
"""Folders that are kept; those that were not used for longest go first."""

Entry = tuple[str, NDArray[np.float32], NDArray[np.float32] | None]
"""A record as JSON, or nothing, numbers of the model, and the photo's embedding, if it is kept."""


class PredictionCache:
    """Predictions of one model to one kind of question. Several processes may share the folder.

    Without a key of the model, nothing is cached. `fresh` discards earlier predictions.
    """

    def __init__(self, cache: Path, model: str | None, what: str, *, fresh: bool = False) -> None:
        self._entries: dict[str, Entry] = {}
        self._segments: Segments | None = None
        if model is None:
            return
        folder = cache / "predictions" / f"{model}-{what}"
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        if folder.is_dir():
            with contextlib.suppress(OSError):
                os.utime(folder)
        else:
            _forget_old(folder.parent)
        with self._optional():
            self._segments = Segments(str(folder), rows=SEGMENT_ROWS, seconds=SEGMENT_SECONDS)
            for row in self._segments:
                self._take(row)

    @classmethod
    def of(
        cls, pipeline: Pipeline, what: str, machine: Machine, *, device: str = "cpu", fresh: bool = False
    ) -> "PredictionCache":
        """The predictions of a model; of one that cannot be read nothing is cached."""
        return cls(machine.cache_dir, identity(pipeline, device), what, fresh=fresh)

    def get(self, photo: str | None) -> Entry | None:
        """The cached prediction for a photo."""
        return None if photo is None else self._entries.get(photo)

    def add(
        self, photo: str | None, record: str, numbers: NDArray[np.float32], embedding: NDArray[np.float32] | None = None
    ) -> None:
        """Add a prediction. Of the embedding, the direction is kept, in 16 bits."""
        if photo is not None:
            self._keep(encode(photo, record, numbers, embedding))

    def add_rows(self, rows: Iterable[bytes]) -> None:
        """Add predictions that another machine made, as `encode` writes them, to be got from now on."""
        for row in rows:
            self._take(row)
            self._keep(row)
        self.flush()

    def _take(self, row: bytes) -> None:
        photo, record, numbers, *embedding = json.loads(row)
        vector = unpack(embedding[0], "<f2").astype(np.float32) if embedding else None
        self._entries[photo] = (record, unpack(numbers, "<f4"), vector)

    def _keep(self, row: bytes) -> None:
        if self._segments is not None:
            with self._optional():
                self._segments.add(row)

    def flush(self) -> None:
        """Write what was added."""
        if self._segments is not None:
            with self._optional():
                self._segments.flush()

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        """A full disk costs the next validation some time, and this one nothing."""
        try:
            yield
        except StorageError:
            self._segments = None


def encode(
    photo: str, record: str, numbers: NDArray[np.float32], embedding: NDArray[np.float32] | None = None
) -> bytes:
    """A prediction as a row of segments."""
    more = [] if embedding is None else [pack(embedding / (float(np.linalg.norm(embedding)) or 1.0), "<f2")]
    return json.dumps([photo, record, pack(numbers, "<f4"), *more]).encode()


def _forget_old(home: Path) -> None:
    with contextlib.suppress(OSError):
        folders = sorted(home.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in folders[_MODELS:]:
            shutil.rmtree(folder, ignore_errors=True)


def identity(pipeline: Pipeline, device: str) -> str | None:
    """The cache key of a model and its tiles; `None` if its bytes cannot be read."""
    bundle = pipeline.bundle
    try:
        files: Mapping[str, str] = bundle.files or {"": hashlib.sha256(storage.read(bundle.url)).hexdigest()}
    except PlantmlError:
        return None
    libraries = {name: _version(name) for name in ("numpy", "pillow", "onnxruntime", "torch", "openvino")}
    parts = [
        bundle.digest,
        sorted(files.items()),
        pipeline.runtime.name,
        device,
        str(pipeline.tiling),
        __version__,
        libraries,
    ]
    if bundle.form and not bundle.form.file:  # its numbers differ by processor
        parts.append(platform.node())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def photo_keys(rows: pl.DataFrame, covariates: Sequence[str] | None = None) -> Sequence[str | None]:
    """What names each photo's bytes: their hash where the dataset holds them, and the file's stamp too elsewhere.

    With `covariates`, a text for each photo, it names these too.
    """
    keys = [
        image_id if path.startswith("images/") else _stamped(image_id, url)
        for image_id, path, url in rows.select("image_id", "path", "url").iter_rows()
    ]
    if covariates is None:
        return keys
    return [key and f"{key} {text}" for key, text in zip(keys, covariates, strict=True)]


def _stamped(image_id: str, url: str) -> str | None:
    try:
        return f"{image_id} {url} {storage.stat(url).stamp}"
    except PlantmlError:
        return None


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
