"""Embeddings: one vector per photo and model, computed once and stored in the dataset."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

SECONDS = 30.0
"""After which a segment is written with the embeddings that there are."""

_BATCH = 8
_REMOTE_THREADS = 8
_BACKBONE = "backbone-1.onnx"

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Embedder:
    """A network that computes embeddings, in any thread. Vectors of different digests cannot be compared."""

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

    `model` is a run, a bundle, or any ONNX file with an output `embedding`. `None` takes the pretrained backbone, which
    the `[train]` extra writes into the cache when it is first needed.

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


Photo = tuple[str, str]
"""SHA-256 and URL of a photo in a dataset."""

Fill = Callable[[Embedder, Sequence[Photo], Segments, Callable[[int], None]], None]
"""Embeds photos elsewhere, into further segments of the same folder; tells how many are done."""


def embed(
    version: Version, embedder: Embedder, machine: Machine, progress: Progress = silent, fill: Fill | None = None
) -> tuple[list[str], Vectors]:
    """Compute embeddings of all usable photos of a version; stored ones are read from the dataset.

    `fill` embeds the photos that have none; by default this process does.

    Returns:
        The SHA-256 of each distinct photo, sorted, and float32 [N, D] of length 1 in that order. Photos that
        can no longer be read are left out.
    """
    usable = version.usable().filter(pl.col("phash").is_not_null()).unique("image_id").sort("image_id")
    paths = dict(usable.select("image_id", "path").iter_rows())
    place = storage.join(version.url, "derived", embedder.digest)
    segments = Segments(place, seconds=SECONDS)
    known = _stored(segments, paths)
    todo = [(image_id, version.image_url(path)) for image_id, path in paths.items() if image_id not in known]
    if todo and fill is not None:
        done = len(known)
        fill(embedder, todo, segments, lambda photos: progress(done + photos, len(paths)))
        segments = Segments(place, seconds=SECONDS)
        known = _stored(segments, paths)
        todo = [photo for photo in todo if photo[0] not in known]  # those that cannot be read
    is_local = not todo or (storage.is_local(todo[0][1]) and storage.is_local(version.url))
    try:
        for names, vectors in embed_photos(todo, embedder, machine, is_local=is_local):
            known.update(zip(names, vectors.astype("<f2"), strict=True))
            segments.add(*rows(names, vectors))
            progress(len(known), len(paths))
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


def embed_photos(
    photos_: Iterable[Photo], embedder: Embedder, machine: Machine, *, is_local: bool
) -> Iterator[tuple[list[str], Vectors]]:
    """Batches of photos: the SHA-256 of those that can be read, and their embeddings, float32 [N, D]."""
    cache = machine.cache()

    def embed_batch(batch: list[Photo]) -> tuple[list[str], Vectors]:
        names, pixels = [], []
        for image_id, url in batch:
            try:
                pixels.append(imaging.decode(photos.read(image_id, url, cache), embedder.fit))
                names.append(image_id)
            except photos.UNREADABLE:
                continue  # `verify` reports missing and damaged photos
        return names, embedder(np.stack(pixels)) if pixels else np.zeros((0, 0), np.float32)

    threads = machine.threads if is_local else max(machine.threads, _REMOTE_THREADS)
    return in_threads(embed_batch, batched(photos_, _BATCH), threads)


def rows(names: Sequence[str], vectors: Vectors) -> list[bytes]:
    """Embeddings as rows of segments."""
    halves = vectors.astype("<f2")
    return [f"{name}\t{pack(vector, '<f2')}".encode() for name, vector in zip(names, halves, strict=True)]


def _stored(segments: Segments, paths: Mapping[str, str]) -> dict[str, NDArray[np.float16]]:
    """Embeddings in segments of the photos that have a path, as float16 [D]."""
    fields = (row.decode().split("\t") for row in segments)
    return {image_id: unpack(vector, "<f2") for image_id, vector in fields if image_id in paths}
