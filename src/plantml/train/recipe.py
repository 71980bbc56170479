"""What is asked of a training, what is known of data and machine, and the plan that follows from both."""

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

from pydantic import Field

from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.images import Fit, FitMode
from plantml.settings import Config
from plantml.targets import Target
from plantml.train.weights import DEFAULT

Auto = Literal["auto"]
Mode = Literal["probe", "finetune"]
Preset = Literal["quick", "balanced", "best"]

_UNEQUAL = 3.0
"""Largest class over smallest from which the loss weighs them."""

_EFFECTIVE = 0.999
"""Beta of the effective number of photos (Cui et al. 2019, "Class-balanced loss")."""


class TrainConfig(Config):
    """What can be set for `plantml train`. `auto` is resolved by `plan`, from the data and the machine."""

    preset: Preset = Field(
        "balanced", description="quick trains heads on a frozen backbone; best takes larger photos and twice the epochs"
    )
    targets: tuple[str, ...] = Field((), description="targets to predict; all that the dataset has if empty")
    where: str = Field("", description="only photos for which this holds, as in `dataset subset --where`")
    mode: Mode | Auto = Field("auto", description="probe (frozen backbone) or finetune")
    backbone: str = Field(DEFAULT, description="name of a timm model")
    pretrained: bool = Field(default=True, description="start from pretrained weights")
    size: Annotated[int, Field(ge=32, le=1024)] | Auto = Field(
        "auto", description="height and width of the model's input, pixels"
    )
    fit: FitMode = Field("pad", description="how a photo becomes the input: pad, crop or squash")
    epochs: int | Auto = Field("auto", description="passes over the training photos")
    batch_size: int | Auto = Field("auto", description="photos a step")
    lr: float | Auto = Field("auto", description="peak learning rate of the heads; AdamW")
    backbone_lr: float | Auto = Field("auto", description="peak learning rate of the backbone")
    weight_decay: float = Field(0.02, ge=0, description="of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps in which the rate rises")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="for class targets")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of embedding features dropped before the heads")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the backbone")
    ema: float | Auto = Field("auto", description="decay of the moving average of the weights a step; 0 for none")
    balance: bool | Auto = Field("auto", description="weigh classes by their effective number of photos")
    augment: float = Field(1.0, ge=0, le=2, description="strength of augmentation; 0 only resizes")
    target_risk: float = Field(0.05, gt=0, lt=1, description="share of wrong answers among the accepted ones")
    workers: int | Auto = Field("auto", description="processes that augment; 0 does it in the training process")
    device: str = Field("auto", description="cpu, cuda, mps, or auto")
    seed: int = Field(0, ge=0, description="of every random choice")


class Plan(Config):
    """Every choice of a run, none left open: written at its first start, read at every resume."""

    dataset: str
    dataset_version: int
    fingerprint: str
    preset: Preset
    mode: Mode
    targets: tuple[Target, ...]
    where: str
    train_photos: int
    val_photos: int
    backbone: str
    pretrained: bool
    input: Fit
    epochs: int
    batch_size: int
    lr: float
    backbone_lr: float
    weight_decay: float
    warmup: float
    label_smoothing: float
    dropout: float
    drop_path: float
    ema: float
    class_weights: dict[str, tuple[float, ...]]
    augment: float
    target_risk: float
    workers: int
    device: str
    seed: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Facts:
    """What the plan depends on besides the configuration.

    Attributes:
        dataset: the version to train on.
        train_photos: usable photos of its train split.
        val_photos: usable photos of its val split.
        cores: usable ones.
        device: what Lightning would take by itself: `cpu`, `cuda` or `mps`.
    """

    dataset: Version
    train_photos: int
    val_photos: int
    cores: int
    device: str


def plan(config: TrainConfig, facts: Facts) -> Plan:
    """The plan for a configuration and its facts; pure.

    Raises:
        InputError: the dataset has nothing to train on, or lacks a target or a split.
    """
    _check_splits(facts)
    photos = facts.train_photos
    device = facts.device if config.device == "auto" else config.device
    batch = min(16 if photos < 2000 else 32, photos) if config.batch_size == "auto" else config.batch_size
    mode: Mode = ("probe" if config.preset == "quick" else "finetune") if config.mode == "auto" else config.mode
    epochs = _epochs(photos, config.preset, mode) if config.epochs == "auto" else config.epochs
    size = (288 if config.preset == "best" else 224) if config.size == "auto" else config.size
    targets = _targets(config.targets, facts.dataset)
    return Plan(
        dataset=facts.dataset.url,
        dataset_version=facts.dataset.number,
        fingerprint=facts.dataset.fingerprint,
        preset=config.preset,
        mode=mode,
        targets=targets,
        where=config.where,
        train_photos=photos,
        val_photos=facts.val_photos,
        backbone=config.backbone,
        pretrained=config.pretrained,
        input=Fit(size, size, config.fit),
        epochs=epochs,
        batch_size=batch,
        lr=2e-3 if config.lr == "auto" else config.lr,
        backbone_lr=5e-4 if config.backbone_lr == "auto" else config.backbone_lr,
        weight_decay=config.weight_decay,
        warmup=config.warmup,
        label_smoothing=config.label_smoothing,
        dropout=config.dropout,
        drop_path=config.drop_path,
        ema=_ema(epochs * photos / batch, mode) if config.ema == "auto" else config.ema,
        class_weights=_class_weights(targets, facts.dataset, balance=config.balance),
        augment=config.augment,
        target_risk=config.target_risk,
        workers=_workers(facts, device) if config.workers == "auto" else config.workers,
        device=device,
        seed=config.seed,
        versions=versions(),
    )


