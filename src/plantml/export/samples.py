"""Photos that an export is made and judged with: decoded from their bytes as detection does, with their labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import imaging, storage
from plantml.concurrency import Progress, silent
from plantml.data import boxes, photos, versions
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.imaging import Fit, Pixels
from plantml.model.bundle import Bundle
from plantml.model.contract import Contract
from plantml.targets import Target

BATCH = 16


@dataclass(frozen=True)
class AnnotatedBoxes:
    """The annotated boxes of N photos.

    Attributes:
        sides: of each photo, float32 [M, 4]: x, y, w, h in pixels of the input.
        labels: of each photo's boxes by target, as `Target.encode` gives them.
    """

    sides: Sequence[NDArray[np.float32]]
    labels: Sequence[Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Sample:
    """Photos of one split.

    Attributes:
        where: what they are, for people.
        pixels: uint8 RGB [N, H, W, 3] at the model's input size.
        labels: by target as `Target.encode` gives them; targets without any label are left out.
        groups: [N], photos of one group have the same number.
        boxes: of the photos; `None` for models of whole photos.
    """

    where: str
    pixels: Pixels
    labels: Mapping[str, NDArray[Any]]
    groups: NDArray[np.int64]
    boxes: AnnotatedBoxes | None = None

    def batches(self, size: int = BATCH) -> Iterator[Pixels]:
        """The photos in batches."""
        for start in range(0, len(self.pixels), size):
            yield self.pixels[start : start + size]


def version_of(bundle: Bundle, data: str | None) -> Version:
    """The dataset version to take photos from: `data`, or the one that the model was trained on."""
    origin = bundle.contract.dataset
    try:
        return versions.load(data or f"{origin.url}@{origin.version}")
    except InputError as error:
        if data:
            raise
        raise InputError(
            f"The dataset that the model was trained on is not at {origin.url}",
            "an export is verified on real photos before it is written",
            "Name a dataset: --data DATASET",
        ) from error


def held_out(
    version: Version,
    contract: Contract,
    split: str,
    limit: int,
    *,
    cache: storage.Cache | None = None,
    progress: Progress = silent,
) -> Sample:
    """Photos of a split to compare on; of all splits if that one is empty."""
    rows = version.usable(split)
    if rows.is_empty():
        rows, split = version.usable(), "all"
    if contract.detection is not None:
        rows = rows.filter(pl.col("boxes").is_not_null())
    if rows.is_empty():
        raise InputError(f"{version.ref} has no photos to compare on", "", "Name another dataset: --data DATASET")
    # By hash, so that the same photos are taken on every machine, and classes come mixed.
    rows = rows.sort("image_id").head(limit)
    # A photo that belongs to no group is one of its own.
    groups = [group if group is not None else number for number, group in enumerate(rows["group"])]
    _, numbers = np.unique([f"{type(group).__name__} {group}" for group in groups], return_inverse=True)
    pixels = _pixels(version, rows, contract.input, cache, progress)
    where = f"{version.ref}, split {split}"
    if contract.detection is not None:
        return Sample(where, pixels, {}, numbers, _boxes(rows, contract))
    return Sample(where, pixels, _labels(version, rows, contract.targets), numbers)


def of_split(
    version: Version, contract: Contract, split: str, limit: int, cache: storage.Cache | None = None
) -> Sample:
    """As `held_out`, of a split that there must be."""
    if version.usable(split).is_empty():
        raise InputError(
            f"{version.ref} has no photos in its {split} split",
            "int8 is calibrated on training photos and chosen by the score on validation photos",
            f"Split it: plantml dataset split {version.url}, or name another one: --data DATASET",
        )
    return held_out(version, contract, split, limit, cache=cache)


def _boxes(rows: pl.DataFrame, contract: Contract) -> AnnotatedBoxes:
    sides, labels = [], []
    for width, height, annotated in rows.select("width", "height", "boxes").iter_rows():
        drawn = boxes.from_rows(annotated) or ()
        in_photo = np.array([[box.x, box.y, box.w, box.h] for box in drawn], np.float64).reshape(-1, 4)
        sides.append(contract.input.placement(width, height).to_input(in_photo))
        labels.append(
            {
                target.name: target.encode([_known(target, box.labels.get(target.name)) for box in drawn])
                for target in contract.heads
            }
        )
    return AnnotatedBoxes(sides, labels)


def _labels(version: Version, rows: pl.DataFrame, targets: Sequence[Target]) -> dict[str, NDArray[Any]]:
    have = {target.name: target.kind for target in version.targets}
    labels = {
        target.name: [_known(target, label) for label in rows[target.name].to_list()]
        for target in targets
        if have.get(target.name) == target.kind
    }
    return {
        target.name: target.encode(labels[target.name])
        for target in targets
        if any(label is not None for label in labels.get(target.name, ()))
    }


def _known(target: Target, label: Any) -> Any:
    """The label, or `None` if the model has no such class: equality can be proven on that photo all the same."""
    if target.kind == "class":
        return label if label in target.classes else None
    if target.kind == "multilabel" and label is not None:
        return label if set(label) <= set(target.classes) else None
    return label


def _pixels(version: Version, rows: pl.DataFrame, fit: Fit, cache: storage.Cache | None, progress: Progress) -> Pixels:
    pixels = np.empty((rows.height, fit.height, fit.width, 3), np.uint8)
    wanted = ((image_id, version.image_url(path)) for image_id, path in rows.select("image_id", "path").iter_rows())
    for done, (url, data) in enumerate(photos.read_ahead(wanted, cache)):
        try:
            if not isinstance(data, bytes):
                raise data
            pixels[done] = imaging.decode(data, fit)
        except photos.UNREADABLE as error:
            raise InputError(f"{url} cannot be read", str(error), "Restore it from a backup.") from error
        progress(done + 1, rows.height)
    return pixels
