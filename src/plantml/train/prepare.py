"""From a dataset version to decoded photos and a network ready for training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.imaging import Fit, Pixels
from plantml.model.contract import Architecture
from plantml.model.network import PhotoNet, PlantNet
from plantml.train import bare_rows, covariates, weights
from plantml.train.bare_rows import BareRows
from plantml.train.batches import pixel_cache
from plantml.train.batches.loader import Photos
from plantml.train.batches.pixel_cache import Photo
from plantml.train.learner import Loading
from plantml.train.plan import Plan
from plantml.train.unlabelled_photos import add_rows, select_unlabelled

BANK = 1000
"""Largest number of training photos whose embeddings are the reference for the unknown score."""

MARGIN = 1.15
"""Factor by which decoded training photos exceed the input, so that crops and rotations keep their resolution."""


@dataclass(frozen=True)
class TrainingData:
    """The photos of a training.

    Attributes:
        train: a little larger than the input, for augmentation; of its rows, those of the labelled dataset.
        val: preprocessed exactly as in detection.
        bank: pixels of training photos, preprocessed as in detection, uint8 [M, H, W, 3].
        left_out: names and reasons of photos that could not be decoded.
        unlabelled: rows of unlabelled photos in the pixels and labels of `train`, int64 [U]; their labels are missing.
        image_ids: SHA-256 of the photo of each row of `train`.
        bare: rows without a photo; `None` if they are not learnt from.
    """

    train: Photos
    val: Photos
    bank: Pixels
    left_out: list[tuple[str, str]]
    unlabelled: NDArray[np.int64]
    image_ids: Sequence[str]
    bare: BareRows | None = None


def load(version: Version, plan: Plan, loading: Loading) -> TrainingData:
    """Load the photos of both splits, decoded or from the pixel cache; see `pixel_cache.build`."""
    size = round(plan.input.height * MARGIN), round(plan.input.width * MARGIN)
    left_out: list[tuple[str, str]] = []

    def photos(rows: pl.DataFrame, fit: Fit, stage: str) -> Photos:
        decoded = decode(version, rows, fit, stage, loading)
        left_out.extend(decoded.left_out)
        labels = {target.name: target.encode(rows[target.name].to_list()) for target in plan.targets}
        labels |= covariates.columns_of(rows, plan.covariates)
        return Photos(decoded.pixels, decoded.keys, labels, decoded.rows)

    rows = version.usable("train").sort("image_id", "source", "name")
    labelled = rows.height
    if plan.unlabelled:
        others = select_unlabelled(plan.unlabelled, version, [target.name for target in plan.targets])
        labelled, rows = add_rows(rows, others)
    every = photos(rows, Fit(*size, plan.input.mode), "decoding train")
    train = replace(every, rows=every.rows[every.rows < labelled])
    val = photos(version.usable("val").sort("image_id", "source", "name"), plan.input, "decoding val")
    if not len(train.rows) or not len(val.rows):
        raise unreadable(version, left_out)
    reference = rows[_bank_rows(train.rows, plan.seed)]
    bank = photos(reference, plan.input, "decoding reference photos")
    bare = None
    if plan.rows_without_photo:
        bare = bare_rows.of(covariates.rows_without_photo(version, plan.targets), plan.targets, plan.covariates)
    ids = rows["image_id"].to_list()
    return TrainingData(train, val, bank.pixels[bank.rows], left_out, every.rows[every.rows >= labelled], ids, bare)


@dataclass(frozen=True)
class Decoded:
    """Photos at one size: pixels uint8 [N, H, W, 3], a number per photo, and the indices of the readable ones."""

    pixels: pixel_cache.MappedPixels
    keys: NDArray[np.uint64]
    rows: NDArray[np.int64]
    left_out: Sequence[tuple[str, str]]


def decode(version: Version, rows: pl.DataFrame, fit: Fit, stage: str, loading: Loading) -> Decoded:
    """Rows of a version, decoded or from the pixel cache; see `pixel_cache.build`. `stage` names the progress."""
    refs = [Photo(image_id, version.image_url(path)) for image_id, path in rows.select("image_id", "path").iter_rows()]
    machine = loading.machine
    store = pixel_cache.build(
        refs,
        fit,
        machine.cache_dir / "pixels",
        cache=machine.cache(),
        limit=machine.cache_limit,
        threads=machine.threads,
        progress=loading.progress(stage),
        stop=loading.stop,
    )
    keys = np.array([int(image_id[:16], 16) for image_id in rows["image_id"]], np.uint64)
    readable = np.array([row for row in range(rows.height) if row not in store.unreadable], np.int64)
    left_out = [(str(rows["name"][row]), why) for row, why in store.unreadable.items()]
    return Decoded(store.pixels, keys, readable, left_out)


def unreadable(version: Version, left_out: Sequence[tuple[str, str]]) -> InputError:
    """The error of a split without a readable photo."""
    why = left_out[0][1] if left_out else "a split has none"
    return InputError(f"No photo of {version.ref} could be read", why, "Look at them: plantml dataset info.")


def network(plan: Plan, train: Photos, *, offline: bool) -> PlantNet:
    """The network before training: pretrained backbone, new heads, and the scale of value targets."""
    net = untrained(plan, offline=offline)
    scale_values(net, train.labels)
    return net


def scale_values(net: PhotoNet, labels: Mapping[str, NDArray[Any]]) -> None:
    """Note the mean, deviation and range of the training labels of value targets in a network."""
    for target in net.targets:
        if target.kind == "value":
            values = labels[target.name][~np.isnan(labels[target.name])]
            statistics = values.mean(), max(values.std(), 1e-6), values.min(), values.max()
            scale = torch.tensor([float(statistic) for statistic in statistics])
            net.get_buffer(f"scale_{target.name}").copy_(scale)


def untrained(plan: Plan, *, offline: bool) -> PlantNet:
    """The network with randomly initialised heads, which depend on the seed only."""
    torch.manual_seed(plan.seed)
    backbone = weights.backbone(plan.backbone, weights.of(plan), plan.input, drop_path=plan.drop_path, offline=offline)
    net = PlantNet(architecture(plan, backbone), plan.targets, backbone, plan.dropout, plan.covariates)
    return net.to(memory_format=torch.channels_last)


def architecture(plan: Plan, backbone: torch.nn.Module) -> Architecture:
    """The network's description, with the measured length of the embedding."""
    training = backbone.training
    with torch.inference_mode():
        length = backbone.eval()(torch.zeros(1, 3, plan.input.height, plan.input.width)).shape[1]
    backbone.train(training)
    mean, std = weights.statistics(plan.backbone)
    bank = min(BANK, plan.train_photos)
    return Architecture(backbone=plan.backbone, embedding=length, mean=mean, std=std, bank=bank)


def _bank_rows(rows: NDArray[np.int64], seed: int) -> list[int]:
    if len(rows) <= BANK:
        return [int(row) for row in rows]
    sample = np.random.default_rng(seed).choice(rows, BANK, replace=False)
    return sorted(int(row) for row in sample)
