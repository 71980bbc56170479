"""The plan of a training: a pure function of configuration, dataset and machine."""

import math
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl

from plantml.data import boxes
from plantml.errors import InputError
from plantml.imaging import Fit, FitMode
from plantml.model.bundle import Bundle
from plantml.model.contract import Withheld
from plantml.model.detector import LEVELS
from plantml.targets import Target
from plantml.train import budget, covariates
from plantml.train.boxes import tiles, withheld
from plantml.train.config import Mode, Precision, Preset, Task, TrainConfig
from plantml.train.plan import FIXED, Plan, versions
from plantml.train.plan_inputs import Hardware, PlanInputs, Speed
from plantml.train.planning import anomalies, class_balance
from plantml.train.selection import Selection, check_splits, targets_to_learn
from plantml.train.unlabelled_photos import Unlabelled
from plantml.train.weights import DEFAULT

T = TypeVar("T")

_FEW_PHOTOS = 40
"""Training photos below which tuning would spoil the backbone."""

_USUAL, _LARGER, _SLOWER = 224, 288, 1.8
"""Height and width of the input; those that a budget allows where photos have as many pixels; and the time that these
take, in parts of the usual (measured: 1.76)."""

_FEW_BOXES, _SMALL_BOX = 2, 0.2
"""Boxes per photo, and their side as a share of the photo, below which a crop may lose what the label is about."""

_DETAIL = 8
"""Pixels that the smallest box should measure in the input."""

_BOX_DETAIL = 22
"""Pixels of the shorter side of a box, so that three quarters of all are larger, in a detector's input."""

_LARGEST: dict[Preset, int] = {"quick": 640, "balanced": 640, "best": 960}
"""Height and width of the largest input of a detector that is chosen for it."""

_TOO_SMALL = 12
"""Pixels of the shorter side of a box, which three quarters of all reach, below which photos are cut into tiles."""

_PROBE_BATCH = 256

_MIN_SPEED_UP = 1.15
"""Speed-up from which bf16 is used, large enough that noise does not decide."""


