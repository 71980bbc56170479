"""The plan of a training: a pure function of what is asked, of the dataset, and of the machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import polars as pl

from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.imaging import Fit, FitMode
from plantml.model.bundle import Bundle
from plantml.targets import Target
from plantml.train import plan as plans
from plantml.train.config import Balance, Mode, Precision, Preset, TrainConfig
from plantml.train.plan import Plan
from plantml.train.weights import DEFAULT

T = TypeVar("T")

KEPT = 0.95
"""Share of a budget that is planned for; the rest is for what is slower than measured."""

HEADS_FIRST = 20_000
"""Photos whose embeddings heads are fitted to, at most, before a backbone is tuned."""

_VIEWS, _VECTORS = 6, 120_000
"""Augmented views of each photo that a probe learns from, and all of them together, at most, but for one of each."""

_UNEQUAL, _VERY_UNEQUAL = 3.0, 30.0
"""Largest class over smallest from which the loss weighs them, or adjusts their logits."""

_EFFECTIVE = 0.999
"""Beta of the effective number of photos (Cui et al. 2019, "Class-balanced loss")."""

_FEW = 40
"""Training photos below which a backbone would be spoilt rather than tuned."""

_FEW_MARKS, _SMALL_MARK = 2, 0.2
"""Boxes of a photo, and their side as a share of it, below which a cut may lose all that the label is about."""

_DETAIL = 8
"""Pixels that the smallest thing that was marked should have in the input."""

_PROBE_BATCH = 256
_FASTER = 1.15
"""How many times as fast bf16 must be, so that chance does not decide."""

_START, _FINISH = 10.0, 12.0
"""Seconds of what every training does before its first step, and of calibrating, exporting and comparing."""


@dataclass(frozen=True)
class Hardware:
    """The machine.

    Attributes:
        cores: usable ones.
        device: `cpu`, `cuda` or `mps`: what a training takes by itself.
        gpu_memory: bytes of one GPU; 0 if there is none.
    """

    cores: int
    device: str
    gpu_memory: int = 0


@dataclass(frozen=True)
class Speed:
    """What was measured on this machine, for one network, input size and batch size.

    Attributes:
        step: seconds of a training step with its augmentation, in 32 bits.
        see: seconds to embed one photo.
        decode: seconds to read and decode one photo.
        bf16: how many times as fast a step is in bf16; none where the processor has to imitate it.
    """

    step: float
    see: float
    decode: float
    bf16: float | None = None

    def step_in(self, precision: Precision) -> float:
        """Seconds of a step in a precision."""
        return self.step / self.bf16 if precision == "bf16" and self.bf16 else self.step


@dataclass(frozen=True)
class Facts:
    """What the plan depends on besides the configuration; `speed` and `parent` where they are known."""

    dataset: Version
    hardware: Hardware
    speed: Speed | None = None
    parent: Bundle | None = None


class _Choices:
    """Values that were asked for, or else chosen, with the reason."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def pick(self, key: str, asked: Any, value: T, why: str) -> T:
        """`asked`, or `value` with its reason where that was left open."""
        if asked != "auto":
            return cast("T", asked)
        self.reasons[key] = why
        return value