def reasons(config: TrainConfig, made: Plan) -> dict[str, str]:
    """Why the plan has the values that nobody set, by key."""
    steps = made.epochs * -(-made.train_photos // made.batch_size)
    found = {
        "mode": f"of the preset {made.preset}",
        "input": f"of the preset {made.preset}",
        "epochs": f"for {made.train_photos} photos, preset {made.preset}: {steps} steps",
        "batch_size": f"for {made.train_photos} photos",
        "lr": "usual for fresh heads",
        "backbone_lr": "a quarter of the heads': it knows much already",
        "ema": f"looks back over a tenth of {steps} steps" if made.ema else "the probe has no use for it",
        "class_weights": f"some class is over {_UNEQUAL:.0f} times another"
        if made.class_weights
        else "classes are even",
        "workers": "the training itself wants all cores" if made.device == "cpu" else "the GPU leaves the cores free",
        "device": "the best that is here",
    }
    set_ = {key for key in TrainConfig.model_fields if getattr(config, key) != TrainConfig.model_fields[key].default}
    taken = {"size": "input", "balance": "class_weights"}
    return {key: why for key, why in found.items() if key not in {taken.get(name, name) for name in set_}}


def _epochs(photos: int, preset: Preset, mode: Mode) -> int:
    if mode == "probe":
        return 60  # passes over vectors: all of them take seconds
    # Small sets need more passes, large ones fewer: 19 for 100 photos, 15 for 240, 6 for 10,000.
    usual = min(30, max(4, round(60 / math.sqrt(math.sqrt(photos)))))
    return 2 * usual if preset == "best" else usual


def _ema(steps: float, mode: Mode) -> float:
    """The decay that looks back over a tenth of the training."""
    return 0.0 if mode == "probe" else round(min(0.9998, max(0.9, 1 - 10 / max(1.0, steps))), 6)


def _class_weights(
    targets: Sequence[Target], dataset: Version, *, balance: bool | Auto
) -> dict[str, tuple[float, ...]]:
    """Weights of the classes by target, their mean over the photos 1; targets with even classes are left out."""
    train, found = dataset.usable("train"), {}
    for target in targets:
        if target.kind != "class" or balance is False:
            continue
        counts = dict(train[target.name].drop_nulls().value_counts().iter_rows())
        numbers = [counts.get(name, 0) for name in target.classes]
        there = [number for number in numbers if number]
        if balance == "auto" and max(there) <= _UNEQUAL * min(there):
            continue
        raw = [(1 - _EFFECTIVE) / (1 - _EFFECTIVE**number) if number else 0.0 for number in numbers]
        mean = sum(weight * number for weight, number in zip(raw, numbers, strict=True)) / sum(numbers)
        found[target.name] = tuple(round(weight / mean, 4) for weight in raw)
    return found


def versions() -> dict[str, str]:
    """Versions of plantml, Python, and the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in (
        "plantml",
        "torch",
        "timm",
        "pytorch-lightning",
        "albumentations",
        "pillow",
        "numpy",
        "onnx",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def differences(before: Plan, now: Plan) -> list[str]:
    """In words, what differs between two plans, versions of libraries aside."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    return [
        f"{key} was {_brief(old[key])} and is {_brief(new[key])}"
        for key in old
        if key != "versions" and old[key] != new[key]
    ]


def _workers(facts: Facts, device: str) -> int:
    # On the CPU the training itself wants all cores; workers would only take them away.
    return 0 if device == "cpu" else min(8, max(1, facts.cores - 1))


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


def _check_splits(facts: Facts) -> None:
    if not facts.train_photos or not facts.val_photos:
        missing = "train" if not facts.train_photos else "val"
        raise InputError(
            f"{facts.dataset.ref} has no photos in its {missing} split",
            "training needs photos to learn from, and others to choose the best epoch by",
            f"Split it: plantml dataset split {facts.dataset.url}",
        )


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
