"""From a dataset version to decoded photos and a network that is ready to learn."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from plantml.concurrency import Progress, Stop
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.imaging import Fit, Pixels
from plantml.model.bundle import Architecture
from plantml.model.network import PlantNet
from plantml.settings import Machine
from plantml.train import pixel_cache, weights
from plantml.train.batches import Photos
from plantml.train.pixel_cache import Photo
from plantml.train.plan import Plan

BANK = 1000
"""Training embeddings kept at most for the unknown score."""

ROOM = 1.15
"""Training photos are kept this much larger than the input, so that crops and turns lose nothing."""


@dataclass(frozen=True)
class Data:
    """Everything that a training reads.

    Attributes:
        train: photos a little larger than the input, for augmentation.
        val: photos exactly as detection sees them.
        bank: pixels of training photos as detection sees them, uint8 [M, H, W, 3].
        left_out: names and reasons of photos that could not be decoded.
    """

    train: Photos
    val: Photos
    bank: Pixels
    left_out: list[tuple[str, str]]


def load(
    version: Version, plan: Plan, machine: Machine, progress: Callable[[str], Progress], stop: Stop | None = None
) -> Data:
    """Decode the photos of both splits, or find them decoded; see `store.build`."""
    size = round(plan.input.height * ROOM), round(plan.input.width * ROOM)
    left_out: list[tuple[str, str]] = []

    def photos(rows: pl.DataFrame, fit: Fit, what: str) -> Photos:
        refs = [
            Photo(image_id, version.image_url(path)) for image_id, path in rows.select("image_id", "path").iter_rows()
        ]
        found = pixel_cache.build(
            refs,
            fit,
            machine.cache_dir / "pixels",
            cache=machine.cache(),
            limit=machine.cache_limit,
            threads=machine.threads,
            progress=progress(what),
            stop=stop,
        )
        left_out.extend((rows["name"][row], why) for row, why in found.unreadable.items())
        usable = np.array([row for row in range(rows.height) if row not in found.unreadable], np.int64)
        labels = {target.name: target.encode(rows[target.name].to_list()) for target in plan.targets}
        keys = np.array([int(image_id[:16], 16) for image_id in rows["image_id"]], np.uint64)
        return Photos(found.pixels, keys, labels, usable)

    rows = version.usable("train").sort("image_id", "source", "name")
    train = photos(rows, Fit(*size, plan.input.mode), "decoding train")
    val = photos(version.usable("val").sort("image_id", "source", "name"), plan.input, "decoding val")
    if not len(train.rows) or not len(val.rows):
        raise InputError(f"No photo of {version.ref} could be read", left_out[0][1], "plantml dataset info shows them.")
    some = rows[_bank_rows(train.rows, plan.seed)]
    bank = photos(some, plan.input, "decoding reference photos")
    return Data(train, val, bank.pixels[bank.rows], left_out)


def network(plan: Plan, train: Photos, *, offline: bool) -> PlantNet:
    """The network at its start: pretrained backbone, fresh heads, the scale of value targets."""
    net = fresh(plan, offline=offline)
    for target in plan.targets:
        if target.kind == "value":
            known = train.labels[target.name][~np.isnan(train.labels[target.name])]
            facts = known.mean(), max(known.std(), 1e-6), known.min(), known.max()
            scale = torch.tensor([float(fact) for fact in facts])
            net.get_buffer(f"scale_{target.name}").copy_(scale)
    return net


def fresh(plan: Plan, *, offline: bool) -> PlantNet:
    """The network with heads at their random start, which the seed decides."""
    torch.manual_seed(plan.seed)
    # What is taken over from a bundle needs no weights of anybody else.
    pretrained = plan.pretrained and not plan.parent
    backbone = weights.backbone(plan.backbone, pretrained=pretrained, drop_path=plan.drop_path, offline=offline)
    net = PlantNet(architecture(plan, backbone), plan.targets, backbone, plan.dropout)
    return net.to(memory_format=torch.channels_last)


def architecture(plan: Plan, backbone: torch.nn.Module) -> Architecture:
    """The network's description; the embedding's length is measured."""
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
    chosen = np.random.default_rng(seed).choice(rows, BANK, replace=False)
    return sorted(int(row) for row in chosen)