def plan(config: TrainConfig, facts: Facts) -> Plan:
    """The plan for a configuration and its facts; pure.

    Raises:
        InputError: the dataset has nothing to train on, or lacks a target or a split.
    """
    train, val = facts.dataset.usable("train"), facts.dataset.usable("val")
    _check_splits(facts.dataset, train, val)
    choices, photos, cuda = _Choices(), train.height, _device(config, facts) == "cuda"
    targets = _targets(config.targets, facts.dataset)
    mode = _mode(choices, config, photos)
    batch = min(_batch(photos, facts.hardware) if cuda else 16 if photos < 2000 else 32, photos)
    batch = choices.pick("batch_size", config.batch_size, batch, f"for {photos} photos")
    precision = _precision(choices, config, facts)
    step = facts.speed.step_in(precision) if facts.speed else 0.0
    mode, epochs, epoch_photos = _length(choices, config, facts, mode, batch=batch, step=step)
    if mode == "probe":
        batch = choices.pick("batch_size", config.batch_size, _PROBE_BATCH, "vectors, not photos")
    steps = epochs * -(-epoch_photos // batch)
    balance, weights, logits = _balance(choices, config, targets, train)
    augment = choices.pick("augment", config.augment, *_strength(train))
    gentle = {"probe": "the backbone stays as it is", "full": "all layers learn alike"}
    made = Plan(
        **{key: getattr(config, key) for key in plans.FIXED},
        dataset=facts.dataset.url,
        dataset_version=facts.dataset.number,
        fingerprint=facts.dataset.fingerprint,
        asked=config.model_dump(mode="json"),
        reasons={},
        preset=config.preset,
        budget=config.budget,
        mode=mode,
        targets=targets,
        train_photos=photos,
        val_photos=val.height,
        backbone=_backbone(choices, config, facts),
        parent=facts.parent.digest if facts.parent else "",
        input=_input(choices, config, facts, train),
        epochs=epochs,
        patience=choices.pick("patience", config.patience, *_patience(epochs, mode)),
        epoch_photos=epoch_photos,
        batch_size=batch,
        lr=choices.pick("lr", config.lr, *_rate(batch, mode)),
        backbone_lr=choices.pick(
            "backbone_lr",
            config.backbone_lr,
            round((2e-3 if mode == "full" else 5e-4) * math.sqrt(max(1.0, batch / 32)), 6),
            gentle.get(mode, "a quarter of the heads': it knows much already"),
        ),
        layer_decay=choices.pick(
            "layer_decay",
            config.layer_decay,
            0.9 if mode == "finetune" else 1.0,
            gentle.get(mode, "the first layers see edges and colours, which plants have too"),
        ),
        ema=choices.pick("ema", config.ema, _ema(steps, mode), _why_ema(steps, mode)),
        mixup=choices.pick("mixup", config.mixup, *_mixup(config.preset, mode, steps)),
        augment=augment,
        views=_views(choices, config, facts, photos, augment),
        balance=balance,
        class_weights=weights,
        class_logits=logits,
        precision=precision,
        workers=choices.pick("workers", config.workers, *_workers(facts.hardware, cuda=cuda)),
        device=choices.pick("device", config.device, facts.hardware.device, "the best that is here"),
        step_seconds=round(step, 4),
        seconds=0.0,
        versions=plans.versions(),
    )
    return made.model_copy(update={**_times(made, facts.speed), "reasons": choices.reasons})


def usual_epochs(photos: int, preset: Preset, mode: Mode) -> int:
    """Passes that give a good model: more for small sets, 19 for 100 photos, 15 for 240, 6 for 10,000."""
    if mode == "probe":
        return 60  # passes over vectors: all of them take seconds
    usual = min(30, max(4, round(60 / math.sqrt(math.sqrt(photos)))))
    return usual * (2 if preset == "best" else 1) * (2 if mode == "full" else 1)


def _device(config: TrainConfig, facts: Facts) -> str:
    return facts.hardware.device if config.device == "auto" else config.device


def _batch(photos: int, hardware: Hardware) -> int:
    if photos < 2000:
        return 32
    return 128 if hardware.gpu_memory >= 32 * 2**30 else 64


def _mode(choices: _Choices, config: TrainConfig, photos: int) -> Mode:
    if config.mode != "auto":
        return config.mode
    if not config.pretrained and not config.warm_start:
        return choices.pick("mode", "auto", "full", "nothing was learned before")
    if config.preset == "quick":
        return choices.pick("mode", "auto", "probe", "of the preset quick")
    if photos < _FEW:
        return choices.pick("mode", "auto", "probe", f"{photos} photos would spoil the backbone")
    return choices.pick("mode", "auto", "finetune", f"of the preset {config.preset}")


def _backbone(choices: _Choices, config: TrainConfig, facts: Facts) -> str:
    if facts.parent:
        return choices.pick(
            "backbone", config.backbone, facts.parent.contract.architecture.backbone, "of the bundle it starts from"
        )
    return choices.pick("backbone", config.backbone, DEFAULT, "its weights are installed, and it is fast on every CPU")


def _input(choices: _Choices, config: TrainConfig, facts: Facts, train: pl.DataFrame) -> Fit:
    usual = 288 if config.preset == "best" else 224
    sides = train.select(long=pl.max_horizontal("width", "height"), short=pl.min_horizontal("width", "height"))
    size, why = usual, f"of the preset {config.preset}"
    detail = _smallest_detail(train)
    median = sides["long"].median()
    if facts.parent:
        size, why = facts.parent.contract.input.height, "of the bundle it starts from"
    elif detail and detail * usual < _DETAIL:
        size = min(512 if config.preset == "best" else 384, 32 * math.ceil(_DETAIL / detail / 32))
        why = f"the smallest of the boxes is {detail:.1%} of a photo, here {detail * size:.0f} pixels"
    elif isinstance(median, (int, float)) and 0 < median < 0.75 * usual:
        size = max(160, 32 * math.ceil(median / 32))
        why = f"the photos have {median:.0f} pixels"
    size = choices.pick("size", config.size, size, why)
    square = sides.filter(pl.col("short") > 0).select(((pl.col("long") / pl.col("short")) < 1.1).mean()).item()
    fit: FitMode = facts.parent.contract.input.mode if facts.parent else "squash" if square and square > 0.95 else "pad"
    because = {
        "pad": "keeps every pixel and the aspect",
        "squash": "the photos are almost square",
        "crop": "of the bundle it starts from",
    }
    return Fit(size, size, choices.pick("fit", config.fit, fit, because[fit]))


def _smallest_detail(train: pl.DataFrame) -> float:
    """The side of the smallest boxes (5th percentile) as a share of their photo; 0 without boxes."""
    if not train["boxes"].list.len().sum():
        return 0.0
    return float(_sides_of_boxes(train).quantile(0.05) or 0.0)


def _sides_of_boxes(train: pl.DataFrame) -> pl.Series:
    """The shorter side of each box, as a share of the longer side of its photo."""
    boxes = train.select("boxes", long=pl.max_horizontal("width", "height")).explode("boxes").drop_nulls()
    side = pl.min_horizontal(pl.col("boxes").struct.field("w"), pl.col("boxes").struct.field("h"))
    return boxes.select(side / pl.col("long")).to_series()


def _precision(choices: _Choices, config: TrainConfig, facts: Facts) -> Precision:
    if config.precision != "auto":
        return config.precision
    gain = facts.speed.bf16 if facts.speed else None
    if gain is None:
        return choices.pick("precision", "auto", "32", "the processor has no bf16")
    if gain > _FASTER:
        return choices.pick("precision", "auto", "bf16", f"{gain:.2f} times as fast as 32 bits, as measured")
    return choices.pick("precision", "auto", "32", f"bf16 is {gain:.2f} times as fast, as measured")


def _length(
    choices: _Choices, config: TrainConfig, facts: Facts, mode: Mode, *, batch: int, step: float
) -> tuple[Mode, int, int]:
    """Mode, epochs, and photos an epoch: the usual, or what fits a budget."""
    photos, speed = facts.dataset.usable("train").height, facts.speed
    usual = usual_epochs(photos, config.preset, mode)
    if not config.budget or not speed or config.epochs != "auto" or mode == "probe":
        why = f"for {photos} photos, preset {config.preset}"
        return mode, choices.pick("epochs", config.epochs, usual, why), photos
    val = facts.dataset.usable("val").height
    left = KEPT * config.budget - _around(photos, val, mode, speed)
    judging, steps = val * speed.see, math.ceil(photos / batch)
    fitting = int(left / (steps * step + judging))
    if fitting >= 3:
        epochs = min(fitting, 3 * usual)
        return mode, choices.pick("epochs", "auto", epochs, f"as many as fit the budget, {3 * usual} at most"), photos
    some = int(batch * (left / 3 - judging) / step) // batch * batch if step else photos
    # Less than one pass over a small set teaches a backbone less than all of it teaches the heads.
    if some >= 4 * batch and (3 * some >= min(photos, 2000) or config.mode != "auto"):
        why = f"the budget allows 3 passes over {some} of {photos} photos"
        choices.reasons["epoch_photos"] = why
        return mode, choices.pick("epochs", "auto", 3, why), some
    if config.mode == "auto" and mode == "finetune":
        choices.reasons["mode"] = "the budget is too short to tune the backbone"
        usual = usual_epochs(photos, config.preset, "probe")
        return "probe", choices.pick("epochs", "auto", usual, "passes over vectors"), photos
    return mode, choices.pick("epochs", "auto", 1, "the budget is too short for more"), min(photos, 4 * batch)


def _around(train: int, val: int, mode: Mode, speed: Speed, views: int = 0) -> float:
    """Seconds of everything but the epochs, with so many views of each photo for a probe."""
    before = {"probe": views * train + val, "finetune": min(train, HEADS_FIRST), "full": 0}[mode]
    seen = before + 4 * val + min(train, 1000)
    return _START + _FINISH + speed.decode * (train + val) + speed.see * seen


def _times(made: Plan, speed: Speed | None) -> dict[str, float]:
    """Expected seconds of the whole training, and of what is not epochs; 0 if nothing was measured."""
    if speed is None:
        return {"seconds": 0.0, "other_seconds": 0.0}
    around = _around(made.train_photos, made.val_photos, made.mode, speed, made.views)
    epoch = made.epoch_steps * made.step_seconds + made.val_photos * speed.see
    epochs = 0.0 if made.mode == "probe" else made.epochs * epoch
    return {"seconds": round(around + epochs), "other_seconds": round(around, 1)}


def _patience(epochs: int, mode: Mode) -> tuple[int, str]:
    if mode == "probe":
        return epochs, "all epochs take seconds"
    return max(8, epochs // 2), "a falling rate gains until late; half the epochs is long"


def _rate(batch: int, mode: Mode) -> tuple[float, str]:
    if mode == "probe":
        return 5e-3, "usual for AdamW and heads on vectors that stay as they are"
    return round(2e-3 * math.sqrt(max(1.0, batch / 32)), 6), "usual for AdamW and heads"


def _ema(steps: float, mode: Mode) -> float:
    """The decay that looks back over a tenth of the training."""
    return 0.0 if mode == "probe" else round(min(0.9998, max(0.9, 1 - 10 / max(1.0, steps))), 6)


def _why_ema(steps: int, mode: Mode) -> str:
    return "a probe has no use for it" if mode == "probe" else f"looks back over a tenth of {steps} steps"


def _mixup(preset: Preset, mode: Mode, steps: int) -> tuple[float, str]:
    if preset == "best" and mode != "probe" and steps >= 1000:
        return 0.1, f"against overfitting in {steps} steps"
    return 0.0, "too few steps to need it"


def _strength(train: pl.DataFrame) -> tuple[float, str]:
    """The strength of augmentation: 1, or half of it where its cuts could lose what a label is about.

    Cuts of strength 1 keep three quarters of a photo on average, so that a single small spot is lost in a quarter.
    """
    marked = train.filter(pl.col("boxes").list.len() > 0)
    if marked.height >= 0.2 * train.height:
        number = marked["boxes"].list.len().cast(pl.Float64).quantile(0.5)
        side = float(_sides_of_boxes(marked).quantile(0.5) or 1.0)
        if number is not None and number <= _FEW_MARKS and side < _SMALL_MARK:
            return 0.5, f"cuts could lose the {number:.0f} boxes of a photo, {side:.0%} of it wide"
    return 1.0, "what a camera, a hand and the weather change; twice as much costs accuracy"


def _views(choices: _Choices, config: TrainConfig, facts: Facts, photos: int, augment: float) -> int:
    """Views of each photo for a probe: fewer where photos are many, or a budget short."""
    if not augment:
        return choices.pick("views", config.views, 1, "photos as they are")
    number = max(1, min(_VIEWS, _VECTORS // photos))
    why = "more gain little" if number == _VIEWS else f"{photos} photos teach enough"
    if config.budget and facts.speed:
        left = KEPT * config.budget - _around(photos, facts.dataset.usable("val").height, "probe", facts.speed)
        fitting = int(left / max(1e-9, photos * facts.speed.see))
        if fitting < number:
            number, why = max(1, fitting), "as many as fit the budget"
    return choices.pick("views", config.views, number, why)


def _workers(hardware: Hardware, *, cuda: bool) -> tuple[int, str]:
    if cuda:
        return min(8, max(1, hardware.cores - 1)), "the GPU leaves the cores free"
    return 0, "the training itself wants all cores"


def _balance(
    choices: _Choices, config: TrainConfig, targets: Sequence[Target], train: pl.DataFrame
) -> tuple[Balance, dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
    """How uneven classes are met: the way, weights of the loss, and logarithms of shares."""
    counts = {
        target.name: [
            dict(train[target.name].drop_nulls().value_counts().iter_rows()).get(c, 0) for c in target.classes
        ]
        for target in targets
        if target.kind == "class"
    }
    ratios = {name: max(there) / min(there) for name, found in counts.items() if (there := [n for n in found if n])}
    worst = max(ratios.values(), default=1.0)
    way: Balance = "off" if worst <= _UNEQUAL else "weights" if worst <= _VERY_UNEQUAL else "logits"
    way = choices.pick("balance", config.balance, way, f"the largest class is {worst:.1f} times the smallest")
    uneven = {name: found for name, found in counts.items() if config.balance != "auto" or ratios[name] > _UNEQUAL}
    weights = {name: _weights(found) for name, found in uneven.items()} if way in {"weights", "sampling"} else {}
    logits = {name: _shares(found) for name, found in uneven.items()} if way == "logits" else {}
    return way, weights, logits


def _weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights by effective number, their mean over the photos 1; 0 for a class without photos."""
    raw = [(1 - _EFFECTIVE) / (1 - _EFFECTIVE**number) if number else 0.0 for number in counts]
    mean = sum(weight * number for weight, number in zip(raw, counts, strict=True)) / sum(counts)
    return tuple(round(weight / mean, 4) for weight in raw)


def _shares(counts: Sequence[int]) -> tuple[float, ...]:
    """Logarithms of the classes' shares (Menon et al. 2021, "Long-tail learning via logit adjustment")."""
    return tuple(round(math.log(max(1, number) / sum(counts)), 4) for number in counts)


def _targets(wanted: Sequence[str], dataset: Version) -> tuple[Target, ...]:
    chosen = [dataset.target(name) for name in wanted] if wanted else list(dataset.targets)
    train = dataset.usable("train")
    usable = []
    for target in chosen:
        labelled = train[target.name].drop_nulls()
        if labelled.is_empty() or (target.kind == "class" and len(target.classes) < 2):
            if wanted:
                raise InputError(
                    f"{target.name} cannot be trained on {dataset.ref}",
                    "it has fewer than two classes or no labelled photo in train",
                )
            continue
        usable.append(target)
    if not usable:
        raise InputError(
            f"{dataset.ref} has nothing to predict",
            "no target has labels of at least two classes in train",
            f"Look at it: plantml dataset info {dataset.url}",
        )
    return tuple(usable)


def _check_splits(dataset: Version, train: pl.DataFrame, val: pl.DataFrame) -> None:
    if train.is_empty() or val.is_empty():
        missing = "train" if train.is_empty() else "val"
        raise InputError(
            f"{dataset.ref} has no photos in its {missing} split",
            "training needs photos to learn from, and others to choose the best epoch by",
            f"Split it: plantml dataset split {dataset.url}",
        )
