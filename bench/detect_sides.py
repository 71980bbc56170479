"""The sides of detection that need no torch: the library's call, and its ingredients alone."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime

from bench.side import Rounds
from plantml import imaging, storage
from plantml.concurrency import Stop, batched
from plantml.detect.detect import DetectConfig, build_pipeline, detect
from plantml.detect.sources import collect
from plantml.model import bundle as bundles
from plantml.model.pipeline import BATCH
from plantml.model.runtimes import FORM_RUNTIMES
from plantml.registry import references
from plantml.registry.references import open_model
from plantml.settings import OVERLAP, usable_cores


def library(
    rounds: Rounds,
    *,
    folder: str,
    model: str,
    scratch: str,
    warm: bool = True,
    tile: int = 0,
    bfloat16: bool = False,
    environment: Mapping[str, str] | None = None,
    helpers: Sequence[int] = (),
) -> None:
    """`plantml detect FOLDER --out records.jsonl`, without the process's start.

    Args:
        rounds: the conversation.
        folder: URL of photos.
        model: a bundle or an exported file.
        scratch: local folder for the outputs.
        warm: true if a round goes ahead that nobody measures.
        tile: side of the tiles that it looks at; 0 for whole photos.
        bfloat16: true to compute with bfloat16.
        environment: variables that name the storage.
        helpers: processes of the storage, whose computing counts.
    """
    os.environ.update(environment or {})
    rounds.helpers = helpers
    bundle, runtime = open_model(model)
    if bfloat16:
        runtime = FORM_RUNTIMES["bfloat16"][1](bundle.read(bundles.ONNX))
    with TemporaryDirectory(dir=scratch) as out:
        numbers = count()

        def work() -> int:
            config = DetectConfig.model_validate({"out": f"{out}/{next(numbers)}.jsonl", "tile": tile})
            pipeline = build_pipeline(bundle, runtime, config, usable_cores())
            done = detect(collect([folder]), pipeline, config, stdout=sys.stdout, stop=Stop())
            if done.failed:
                raise RuntimeError(f"images failed: {done.failures}")
            return done.images

        rounds.run(work, warm=warm)


def fetching(
    rounds: Rounds, *, folder: str, environment: Mapping[str, str] | None = None, helpers: Sequence[int] = ()
) -> None:
    """Objects to bytes in memory, and nothing else."""
    os.environ.update(environment or {})
    rounds.helpers = helpers
    urls = [entry.url for entry in storage.list_files(folder)]
    rounds.run(lambda: sum(isinstance(data, bytes) for _, data in storage.read_ahead(urls)))


def upload(rounds: Rounds, *, folder: str, to: str, environment: Mapping[str, str]) -> None:
    """Copy the files of a local folder to a URL."""
    os.environ.update(environment)
    files = {entry.name: storage.read(entry.url) for entry in storage.list_files(folder)}
    storage.publish(to, files)
    rounds.ready()


def model(rounds: Rounds, *, folder: str, model: str, tile: int = 0) -> None:
    """The bare model: every core calls one shared session of single-threaded calls on ready batches."""
    fit = references.find(model).contract.input
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(f"{model}/{bundles.ONNX}", options, providers=["CPUExecutionProvider"])
    chunks = list(batched(_bytes(folder), 1 if tile else BATCH))
    ready = [(len(chunk), [pixels for data in chunk for pixels in _pixels(data, fit, tile)]) for chunk in chunks]

    def answer(work: tuple[int, list[imaging.Pixels]]) -> int:
        photos, pixels = work
        for batch in batched(pixels, BATCH):
            session.run(None, {"image": np.stack(batch)})
        return photos

    with ThreadPoolExecutor(usable_cores()) as pool:
        rounds.run(lambda: sum(pool.map(answer, ready)))


def decoding(rounds: Rounds, *, folder: str, model: str, tile: int = 0) -> None:
    """Bytes in memory to a model's pixels, on every core."""
    fit = references.find(model).contract.input
    chunks = list(batched(_bytes(folder), 1 if tile else BATCH))

    def decode(chunk: Sequence[bytes]) -> int:
        for data in chunk:
            for _ in _pixels(data, fit, tile):
                pass
        return len(chunk)

    with ThreadPoolExecutor(usable_cores()) as pool:
        rounds.run(lambda: sum(pool.map(decode, chunks)))


def _pixels(data: bytes, fit: imaging.Fit, tile: int) -> Iterator[imaging.Pixels]:
    """The input of a model: of a photo, and of its tiles if it has any."""
    facts, pixels = imaging.read(data, fit)
    yield pixels
    if tile:
        yield from imaging.cut(data, imaging.Tiling(tile, OVERLAP).places(facts.width, facts.height), fit)


def _bytes(folder: str) -> list[bytes]:
    # Many names may mean one file; its bytes are kept once.
    kept: dict[Any, bytes] = {}
    paths = [storage.local_path(entry.url).resolve() for entry in storage.list_files(folder)]
    return [kept.setdefault(path, kept[path] if path in kept else path.read_bytes()) for path in paths]