class _Resolver:
    """The settings of a configuration, with defaults for those left at `auto`."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self.reasons: dict[str, str] = {}

    def resolve(self, key: str, default: T, why: str) -> T:
        """The value that was set, or the default, whose reason is noted."""
        value = getattr(self._config, key)
        if value != "auto":
            return cast("T", value)
        self.reasons[key] = why
        return default


def plan(config: TrainConfig, inputs: PlanInputs) -> Plan:
    """Plan a training.

    Raises:
        InputError: the dataset has nothing to train on, or lacks a target or a split.
    """
    if inputs.dataset.task == "anomaly":
        return anomalies.plan(config, inputs)
    train, val = inputs.dataset.usable("train"), inputs.dataset.usable("val")
    check_splits(inputs.dataset)
    resolver, named = _Resolver(config), inputs.dataset.origin or inputs.dataset
    fingerprint = named.fingerprint
    resolve = resolver.resolve
    task = resolve("task", inputs.dataset.task, inputs.dataset.why)
    if task == "tray":  # a stage's settings name the task, and have half of the budget
        given = {
            "task": inputs.dataset.why,
            "budget": "half of it: the second stage has the other" * bool(config.budget),
        }
        resolver.reasons |= {key: reason for key, reason in given.items() if reason}
    _check_parent(inputs.parent, task)
    if config.background and task != "image":
        raise InputError(
            "Backgrounds are replaced in whole photos only", f"the task is {task}", "Leave out --background."
        )
    others = _unlabelled(inputs.unlabelled, task, inputs.parent, resolver)
    tile = resolve("tile", *_tile(config, inputs.parent, train, task))
    if tile and others:
        raise InputError(
            "Unlabelled photos are not cut into tiles",
            f"--tile {tile} cuts those with boxes",
            "Leave out --unlabelled, or --tile.",
        )
    if tile:
        cut = _cut(inputs.dataset, tile, task)
        resolver.reasons["photos"] = f"--tile {tile}: {train.height + val.height} photos became {cut.rows.height} tiles"
        train, val, inputs = cut.usable("train"), cut.usable("val"), replace(inputs, dataset=cut)
    photos = train.height
    labels = train if task == "image" else boxes.frame(train, inputs.dataset.targets)
    targets = targets_to_learn(config.targets, inputs.dataset, labels, task)
    device = resolve("device", inputs.hardware.device, "the best one on this machine")
    mode = resolve("mode", *_mode(config, photos, task))
    batch = resolve("batch_size", _batch_size(photos, device, inputs.hardware, task), f"for {photos} photos")
    precision = resolve("precision", *_precision(inputs.speed, device, mode))
    fit = _input(resolver, config.preset, inputs.parent, train, task)
    if task == "image" and fit.height == _USUAL and "size" in resolver.reasons and not inputs.parent:
        fit, inputs = _with_more_pixels(config, inputs, fit, resolver, mode=mode, batch=batch, precision=precision)
    step = inputs.speed.step_in(precision) if inputs.speed else 0.0
    length = budget.length(config, inputs, mode, batch=batch, step=step, task=task)
    mode = length.mode
    resolver.reasons |= length.reasons
    if mode == "probe":
        batch = resolve("batch_size", _PROBE_BATCH, "a probe trains on embeddings")
    steps = length.epochs * -(-length.epoch_photos // batch)
    counts = class_balance.class_counts(labels, targets)
    balance = resolve("balance", *class_balance.default_balance(counts))
    weights, logits = class_balance.class_weights_and_logits(balance, counts, every_target=config.balance != "auto")
    augment = resolve("augment", *_augment(train, task))
    uses_bare = bool(config.covariates) and config.without_photo and task == "image"
    bare = covariates.rows_without_photo(inputs.dataset, targets) if uses_bare else None
    if bare is not None and bare.height:
        resolver.reasons["rows_without_photo"] = "they teach what their columns say, beside the photos"
    draft = Plan(
        **{key: getattr(config, key) for key in FIXED} | others,
        dataset=named.url,
        dataset_version=named.number,
        fingerprint=fingerprint,
        crops=inputs.dataset.origin is not None,
        asked=config.model_dump(mode="json"),
        reasons={},
        preset=config.preset,
        budget=config.budget,
        task=task,
        tile=tile,
        mode=mode,
        targets=targets,
        covariates=covariates.resolve(config.covariates, inputs.dataset, targets, task, bare=bare),
        rows_without_photo=0 if bare is None else bare.height,
        withheld=_withheld(resolver, config, inputs.dataset, labels, targets),
        train_photos=photos,
        val_photos=val.height,
        backbone=resolve("backbone", *_backbone(inputs.parent)),
        parent=inputs.parent.digest if inputs.parent else "",
        input=fit,
        epochs=length.epochs,
        patience=resolve("patience", *_patience(length.epochs, mode)),
        epoch_photos=length.epoch_photos,
        batch_size=batch,
        lr=resolve("lr", *_lr(batch, mode)),
        backbone_lr=resolve("backbone_lr", *_backbone_lr(batch, mode)),
        layer_decay=resolve("layer_decay", *_layer_decay(mode, task)),
        ema=resolve("ema", *_ema(steps, mode)),
        mixup=resolve("mixup", *_mixup(config.preset, mode, steps, task)),
        augment=augment,
        views=resolve("views", *budget.views(config, inputs, augment)),
        balance=balance,
        class_weights=weights,
        class_logits=logits,
        precision=precision,
        workers=resolve("workers", *_workers(inputs.hardware, device)),
        device=device,
        step_seconds=round(step, 4),
        seconds=0.0,
        versions=versions(),
    )
    return draft.model_copy(update={**budget.expected_seconds(draft, inputs.speed), "reasons": resolver.reasons})


def _withheld(
    resolver: _Resolver, config: TrainConfig, dataset: Selection, labels: pl.DataFrame, targets: tuple[Target, ...]
) -> tuple[Withheld, ...]:
    """What is learnt from the labels of boxes, or of their crops; nothing for whole photos."""
    train, is_crop = dataset.usable("train"), dataset.origin is not None
    if config.withhold == "never" or (dataset.task == "image" and not is_crop):
        return ()
    boxes_of_photo = train["boxes"].list.len().fill_null(0)
    photo = train["group"] if is_crop else pl.Series(np.repeat(np.arange(train.height), boxes_of_photo))
    rules = withheld.learn(labels, photo, targets)
    if rules:
        resolver.reasons["withheld"] = "training boxes of the class never have these targets, and others beside them do"
    return rules


def _mode(config: TrainConfig, photos: int, task: Task) -> tuple[Mode, str]:
    if task != "image":
        if config.mode == "probe":
            raise InputError(
                "A probe cannot find boxes", "it trains heads on embeddings of whole photos", "Leave out mode."
            )
        return "full" if not config.pretrained and not config.warm_start else "finetune", "boxes need maps of their own"
    if not config.pretrained and not config.warm_start:
        return "full", "there are no pretrained weights"
    if config.preset == "quick":
        return "probe", "preset quick"
    if photos < _FEW_PHOTOS:
        return "probe", f"{photos} photos are too few to tune the backbone"
    return "finetune", f"preset {config.preset}"


def _batch_size(photos: int, device: str, hardware: Hardware, task: Task) -> int:
    if task != "image":
        size = (4 if photos < 500 else 8) if device != "cuda" else 32 if hardware.gpu_memory >= 32 * 2**30 else 16
    elif device != "cuda":
        size = 16 if photos < 2000 else 32
    elif photos < 2000:
        size = 32
    else:
        size = 128 if hardware.gpu_memory >= 32 * 2**30 else 64
    return min(size, photos)


def _backbone(parent: Bundle | None) -> tuple[str, str]:
    if parent:
        return parent.contract.architecture.backbone, "backbone of the bundle to start from"
    return DEFAULT, "its weights are installed, and tf_efficientnet_lite2 is not better, for 1.5 times the time"


def _check_parent(parent: Bundle | None, task: Task) -> None:
    if task == "image" and parent and parent.contract.task != "image":
        what = "anomalies" if parent.contract.anomaly else "boxes"
        raise InputError(
            f"A model of whole photos cannot start from {parent.place}",
            f"that model finds {what}, and its backbone lacks the last layers",
            "Start from a model of whole photos, or leave out --from.",
        )


def _unlabelled(
    unlabelled: Unlabelled | None, task: Task, parent: Bundle | None, resolver: _Resolver
) -> dict[str, Any]:
    """The plan's entries about photos without labels, whose reasons are noted."""
    if unlabelled is None:
        return {}
    if task != "image" and (parent is None or parent.contract.detection is None):
        raise InputError(
            "There is no detector that finds boxes in unlabelled photos",
            f"the task is {task}, and --unlabelled learns from the boxes of an earlier model",
            "Train one without --unlabelled, then start from it: --from RUN --unlabelled DATASET",
        )
    left_out = unlabelled.left_out
    labelled = "a pseudo-label" if task == "image" else "boxes"
    resolver.reasons["unlabelled_photos"] = f"those that get {labelled} join the labelled ones in all batches"
    resolver.reasons["unlabelled_left_out"] = "a model must not learn from what judges it"
    return {
        "unlabelled": unlabelled.ref,
        "unlabelled_fingerprint": unlabelled.fingerprint,
        "unlabelled_photos": unlabelled.rows.height,
        "unlabelled_left_out": dict(left_out),
    }


