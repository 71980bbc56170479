"""The plan of a training: every choice, fixed at its start."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import Field

from plantml.imaging import Fit
from plantml.model.contract import Withheld
from plantml.model.covariates import Covariate
from plantml.targets import Target
from plantml.train.config import Balance, FixedSettings, Mode, Precision, Preset, Task, TrainConfig

_MAY_CHANGE = frozenset({"workers", "checkpoint_every", "logger", "tracking_uri", "forms"})
"""Settings that may change before a resume, because they do not change the result."""

NOT_IN_A_PROBE = frozenset({"backbone_lr", "layer_decay", "warmup", "clip", "drop_path", "cutmix", "mixup", "ema",
                            "precision", "workers", "compile", "step_seconds"})  # fmt: skip
"""Parts of a plan that a probe, whose backbone is frozen, does not use."""

IN_ANOMALIES = frozenset({"dataset", "photos", "normal", "by", "preset", "budget", "task", "train_photos", "val_photos",
                          "backbone", "pretrained", "weights", "size", "fit", "epoch_photos", "batch_size", "device",
                          "seed", "false_alarms", "where"})  # fmt: skip
"""Parts of a plan that a model of anomalies, which is not trained by gradient steps, uses."""

ONLY_IN_A_PROBE = frozenset({"views"})

FIXED = tuple(FixedSettings.model_fields)
"""Names of the settings that a plan copies."""


def _defaults() -> dict[str, Any]:
    """The defaults, as JSON types."""
    return TrainConfig.model_validate({}).model_dump(mode="json")


def non_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a configuration, as JSON types, that differ from the defaults."""
    defaults = _defaults()
    return {key: value for key, value in config.items() if value != defaults[key]}


class Plan(FixedSettings):
    """Every choice of a run: written at its first start, read at every resume.

    Attributes:
        asked: the configuration, as JSON types.
        reasons: why `auto` values were chosen, by key.
        tile: pixels of the tiles that are trained on; 0 for whole photos.
        normal: what normal photos are, as `target=class`; of the task `anomaly`.
        by: the class target by which these differ; empty if they do not.
        targets: to predict.
        covariates: that come with the photos, with statistics of the training rows.
        rows_without_photo: whose columns are learnt from, too.
        parent: digest of the bundle of a warm start; empty for none.
        weights_sha256: of the pretrained weights that were named; empty for none.
        batch_size: photos per step, over all devices.
        withheld: targets that do not apply where another one has some class.
        unlabelled_fingerprint: of the version that `unlabelled` names; empty for none.
        unlabelled_photos: that may be learnt from without their labels.
        unlabelled_left_out: other photos of their dataset, by reason.
        epoch_photos: photos per epoch: all, or a random sample where the budget allows no full epoch.
        class_weights: of the loss, by target.
        class_logits: added to the logits in the loss, by target: the logarithms of the classes' shares.
        step_seconds: measured per step at the first start; 0 if not measured.
        seconds: expected for the whole training; 0 if unknown.
        other_seconds: the part of `seconds` outside of epochs.
    """

    dataset: str
    dataset_version: int
    fingerprint: str
    asked: dict[str, Any]
    reasons: dict[str, str]
    preset: Preset
    budget: float | None
    task: Task = "image"
    tile: int = 0
    crops: bool = False
    mode: Mode
    normal: str = ""
    by: str = ""
    targets: tuple[Target, ...]
    covariates: tuple[Covariate, ...] = ()
    rows_without_photo: int = 0
    withheld: tuple[Withheld, ...] = ()
    train_photos: int
    val_photos: int
    backbone: str
    parent: str
    weights_sha256: str = ""
    unlabelled_fingerprint: str = ""
    unlabelled_photos: int = 0
    unlabelled_left_out: dict[str, int] = Field(default_factory=dict)
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
        """A sentence that says that the budget is too small; empty if it suffices."""
        if not self.budget or self.seconds <= self.budget:
            return ""
        least = f"the shortest possible training takes about {self.seconds:.0f} here"
        return f"The budget of {self.budget:.0f} seconds cannot be kept: {least}."

    @property
    def epoch_steps(self) -> int:
        """Steps per epoch; a small last batch is dropped if it could upset batch statistics."""
        whole, rest = divmod(self.epoch_photos, self.batch_size)
        return whole + (rest >= 2 * self.world or not whole)

    def limited_to(self, photos: int) -> "Plan":
        """The plan with no more photos in an epoch than there are."""
        return self.model_copy(update={"epoch_photos": min(self.epoch_photos, photos)})


def versions() -> dict[str, str]:
    """Versions of plantml, Python, and the libraries that a result depends on."""
    numbers = {"python": platform.python_version()}
    for name in ("plantml", "torch", "timm", "pytorch-lightning", "albumentations", "pillow", "numpy", "onnx"):
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            continue
    return numbers


def differences(before: Plan, config: TrainConfig, url: str, number: int, fingerprint: str) -> list[str]:
    """Sentences about settings that have changed since the plan, except those that cannot change the result."""
    now: dict[str, Any] = {"dataset": url, "dataset_version": number, "fingerprint": fingerprint}
    old: dict[str, Any] = {name: getattr(before, name) for name in now}
    defaults = _defaults()
    for key, value in config.model_dump(mode="json").items():
        old[key], now[key] = before.asked.get(key, defaults[key]), value
    return [
        f"{key} was {_brief(old[key])} and is {_brief(now[key])}"
        for key in old
        if key not in _MAY_CHANGE and old[key] != now[key]
    ]


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
