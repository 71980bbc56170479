"""`plantml export`: another form of a bundle, published only after a comparison on real photos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from plantml import bundle as bundles
from plantml import images, runtime, storage
from plantml.bundle import Bundle
from plantml.data import versions
from plantml.errors import InputError, PlantmlError, UsageError
from plantml.export import proof
from plantml.export.onnx import to_onnx
from plantml.export.proof import Proof
from plantml.images import ImageError, Pixels
from plantml.runtime import OnnxRuntime
from plantml.work import Progress, batched, silent

FORMATS = ("onnx",)
_BATCH = 16


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Attributes:
        url: of the file.
        format: one of `FORMATS`.
        model: digest.
        size: of the file, bytes.
        proof: that it is the same model.
        photos: where the compared photos came from.
    """

    url: str
    format: str
    model: str
    size: int
    proof: Proof
    photos: str


def export(
    ref: str,
    to: str,
    *,
    data: str | None = None,
    split: str = "test",
    samples: int = 500,
    cache: storage.Cache | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write a bundle as one `.onnx` file, after proof that it gives the network's answers.

    Args:
        ref: the bundle, or its run.
        to: URL of the file, or of a folder for it.
        data: dataset whose photos are compared; the one that the model was trained on if not given.
        split: of the dataset; all of it if that split is empty.
        samples: photos compared at most.
        cache: for remote files of the bundle.
        progress: called with (photos compared, photos).

    Raises:
        GateError: the file does not give the same answers; nothing was published.
        InputError: there are no photos to compare.
    """
    to = target_url(to)
    bundle = bundles.find(ref)
    source, urls = _photos(bundle, data, split, samples)
    reference = runtime.TorchRuntime(bundle, cache=cache)
    model = to_onnx(bundle.contract, bundle.read(bundles.WEIGHTS, cache), bundle.digest)
    found = proof.compare(bundle.contract, reference, OnnxRuntime(model), _pixels(bundle, urls, progress))
    proof.require(found, f"The ONNX export of {bundle.url}")
    storage.write(to, model)
    return Exported(to, "onnx", bundle.digest, len(model), found, source)


def target_url(to: str) -> str:
    """The URL of the file to write. Raises `UsageError` for an extension that is no format."""
    to = storage.absolute(to)
    extension = storage.suffix(to)
    if extension == ".onnx":
        return to
    if not extension or storage.is_dir(to):
        return storage.join(to, bundles.ONNX)
    raise UsageError(f"No export format is called {extension!r}", "", f"Formats: {', '.join(FORMATS)}.")


def _photos(bundle: Bundle, data: str | None, split: str, samples: int) -> tuple[str, list[str]]:
    origin = bundle.contract.dataset
    ref = data or f"{origin.url}@{origin.version}"
    try:
        version = versions.load(ref)
    except InputError as error:
        if data:
            raise
        raise InputError(
            f"The dataset that the model was trained on is not at {origin.url}",
            "an export is compared on real photos before it is published",
            "Name a dataset: --data DATASET",
        ) from error
    rows = version.usable(split)
    if rows.is_empty():
        rows, split = version.usable(), "all"
    if rows.is_empty():
        raise InputError(
            f"{version.ref} has no photos to compare on", "", "Name a dataset that has some: --data DATASET"
        )
    # By hash, so that the same photos are compared on every machine.
    rows = rows.sort("image_id").head(samples)
    return f"{version.ref}, split {split}", [version.image_url(path) for path in rows["path"]]


def _pixels(bundle: Bundle, urls: Sequence[str], progress: Progress) -> Iterator[Pixels]:
    done = 0
    for batch in batched(storage.read_many(urls), _BATCH):
        pixels = []
        for url, data in batch:
            if isinstance(data, PlantmlError):
                raise data
            try:
                pixels.append(images.decode(data, bundle.contract.input))
            except ImageError as error:
                raise InputError(f"{url} cannot be read", str(error), "Restore it from a backup.") from error
        yield np.stack(pixels)
        done += len(batch)
        progress(done, len(urls))