def _input(resolver: _Resolver, preset: Preset, parent: Bundle | None, train: pl.DataFrame, task: Task) -> Fit:
    if parent and task != "image" and not parent.contract.detection:
        parent = None  # whole photos are small; plants in them need more pixels
    sides = train.select(long=pl.max_horizontal("width", "height"), short=pl.min_horizontal("width", "height"))
    size, why = _size(preset, parent, train)
    if task != "image" and not parent:
        size, why = _box_size(preset, train)
    size = resolver.resolve("size", size, why)
    if task != "image" and size % LEVELS[-1]:
        raise InputError(
            f"The input of a detector cannot have {size} pixels",
            f"its maps fit onto each other at multiples of {LEVELS[-1]}",
            f"Choose another size: --size {LEVELS[-1] * math.ceil(size / LEVELS[-1])}",
        )
    square = sides.filter(pl.col("short") > 0).select(((pl.col("long") / pl.col("short")) < 1.1).mean()).item()
    fit: FitMode = "squash" if square and square > 0.95 else "pad"
    why = "nearly all photos are square" if fit == "squash" else "keeps every pixel and the aspect ratio"
    if parent:
        fit, why = parent.contract.input.mode, "fit of the bundle to start from"
    return Fit(size, size, resolver.resolve("fit", fit, why))


