"""Embeddings: one vector per photo and model, computed once and stored in the dataset."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import imaging, storage
from plantml.concurrency import Progress, batched, in_threads, silent
from plantml.data import photos
from plantml.data.manifest import Version
from plantml.errors import InputError, MissingExtraError, StorageError
from plantml.imaging import Fit, Pixels
from plantml.model import bundle as bundles
from plantml.model.runtimes import OnnxRuntime, Runtime
from plantml.registry.references import open_model
from plantml.settings import Machine
from plantml.storage.segments import Segments, pack, unpack

_BATCH = 8
_REMOTE_THREADS = 8
_BACKBONE = "backbone-1.onnx"

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
    bundles.check_whole_photos(bundle, "an embedding")
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
    usable = version.usable().filter(pl.col("phash").is_not_null()).unique("image_id").sort("image_id")
    paths = dict(usable.select("image_id", "path").iter_rows())
    segments = Segments(storage.join(version.url, "derived", embedder.digest), seconds=30.0)
    rows = (row.decode().split("\t") for row in segments)
    known = {image_id: unpack(vector, "<f2") for image_id, vector in rows if image_id in paths}
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
            known.update(zip(names, vectors.astype("<f2"), strict=True))
            segments.add(*(f"{name}\t{pack(known[name], '<f2')}".encode() for name in names))
            done += len(names)
            progress(done, len(paths))
    finally:
        segments.flush()
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
