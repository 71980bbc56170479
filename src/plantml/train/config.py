"""What is asked of a training, and the plan of it, in which nothing is left open."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from plantml.imaging import Fit, FitMode
from plantml.settings import Config, Duration, Seed
from plantml.targets import Target

Auto = Literal["auto"]
Mode = Literal["probe", "finetune", "full"]
Preset = Literal["quick", "balanced", "best"]
Balance = Literal["off", "weights", "logits", "sampling"]
Precision = Literal["32", "bf16"]

_NOT_ASKED = frozenset({"workers", "checkpoint_every", "logger", "tracking_uri"})
"""What may change between the start of a run and its resume, because it does not change the result."""


NOT_IN_A_PROBE = frozenset({"backbone_lr", "layer_decay", "warmup", "clip", "drop_path", "cutmix", "mixup", "ema",
                            "precision", "workers", "compile", "step_seconds"})  # fmt: skip
"""What a plan has and a probe, whose backbone stays as it is, does not use."""

ONLY_IN_A_PROBE = frozenset({"views"})


class _Fixed(Config):
    """Settings that need no look at data or machine."""

    where: str = Field("", description="only photos for which this holds, as in `dataset subset --where`")
    pretrained: bool = Field(default=True, description="start from pretrained weights")
    warm_start: str = Field("", description="bundle or run whose weights to start from; classes are joined by name")
    weight_decay: float = Field(0.02, ge=0, le=10, description="of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps in which the rate rises")
    clip: float = Field(1.0, gt=0, le=1e6, description="largest norm of the gradient; 1e6 never clips")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="for class targets")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of embedding features dropped before the heads")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the backbone")
    cutmix: float = Field(
        0.0, ge=0, le=100, description="alpha of CutMix, which pastes leaf on leaf; 0 for none, as symptoms are small"
    )
    combinations: Literal["any", "seen"] = Field(
        "any", description="seen: never answer a combination of classes that training did not show"
    )
    target_risk: float = Field(0.05, gt=0, lt=1, description="share of wrong answers among the accepted ones")
    compile: bool = Field(default=False, description="compile the backbone with torch.compile; needs a C++ compiler")
    devices: int = Field(1, ge=1, le=1024, description="GPUs, or processes on a CPU, a machine")
    nodes: int = Field(1, ge=1, le=1024, description="machines")
    strategy: Literal["auto", "ddp"] = Field("auto", description="of Lightning for several devices")
    checkpoint_every: Duration = Field(
        300.0, validate_default=False, description="longest time between checkpoints, such as 5m; an epoch is another"
    )
    logger: tuple[Literal["tensorboard", "mlflow"], ...] = Field(
        (), description="tensorboard, mlflow, or both; history.csv is always written"
    )
    tracking_uri: str = Field("", description="where MLflow keeps its runs")
    folds: Literal[0] | Annotated[int, Field(ge=2, le=100)] = Field(
        0, description="cross-validation with so many models instead of one; 0 for none"
    )
    fold: int = Field(0, ge=0, le=100, description="which of the folds this run is; `plantml train --folds` sets it")
    seed: Seed = Field(0, description="of every random choice")

    @model_validator(mode="after")
    def _fold_is_one_of_them(self) -> Self:
        if self.fold > self.folds:
            raise ValueError(f"there is no fold {self.fold} of {self.folds} folds")
        return self


FIXED = tuple(_Fixed.model_fields)
"""Names of the settings that a plan takes over as they are."""


class TrainConfig(_Fixed):
    """What can be set for `plantml train`. `auto` is resolved by `planning.plan`, from the data and the machine."""

    preset: Preset = Field(
        "balanced", description="quick trains heads on a frozen backbone; best takes larger photos and twice the epochs"
    )
    budget: Duration | None = Field(None, description="wall-clock time of the whole training, such as 20m or 8h")
    targets: tuple[str, ...] = Field((), description="targets to predict; all that the dataset has if empty")
    mode: Mode | Auto = Field(
        "auto", description="probe (frozen backbone), finetune (heads first, then gently) or full (all alike)"
    )
    backbone: str = Field("auto", description="name of a timm model")
    size: Annotated[int, Field(ge=32, le=1024)] | Auto = Field(
        "auto", description="height and width of the model's input, pixels"
    )
    fit: FitMode | Auto = Field("auto", description="how a photo becomes the input: pad, crop or squash")
    epochs: Annotated[int, Field(ge=1, le=100_000)] | Auto = Field(
        "auto", description="passes over the training photos"
    )
    patience: Annotated[int, Field(ge=1, le=100_000)] | Auto = Field(
        "auto", description="epochs without a better score after which training ends"
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Auto = Field(
        "auto", description="photos a step, on all devices together; they must fit into memory"
    )
    lr: Annotated[float, Field(gt=0, le=10)] | Auto = Field(
        "auto", description="peak learning rate of the heads; AdamW"
    )
    backbone_lr: Annotated[float, Field(gt=0, le=10)] | Auto = Field(
        "auto", description="peak learning rate of the backbone's last layers"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto", description="factor of the rate from one stage of the backbone to the one before it"
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto", description="decay of the moving average of the weights a step; 0 for none"
    )
    mixup: Annotated[float, Field(ge=0, le=100)] | Auto = Field("auto", description="alpha of mixup; 0 for none")
    augment: Annotated[float, Field(ge=0, le=2)] | Auto = Field(
        "auto", description="strength of augmentation; 0 only resizes, 2 is too much for most"
    )
    views: Annotated[int, Field(ge=1, le=1000)] | Auto = Field(
        "auto", description="augmented views of each photo that a probe learns from"
    )
    balance: Balance | Auto = Field(
        "auto", description="of uneven classes: off, weights (effective number), logits (adjusted), sampling"
    )
    precision: Precision | Auto = Field("auto", description="32 or bf16")
    workers: Annotated[int, Field(ge=0, le=256)] | Auto = Field(
        "auto", description="processes that augment; 0 does it in the training process"
    )
    device: Literal["cpu", "cuda", "mps"] | Auto = Field("auto", description="cpu, cuda, mps, or auto")


def _usual() -> dict[str, Any]:
    """The defaults, as JSON types."""
    return TrainConfig.model_validate({}).model_dump(mode="json")


def chosen(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration, as JSON types, has otherwise than the defaults."""
    usual = _usual()
    return {key: value for key, value in asked.items() if value != usual[key]}


