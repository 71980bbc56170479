"""A trained model in Python: `plantml.load(REF).predict(images)`."""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import IOBase
from itertools import groupby, repeat
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plantml import settings, storage
from plantml.api.predictions import Predictions
from plantml.concurrency import batched, in_threads
from plantml.errors import PlantmlError, UsageError
from plantml.model import form_choice
from plantml.model.bundle import Bundle
from plantml.model.contract import Contract
from plantml.model.covariates import CovariateRow, check_names
from plantml.model.pipeline import BATCH, Pipeline, Prediction
from plantml.model.runtimes import FILES, Runtime
from plantml.model.tiled_pipeline import build_pipeline
from plantml.registry import references
from plantml.settings import MIN_TILE, Machine, Speed

ImageInput: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8]
"""A URL, a path, the bytes of an image file, a Pillow image, or RGB pixels: uint8 [H, W, 3]."""


class Model:
    """A trained model.

    Attributes:
        ref: the reference that it was loaded by.
        runtime: name of the runtime that computes, such as `onnxruntime`.
        form: of the network that it computes: `float32`, or a faster one such as `int8`.
        device: that it computes on.
        pipeline: what `plantml detect` and `plantml validate` use.
    """

    def __init__(self, ref: str, device: str, pipeline: Pipeline, session: "Session | None" = None) -> None:
        self.ref, self.device, self.pipeline = ref, device, pipeline
        self._session = session  # others share it while this model lives
        self.runtime = pipeline.runtime.name
        self.form = pipeline.bundle.form.name if pipeline.bundle.form else form_choice.FLOAT32

    def __repr__(self) -> str:
        targets = ", ".join(target.name for target in self.contract.targets)
        return f"<Model {self.digest[:12]} from {self.ref}: {targets}>"

    @property
    def contract(self) -> Contract:
        """Targets, input, thresholds, and origin."""
        return self.pipeline.bundle.contract

    @property
    def digest(self) -> str:
        """SHA-256 that names the model, in this form."""
        return self.pipeline.bundle.digest

    def predict(
        self, images: ImageInput | Iterable[ImageInput], covariates: Sequence[CovariateRow | None] | None = None
    ) -> Predictions:
        """Classify images, one prediction per image, in order.

        The same bytes give the same record as `plantml detect`. An image that cannot be read gives a prediction with
        its `failure`.

        Args:
            images: one image or many: URLs, paths, bytes of image files, Pillow images, RGB pixels as uint8 [H, W, 3].
                A uint8 array [N, H, W, 3] is N images.
            covariates: of a model that takes some: for each image its values by name, such as
                `{"temperature": 21.5, "variety": "Roma"}`, or `None`. What is left out is missing.

        Raises:
            UsageError: something is none of these; there are not as many covariates as images, or the model has no
                such covariate.
        """
        inputs: list[ImageInput] = list(_each(images))
        return Predictions(tuple(self.stream(inputs, self._checked(covariates, len(inputs)))), self.contract, inputs)

    def stream(
        self, images: ImageInput | Iterable[ImageInput], covariates: Iterable[CovariateRow | None] | None = None
    ) -> Iterator[Prediction]:
        """Like `predict`, but lazily, for any number of images."""
        pairs = zip(map(_checked, _each(images)), repeat(None) if covariates is None else covariates, strict=False)
        for kind, inputs in groupby(pairs, lambda pair: _kind(pair[0])):
            if kind is str:
                for chunk in self.pipeline.run_chunks((str(url), row) for url, row in inputs):
                    yield from chunk
            else:
                works = (partial(self._predict_chunk, chunk) for chunk in batched(inputs, self.pipeline.chunk))
                for predictions in in_threads(lambda work: work(), works, self.pipeline.threads):
                    yield from predictions

    def _predict_chunk(self, pairs: Sequence[tuple[Any, CovariateRow | None]]) -> list[Prediction]:
        """Predictions for images of one kind, bytes or pictures, and their covariates."""
        images, rows = [image for image, _ in pairs], [row for _, row in pairs]
        if isinstance(images[0], bytes):
            return self.pipeline.predict_bytes([("", data) for data in images], rows)
        return self.pipeline.predict_pictures(images, rows)

    def _checked(
        self, covariates: Sequence[CovariateRow | None] | None, images: int
    ) -> Sequence[CovariateRow | None] | None:
        if covariates is None:
            return None
        if len(covariates) != images:
            raise UsageError(
                f"There are covariates of {len(covariates)} images, and {images} images",
                "each image has one dictionary, or None",
                "Pass as many.",
            )
        check_names(self.contract.covariates or (), covariates)
        return covariates


