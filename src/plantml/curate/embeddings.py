"""Embeddings: one vector per photo and model, computed once and stored in the dataset."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import imaging, storage
from plantml.concurrency import Progress, batched, in_threads, silent
from plantml.data import photos
from plantml.data.manifest import Version
from plantml.errors import InputError, MissingExtraError, NotFoundError, StorageError
from plantml.imaging import Fit, Pixels
from plantml.model import bundle as bundles
from plantml.model.runtimes import OnnxRuntime, Runtime
from plantml.registry.references import open_model
from plantml.settings import Machine
from plantml.storage import sealed_tables

_BATCH = 8
_SEGMENT_ROWS = 4096
_SEGMENT_SECONDS = 30.0
_REMOTE_THREADS = 8
_BACKBONE = "backbone-1.onnx"
_SCHEMA = pl.Schema({"image_id": pl.String(), "embedding": pl.Binary()})

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Embedder:
    """A network that computes embeddings.

    Attributes:
        name: as shown to people.
        digest: identifies the network; vectors of different networks cannot be compared.
        fit: how a photo is fitted to its input.
        runtime: runs the network; thread-safe.
    """

    name: str
    digest: str
    fit: Fit
    runtime: Runtime

    def __call__(self, batch: Pixels) -> Vectors:
        """Embeddings of length 1, float32 [N, D], of photos, uint8 RGB [N, H, W, 3] at the size of `fit`."""
        return unit(self.runtime.run(batch)["embedding"])


def unit(vectors: Vectors) -> Vectors:
    """Scale the rows of float32 [N, D] to length 1, so that their products are cosines."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled


def open_embedder(model: str | None, machine: Machine) -> Embedder:
    """Open the network that computes embeddings.

    Args:
        model: a run, a bundle, or any ONNX file with an output `embedding`; `None` takes the pretrained
            backbone, which the `[train]` extra writes into the cache when it is first needed.
        machine: the cache to use.

    Raises:
        MissingExtraError: the backbone is not in the cache and cannot be made.
        InputError: the model has no output for embeddings.
    """
    if model is None:
        return _plain(_backbone(machine), "pretrained backbone")
    if storage.suffix(model) == ".onnx":
        return _plain(model, model)
    bundle, runtime = open_model(model, cache=machine.cache())
    return Embedder(model, bundle.digest, bundle.contract.input, runtime)


def _plain(url: str, name: str) -> Embedder:
    data = storage.read(url)
    runtime = OnnxRuntime(data)
    shape = list(runtime.input_shape)
    if "embedding" not in runtime.outputs or len(shape) != 4 or not all(isinstance(n, int) for n in shape[1:]):
        raise InputError(
            f"{url} does not compute embeddings",
            f"its input has shape {shape} and its outputs are {', '.join(runtime.outputs)}",
            "Use a model with the input `image`, uint8 [N, H, W, 3], and an output `embedding`.",
        )
    fit, digest = Fit(shape[1], shape[2]), hashlib.sha256(data).hexdigest()
    if bundles.CONTRACT_KEY in runtime.metadata:
        bundle, _ = open_model(url)
        fit, digest = bundle.contract.input, bundle.digest
    return Embedder(name, digest, fit, runtime)