def _size(preset: Preset, parent: Bundle | None, train: pl.DataFrame) -> tuple[int, str]:
    """Height and width of the input."""
    usual = _LARGER if preset == "best" else _USUAL
    detail = _smallest_detail(train)
    if parent:
        return parent.contract.input.height, "input size of the bundle to start from"
    if detail and detail * usual < _DETAIL:
        size = min(512 if preset == "best" else 384, 32 * math.ceil(_DETAIL / detail / 32))
        return size, f"the smallest boxes are {detail:.1%} of a photo, {detail * size:.0f} pixels at this size"
    median = _long_side(train)
    if 0 < median < 0.75 * usual:
        return max(160, 32 * math.ceil(median / 32)), f"the photos are small: {median:.0f} pixels"
    return usual, f"preset {preset}"


def _with_more_pixels(
    config: TrainConfig,
    inputs: PlanInputs,
    fit: Fit,
    resolver: _Resolver,
    *,
    mode: Mode,
    batch: int,
    precision: Precision,
) -> tuple[Fit, PlanInputs]:
    """A larger input, and the speed with it, where photos have the pixels and a budget allows the usual epochs."""
    pixels = _long_side(inputs.dataset.usable("train"))
    if mode == "full" or pixels < _LARGER or not inputs.speed:
        return fit, inputs
    slower = replace(inputs, speed=inputs.speed.slowed(_SLOWER))
    assert slower.speed is not None
    if not budget.suffices(config, slower, mode, batch=batch, step=slower.speed.step_in(precision)):
        return fit, inputs
    resolver.reasons["size"] = (
        f"the budget allows more pixels of photos of {pixels:.0f}, which gain more than a larger backbone;"
        f" predictions take {_SLOWER:g} times as long as with {fit.height}"
    )
    return Fit(_LARGER, _LARGER, fit.mode), slower


def _box_size(preset: Preset, train: pl.DataFrame) -> tuple[int, str]:
    """Height and width of a detector's input: most boxes have `_BOX_DETAIL` pixels."""
    side = float(_box_sides(train).quantile(0.25) or 1.0)
    size = min(_LARGEST[preset], max(256, 32 * round(_BOX_DETAIL * (1.25 if preset == "best" else 1) / side / 32)))
    return size, f"three quarters of the boxes are larger than {side:.1%} of a photo, {side * size:.0f} pixels here"


def _tile(config: TrainConfig, parent: Bundle | None, train: pl.DataFrame, task: Task) -> tuple[int, str]:
    """The side of tiles, pixels of the photos, in which boxes have `_BOX_DETAIL` pixels; 0 for whole photos."""
    if task == "image":
        return 0, "labels are of whole photos"
    if parent and parent.contract.detection:
        return parent.contract.detection.tile or 0, "as the bundle to start from"
    largest = max(_LARGEST[config.preset], 0 if config.size == "auto" else config.size)
    side, pixels = float(_box_sides(train).quantile(0.25) or 1.0), _long_side(train)
    detail = side * largest
    if detail >= _TOO_SMALL:
        return 0, f"three quarters of the boxes have at least {detail:.0f} pixels in an input of {largest}"
    # Tiles smaller than the input would be enlarged, and much larger ones would hardly show more than the photo.
    tile = max(largest, 32 * round(side * pixels * largest / _BOX_DETAIL / 32))
    if tile > 0.75 * pixels:
        return 0, f"tiles would hardly show more of photos of {pixels:.0f} pixels"
    return tile, f"a quarter of the boxes have less than {detail:.0f} pixels in an input of {largest}"


def _cut(dataset: Selection, tile: int, task: Task) -> Selection:
    """The tiles of a dataset's photos, not cut yet. Raises `InputError` if there is nothing to learn from them."""
    if task == "image":
        raise InputError(
            "Whole photos are not cut into tiles",
            f"--tile {tile} is for boxes, and the task is image",
            "Leave out --tile, or learn boxes: --task boxes",
        )
    cut = tiles.tiled(dataset, tile)
    if not cut.usable("train")["boxes"].list.len().sum() or cut.usable("val").is_empty():
        raise InputError(
            f"No tile of {tile} pixels shows a plant",
            f"a box counts where a tile shows at least {tiles.VISIBLE:.0%} of it, and all boxes are larger",
            "Choose larger tiles, or leave out --tile.",
        )
    return cut


def _long_side(train: pl.DataFrame) -> float:
    """The median of the photos' longer sides, pixels; 0 if none is known."""
    median = train.select(pl.max_horizontal("width", "height")).to_series().median()
    return float(median) if isinstance(median, (int, float)) else 0.0