def load(
    ref: str | Path,
    *,
    runtime: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    batch: int = BATCH,
    top_k: int = 5,
    tile: int | None = None,
    speed: Speed = "exact",
) -> Model:
    """Load a model. What is in use already is not loaded again: several models share one session of the runtime.

    Args:
        ref: a run, a bundle, an exported file, or a version in a registry (`REGISTRY/leaf@production`); a path or any
            URL.
        runtime: `auto`, `onnxruntime`, `torch` or `openvino`.
        device: `cpu`, or a device as torch names it.
        threads: images processed at the same time; all usable cores if not given.
        batch: batch size.
        top_k: classes listed for each class target.
        tile: size of the tiles of large photos, in pixels, as `plantml detect --tile` has it; 0: only whole photos; if
            not given, those that the model was trained on.
        speed: `exact` (float32), `auto` (the fastest form that is proven in the bundle and faster on this machine), or
            a form: `int8`, `bfloat16`.

    Raises:
        UsageError: `threads`, `batch` or `top_k` is not a whole number above 0, or `tile` is neither 0 nor at least 16.
        NotFoundError: there is no model.
        InputError: the model is damaged, made by a newer plantml, or does not hold the form.
    """
    machine = settings.machine()
    threads = machine.threads if threads is None else threads
    for name, number in {"threads": threads, "batch": batch, "top_k": top_k}.items():
        if not isinstance(number, int) or number < 1:
            raise UsageError(
                f"{name} is {number!r}", "it is a whole number above 0", f"Change {name}, or leave it out."
            )
    if speed not in get_args(Speed):
        raise UsageError(f"speed is {speed!r}", f"it is one of {', '.join(get_args(Speed))}", "Change speed.")
    if tile is not None and (not isinstance(tile, int) or tile < 0 or 0 < tile < MIN_TILE):
        raise UsageError(
            f"tile is {tile!r}", f"it is 0 or a whole number from {MIN_TILE} on", "Change tile, or leave it out."
        )
    session = _open(str(ref), machine, runtime, device, speed)
    pipeline = build_pipeline(session.bundle, session.runtime, tile=tile, threads=threads, batch=batch, top_k=top_k)
    return Model(str(ref), device, pipeline, session)


@dataclass(frozen=True, eq=False)
class Session:
    """A model that was verified and loaded into a runtime."""

    bundle: Bundle
    runtime: Runtime


_sessions: weakref.WeakValueDictionary[tuple[Any, ...], Session] = weakref.WeakValueDictionary()


def _open(ref: str, machine: Machine, runtime: str, device: str, speed: Speed) -> Session:
    """The session of a model: the one in use, as long as no file of it has changed."""
    cache = machine.cache()
    key = ref, runtime, device, speed, *_stamps(ref, cache)
    session = _sessions.get(key)
    if session is None:
        bundle, opened = references.open_model(
            ref, runtime=runtime, device=device, cache=cache, speed=speed, machine=machine
        )
        session = _sessions[key] = Session(bundle, opened)
    return session


def _stamps(ref: str, cache: storage.Cache) -> Iterator[tuple[str, str]]:
    """URL and stamp of each file of a model; a stamp is empty where there is no file."""
    if (extension := storage.suffix(ref)) in FILES:
        urls = FILES[extension].urls(storage.absolute(ref))
    else:
        bundle = references.find(ref, cache)
        urls = [storage.join(bundle.url, name) for name in bundle.files]
    for url in urls:
        stamp = ""
        with suppress(PlantmlError):
            stamp = storage.stat(url).stamp
        yield url, stamp


def _each(images: Any) -> Iterable[ImageInput]:
    """The images, if there are several; else the one. What is neither is left for `_checked` to refuse."""
    if isinstance(images, np.ndarray):
        return images if images.ndim == 4 else [images]
    one = (str, bytes, bytearray, memoryview, Mapping, Image.Image, IOBase)
    return images if isinstance(images, Iterable) and not isinstance(images, one) else [images]


def _checked(image: Any) -> str | bytes | Image.Image:
    """The image as one of the three kinds that are predicted in their own way."""
    if isinstance(image, (str, Path)):
        return str(image)
    if isinstance(image, (bytes, Image.Image)):
        return image
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UsageError(
                f"An array of {image.dtype} {list(image.shape)} is not an image",
                "an image is uint8 [height, width, 3], RGB",
                "Convert it: Image.fromarray(array).convert('RGB') where it has other channels.",
            )
        if not image.size:
            raise UsageError(
                f"An array {list(image.shape)} is not an image", "it has no pixels", "Read it from its file again."
            )
        return Image.fromarray(np.ascontiguousarray(image))
    raise UsageError(
        f"{type(image).__name__} is not an image",
        "images are paths, URLs, bytes, Pillow images and uint8 arrays",
        "Pass one of these, or an iterable of them.",
    )


def _kind(image: str | bytes | Image.Image) -> type:
    return next(kind for kind in (str, bytes, Image.Image) if isinstance(image, kind))