def _backbone(machine: Machine) -> str:
    """Return the file of the pretrained backbone; a subprocess exports it with torch if it is missing."""
    file = machine.cache_dir / _BACKBONE
    if file.exists():
        return str(file)
    if any(find_spec(name) is None for name in ("torch", "timm", "onnx", "onnxscript", "safetensors")):
        raise MissingExtraError(
            "No network for embeddings is available",
            "the pretrained backbone has to be exported once with torch",
            extra="train",
        )
    command = [sys.executable, "-m", "plantml.train.embedder", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - runs our own module
    if done.returncode or not file.exists():
        lines = done.stderr.strip().splitlines() or ["the export ended without a message"]
        raise StorageError(
            "The pretrained backbone could not be exported",
            lines[-1][:300],
            "Check PLANTML_CACHE_DIR, where it is stored.",
        )
    return str(file)


def embed(
    version: Version, embedder: Embedder, machine: Machine, progress: Progress = silent
) -> tuple[list[str], Vectors]:
    """Compute embeddings of all usable photos of a version; stored ones are read from the dataset.

    Returns:
        The SHA-256 of each distinct photo, sorted, and float32 [N, D] of length 1 in that order. Photos that
        can no longer be read are left out.
    """
    rows = version.usable().filter(pl.col("phash").is_not_null()).unique("image_id").sort("image_id")
    paths = dict(rows.select("image_id", "path").iter_rows())
    stored = _StoredVectors(version.url, embedder.digest)
    known = stored.read(paths.keys())
    todo = [(image_id, version.image_url(path)) for image_id, path in paths.items() if image_id not in known]
    local = not todo or (storage.is_local(todo[0][1]) and storage.is_local(version.url))
    cache = machine.cache()

    def embed_batch(batch: list[tuple[str, str]]) -> tuple[list[str], Vectors]:
        names, pixels = [], []
        for image_id, url in batch:
            try:
                pixels.append(imaging.decode(photos.read(image_id, url, cache), embedder.fit))
                names.append(image_id)
            except photos.UNREADABLE:
                continue  # `verify` reports missing and damaged photos
        return names, embedder(np.stack(pixels)) if pixels else np.zeros((0, 0), np.float32)

    done = len(known)
    threads = machine.threads if local else max(machine.threads, _REMOTE_THREADS)
    try:
        for names, vectors in in_threads(embed_batch, batched(todo, _BATCH), threads):
            stored.add(names, vectors)
            known.update(zip(names, vectors.astype(np.float16), strict=True))
            done += len(names)
            progress(done, len(paths))
    finally:
        stored.write()
    ids = [image_id for image_id in paths if image_id in known]
    if not ids:
        raise InputError(
            f"{version.ref} has no photo to embed",
            "no usable photo can be read",
            "Run plantml dataset info to see what it contains.",
        )
    return ids, unit(np.stack([known[image_id] for image_id in ids]).astype(np.float32))


def embed_files(urls: Sequence[str], embedder: Embedder) -> Vectors:
    """Compute embeddings of photos outside a dataset: float32 [N, D]. Raises what reading them raises."""
    return embedder(np.stack([imaging.decode(storage.read(url), embedder.fit) for url in urls]))


class _StoredVectors:
    """Vectors stored in the dataset, in segments `derived/<digest>/<random name>.parquet`, as 16-bit floats."""

    def __init__(self, dataset: str, digest: str) -> None:
        self._folder = storage.join(dataset, "derived", digest)
        self._names: list[str] = []
        self._vectors: list[Vectors] = []
        self._last = time.monotonic()

    def read(self, image_ids: Iterable[str]) -> dict[str, NDArray[np.float16]]:
        try:
            urls = [entry.url for entry in storage.list_files(self._folder) if entry.name.endswith(".parquet")]
        except NotFoundError:
            return {}
        requested = set(image_ids)
        vectors: dict[str, NDArray[np.float16]] = {}
        for _, data in storage.read_many(urls):
            rows = sealed_tables.unpack(data, _SCHEMA) if isinstance(data, bytes) else None
            if rows is not None:  # otherwise they are recomputed
                for image_id, vector in rows.iter_rows():
                    if image_id in requested:
                        vectors[image_id] = np.frombuffer(vector, "<f2")
        return vectors

    def add(self, names: list[str], vectors: Vectors) -> None:
        if names:
            self._names += names
            self._vectors.append(vectors)
        if len(self._names) >= _SEGMENT_ROWS or time.monotonic() - self._last > _SEGMENT_SECONDS:
            self.write()

    def write(self) -> None:
        self._last = time.monotonic()
        if self._names:
            rows = [row.tobytes() for row in np.concatenate(self._vectors).astype("<f2")]
            data = sealed_tables.pack(pl.DataFrame({"image_id": self._names, "embedding": rows}, schema=_SCHEMA))
            storage.write(storage.join(self._folder, f"{os.urandom(8).hex()}.parquet"), data)
            self._names, self._vectors = [], []