def _smallest_detail(train: pl.DataFrame) -> float:
    """The side of the smallest boxes (5th percentile) as a share of their photo; 0 without boxes."""
    if not train["boxes"].list.len().sum():
        return 0.0
    return float(_box_sides(train).quantile(0.05) or 0.0)


def _box_sides(train: pl.DataFrame) -> pl.Series:
    """The shorter side of each box, as a share of the longer side of its photo."""
    boxes = train.select("boxes", long=pl.max_horizontal("width", "height")).explode("boxes").drop_nulls()
    side = pl.min_horizontal(pl.col("boxes").struct.field("w"), pl.col("boxes").struct.field("h"))
    return boxes.select(side / pl.col("long")).to_series()


def _precision(speed: Speed | None, device: str, mode: Mode) -> tuple[Precision, str]:
    if mode == "probe":
        return "32", "a probe trains nothing but its heads"
    if speed is None or speed.bf16 is None:
        return "32", "the processor has no bf16"
    if speed.bf16 <= _MIN_SPEED_UP:
        return "32", f"bf16 was measured only {speed.bf16:.2f} times as fast"
    if device == "cpu":  # the gain differs by processor, and the same command should train the same model on all
        return "32", f"bf16 was measured {speed.bf16:.2f} times as fast; precision=bf16 chooses it"
    return "bf16", f"measured {speed.bf16:.2f} times as fast as 32 bits"


def _patience(epochs: int, mode: Mode) -> tuple[int, str]:
    if mode == "probe":
        return epochs, "all epochs take seconds"
    return max(8, epochs // 2), "scores still improve late, when the learning rate is low"


def _lr(batch: int, mode: Mode) -> tuple[float, str]:
    if mode == "probe":
        return 5e-3, "usual for heads on fixed embeddings with AdamW"
    return round(2e-3 * math.sqrt(max(1.0, batch / 32)), 6), "usual for heads with AdamW"


def _backbone_lr(batch: int, mode: Mode) -> tuple[float, str]:
    rate = round((2e-3 if mode == "full" else 5e-4) * math.sqrt(max(1.0, batch / 32)), 6)
    return rate, _SAME_RATE.get(mode, "a quarter of the heads' rate, as the backbone is pretrained")


def _layer_decay(mode: Mode, task: Task) -> tuple[float, str]:
    if task != "image":
        return 1.0, "the maps of all layers are used"
    decay = 0.9 if mode == "finetune" else 1.0
    return decay, _SAME_RATE.get(mode, "the first layers detect edges and colours, which plants have too")


_SAME_RATE = {"probe": "the backbone is frozen", "full": "all layers learn at the same rate"}


def _ema(steps: int, mode: Mode) -> tuple[float, str]:
    """A decay that averages over a tenth of the training."""
    if mode == "probe":
        return 0.0, "not used by a probe"
    return round(min(0.9998, max(0.9, 1 - 10 / max(1.0, steps))), 6), f"averages over a tenth of {steps} steps"


def _mixup(preset: Preset, mode: Mode, steps: int, task: Task) -> tuple[float, str]:
    if task != "image":
        return 0.0, "mosaics join photos instead"
    if preset == "best" and mode != "probe" and steps >= 1000:
        return 0.1, f"reduces overfitting in {steps} steps"
    return 0.0, "too few steps to need it"


def _augment(train: pl.DataFrame, task: Task) -> tuple[float, str]:
    """The strength of augmentation: 1, or 0.5 where crops could lose what a label is about.

    Crops of strength 1 keep three quarters of a photo on average, so a single small spot is lost in a quarter of them.
    """
    with_boxes = train.filter(pl.col("boxes").list.len() > 0)
    if task == "image" and with_boxes.height >= 0.2 * train.height:
        number = with_boxes["boxes"].list.len().cast(pl.Float64).quantile(0.5)
        side = float(_box_sides(with_boxes).quantile(0.5) or 1.0)
        if number is not None and number <= _FEW_BOXES and side < _SMALL_BOX:
            return 0.5, f"crops could lose the {number:.0f} boxes of a photo, {side:.0%} of its width"
    return 1.0, "covers camera, hand and weather; twice as much costs accuracy"


def _workers(hardware: Hardware, device: str) -> tuple[int, str]:
    if device == "cuda":
        return min(8, max(1, hardware.cores - 1)), "the GPU leaves the cores free"
    return 0, "training itself uses all cores"
