"""Photos that an export is made and judged with: decoded from their bytes as detection does, with their labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import imaging, storage
from plantml.concurrency import Progress, silent
from plantml.data import boxes, covariates, photos, versions
from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.imaging import Pixels
from plantml.model.bundle import Bundle
from plantml.model.contract import Contract
from plantml.model.covariates import Columns, encode
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
        where: what they are, for people: photos, or crops of their boxes.
        pixels: uint8 RGB [N, H, W, 3] at the model's input size.
        labels: by target as `Target.encode` gives them; targets without any label are left out.
        groups: [N], photos of one group have the same number.
        boxes: of the photos; `None` for models of whole photos.
        columns: covariates of the photos; `None` for models without any.
    """

    where: str
    pixels: Pixels
    labels: Mapping[str, NDArray[Any]]
    groups: NDArray[np.int64]
    boxes: AnnotatedBoxes | None = None
    columns: Columns | None = None

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
    """Photos of a split to compare on; of all splits if that one is empty. Crops for a model that learnt from crops."""
    rows = version.usable(split)
    if rows.is_empty():
        rows, split = version.usable(), "all"
    of_crops = contract.dataset.crops and rows["boxes"].list.len().sum() > 0  # and not a dataset of crops
    if contract.detection is not None:
        rows = rows.filter(pl.col("boxes").is_not_null())
    elif of_crops:
        rows = rows.filter(pl.col("boxes").list.len() > 0)
    if rows.is_empty():
        raise InputError(f"{version.ref} has no photos to compare on", "", "Name another dataset: --data DATASET")
    # By hash, so that the same photos are taken on every machine, and classes come mixed.
    rows = rows.sort("image_id").head(limit)
    # A photo that belongs to no group is one of its own.
    groups = [group if group is not None else number for number, group in enumerate(rows["group"])]
    _, numbers = np.unique([f"{type(group).__name__} {group}" for group in groups], return_inverse=True)
    fit, where = contract.input, f"{version.ref}, split {split}"
    if of_crops:
        chosen = _choose_boxes(rows, limit)
        sizes = rows.select("width", "height").rows()
        cut = [[imaging.corners_of_crop((box.x, box.y, box.w, box.h), *size) for box in of_photo]
               for of_photo, size in zip(chosen, sizes, strict=True)]  # fmt: skip
        pixels = _pixels(version, rows, lambda row, data: imaging.cut(data, cut[row], fit), cache, progress)
        numbers = np.repeat(numbers, [len(of_photo) for of_photo in chosen])
        labels = {target.name: [box.labels.get(target.name) for of_photo in chosen for box in of_photo]
                  for target in contract.targets}  # fmt: skip
        return Sample(f"crops of {where}", pixels, _encoded(contract.targets, labels), numbers)
    pixels = _pixels(version, rows, lambda _, data: [imaging.decode(data, fit)], cache, progress)
    if contract.detection is not None:
        return Sample(where, pixels, {}, numbers, _boxes(rows, contract))
    kinds = {target.name: target.kind for target in version.targets}
    labels = {each.name: rows[each.name].to_list() for each in contract.targets if kinds.get(each.name) == each.kind}
    encoded = _encoded(contract.targets, labels)
    if not contract.covariates:
        return Sample(where, pixels, encoded, numbers)
    measured = covariates.rows_of(rows, [each.name for each in contract.covariates])
    return Sample(where, pixels, encoded, numbers, columns=encode(contract.covariates, measured))


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


def _choose_boxes(rows: pl.DataFrame, limit: int) -> list[list[Box]]:
    """About `limit` boxes, of each photo as many, spread over the photo."""
    each = -(-limit // rows.height)
    drawn = [boxes.from_rows(annotated) or () for annotated in rows["boxes"].to_list()]
    return [list(of_photo[:: -(-len(of_photo) // each)]) for of_photo in drawn]


def _encoded(targets: Sequence[Target], labels: Mapping[str, Sequence[Any]]) -> dict[str, NDArray[Any]]:
    """Labels by target as numbers; targets without any known label are left out."""
    known = {each.name: [_known(each, label) for label in labels.get(each.name, ())] for each in targets}
    return {
        target.name: target.encode(known[target.name])
        for target in targets
        if any(label is not None for label in known[target.name])
    }


def _known(target: Target, label: Any) -> Any:
    """The label, or `None` if the model has no such class: equality can be proven on that photo all the same."""
    if target.kind == "class":
        return label if label in target.classes else None
    if target.kind == "multilabel" and label is not None:
        return label if set(label) <= set(target.classes) else None
    return label


def _pixels(
    version: Version,
    rows: pl.DataFrame,
    decode: Callable[[int, bytes], Iterable[Pixels]],
    cache: storage.Cache | None,
    progress: Progress,
) -> Pixels:
    """What `decode` makes of each photo, given the number of its row and its bytes, one after another."""
    pixels: list[Pixels] = []
    wanted = ((image_id, version.image_url(path)) for image_id, path in rows.select("image_id", "path").iter_rows())
    for done, (url, data) in enumerate(photos.read_ahead(wanted, cache)):
        try:
            if not isinstance(data, bytes):
                raise data
            pixels += decode(done, data)
        except photos.UNREADABLE as error:
            raise InputError(f"{url} cannot be read", str(error), "Restore it from a backup.") from error
        progress(done + 1, rows.height)
    return np.stack(pixels)