class Plan(_Fixed):
    """Every choice of a run, none left open: written at its first start, read at every resume.

    Attributes:
        asked: the configuration that it answers.
        reasons: why values that nobody set are what they are, by key.
        targets: to predict.
        parent: digest of the bundle whose weights it starts from; empty for none.
        batch_size: photos a step, on all devices together.
        epoch_photos: photos of an epoch: all, or so many drawn by chance where a budget allows no whole pass.
        class_weights: of the loss, by target.
        class_logits: added to the logits in the loss, by target: the logarithms of the classes' shares.
        step_seconds: of a step, as measured at the first start; 0 if it was not.
        seconds: expected for the whole training; 0 if it is not known.
        other_seconds: of these, what is not epochs.
    """

    dataset: str
    dataset_version: int
    fingerprint: str
    asked: dict[str, Any]
    reasons: dict[str, str]
    preset: Preset
    budget: float | None
    mode: Mode
    targets: tuple[Target, ...]
    train_photos: int
    val_photos: int
    backbone: str
    parent: str
    input: Fit
    epochs: int
    patience: int
    epoch_photos: int
    batch_size: int
    lr: float
    backbone_lr: float
    layer_decay: float
    ema: float
    mixup: float
    augment: float
    views: int = 6
    balance: Balance
    class_weights: dict[str, tuple[float, ...]]
    class_logits: dict[str, tuple[float, ...]]
    precision: Precision
    workers: int
    device: str
    step_seconds: float
    seconds: float
    other_seconds: float = 0.0
    versions: dict[str, str]

    @property
    def world(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    @property
    def shortfall(self) -> str:
        """That the budget cannot be kept, in a sentence; empty if it can."""
        if not self.budget or self.seconds <= self.budget:
            return ""
        least = f"the least that can be done takes about {self.seconds:.0f} here"
        return f"The budget of {self.budget:.0f} seconds cannot be kept: {least}."

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; a last, smaller one is left out if it could upset batch statistics."""
        whole, rest = divmod(self.epoch_photos, self.batch_size)
        return whole + (rest >= 2 * self.world or not whole)


def versions() -> dict[str, str]:
    """Versions of plantml, Python, and the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("plantml", "torch", "timm", "pytorch-lightning", "albumentations", "pillow", "numpy", "onnx"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def differences(before: Plan, config: TrainConfig, url: str, number: int, fingerprint: str) -> list[str]:
    """In words, what a run was asked for and what it is asked for now; what cannot change the result aside."""
    now: dict[str, Any] = {"dataset": url, "dataset_version": number, "fingerprint": fingerprint}
    old: dict[str, Any] = {name: getattr(before, name) for name in now}
    asked = config.model_dump(mode="json")
    defaults = _usual()
    for key in asked:
        old[key], now[key] = before.asked.get(key, defaults[key]), asked[key]
    return [
        f"{key} was {_brief(old[key])} and is {_brief(now[key])}"
        for key in old
        if key not in _NOT_ASKED and old[key] != now[key]
    ]


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
