"""A cache of predictions on this machine, from which a killed validation resumes.

    CACHE/predictions/<model>-<what>/<time>-<process>.parquet     some hundred photos each

A folder is keyed by the model's bytes, its runtime, and the library versions that affect predictions; a row by the
photo's bytes.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import storage
from plantml.about import __version__
from plantml.errors import PlantmlError
from plantml.model.bundle import Bundle
from plantml.model.pipeline import Pipeline
from plantml.settings import Machine
from plantml.storage import sealed_tables

SEGMENT_ROWS, SEGMENT_SECONDS = 256, 5.0

_MODELS = 64
"""Folders that are kept; those that were not used for longest go first."""

_SCHEMA = pl.Schema({"photo": pl.String(), "record": pl.String(), "numbers": pl.List(pl.Float32)})

Entry = tuple[str, NDArray[np.float32]]
"""A record as JSON, or nothing, and numbers of the model."""


class PredictionCache:
    """Predictions of one model to one kind of question. Several processes may share the folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._entries: dict[str, Entry] = {}
        self._new: list[tuple[str, str, list[float]]] = []
        self._since = time.monotonic()

    @classmethod
    def of(
        cls, pipeline: Pipeline, what: str, machine: Machine, *, device: str = "cpu", fresh: bool = False
    ) -> "PredictionCache":
        """The predictions of a model for `what`; `fresh` deletes them, and a model that cannot be read keeps none."""
        model = _identity(pipeline.bundle, pipeline.runtime.name, device)
        return cls.open(machine.cache_dir / "predictions" / f"{model}-{what}" if model else None, fresh=fresh)

    @classmethod
    def open(cls, folder: Path | None, *, fresh: bool = False) -> "PredictionCache":
        """The predictions in a folder; `fresh` deletes them, no folder keeps none."""
        opened = cls(folder)
        if fresh and folder:
            shutil.rmtree(folder, ignore_errors=True)
        opened._read()
        return opened

    def get(self, photo: str | None) -> Entry | None:
        """The cached prediction for a photo."""
        return None if photo is None else self._entries.get(photo)

    def add(self, photo: str | None, record: str, numbers: NDArray[np.float32]) -> None:
        """Add a prediction."""
        if photo is None or self._folder is None:
            return
        self._new.append((photo, record, numbers.tolist()))
        if len(self._new) >= SEGMENT_ROWS or time.monotonic() - self._since > SEGMENT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added. A full disk costs the next validation some time, and this one nothing."""
        self._since = time.monotonic()
        if not self._new or self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{time.time_ns()}-{os.getpid()}"
            part = self._folder / f".{name}.part"
            part.write_bytes(sealed_tables.pack(pl.DataFrame(self._new, schema=_SCHEMA, orient="row")))
            part.replace(self._folder / f"{name}.parquet")
        self._new = []

    def _read(self) -> None:
        if self._folder is None:
            return
        if not self._folder.is_dir():
            _forget_old(self._folder.parent)
            return
        os.utime(self._folder)
        for file in sorted(self._folder.glob("*.parquet")):
            with contextlib.suppress(OSError):
                rows = sealed_tables.unpack(file.read_bytes(), _SCHEMA)
                if rows is None:
                    file.unlink()  # damaged: predicted again
                    continue
                for photo, record, numbers in rows.iter_rows():
                    self._entries[photo] = (record, np.array(numbers, np.float32))


def _forget_old(home: Path) -> None:
    with contextlib.suppress(OSError):
        folders = sorted(home.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in folders[_MODELS:]:
            shutil.rmtree(folder, ignore_errors=True)


def _identity(bundle: Bundle, runtime: str, device: str) -> str | None:
    """The cache key of a model; `None` if its bytes cannot be read."""
    try:
        files: Mapping[str, str] = bundle.files or {"": hashlib.sha256(storage.read(bundle.url)).hexdigest()}
    except PlantmlError:
        return None
    libraries = {name: _version(name) for name in ("numpy", "pillow", "onnxruntime", "torch", "openvino")}
    parts = [bundle.digest, sorted(files.items()), runtime, device, __version__, libraries]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def photo_keys(rows: pl.DataFrame) -> Sequence[str | None]:
    """What names each photo's bytes: their hash where the dataset holds them, and the file's stamp too elsewhere."""
    return [
        image_id if path.startswith("images/") else _stamped(image_id, url)
        for image_id, path, url in rows.select("image_id", "path", "url").iter_rows()
    ]


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
