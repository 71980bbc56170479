"""How long to train: the usual number of epochs, or what fits into a time budget."""

import math
from dataclasses import dataclass

from plantml.train.config import Mode, Preset, Task, TrainConfig
from plantml.train.plan import Plan
from plantml.train.plan_inputs import PlanInputs, Speed

BUDGET_SHARE = 0.95
"""Share of a budget that is planned; the rest is a reserve for steps slower than measured."""

WARM_UP_PHOTOS = 20_000
"""Largest number of photos whose embeddings warm up the heads before the backbone is tuned."""

_VIEWS, _FEWEST_VIEWS, _ENOUGH, _EMBEDDINGS = 6, 3, 2_000, 120_000
"""Views per photo in a probe: at most and usually at least; their total from which no more are needed, and the largest
total, for which every photo still has one view, itself."""

_START_SECONDS, _FINISH_SECONDS = 10.0, 12.0
"""What every training takes before the first step, and for calibration, export and verification."""


@dataclass(frozen=True)
class Length:
    """Length of a training.

    Attributes:
        mode: `probe` where the budget is too short to tune the backbone.
        epochs: their number.
        epoch_photos: photos per epoch.
        reasons: of the values that were not set, by setting.
    """

    mode: Mode
    epochs: int
    epoch_photos: int
    reasons: dict[str, str]


def usual_epochs(photos: int, preset: Preset, mode: Mode, task: Task = "image") -> int:
    """Epochs without a budget: more for small datasets, 19 for 100 photos, 6 for 10,000, twice for boxes."""
    if task != "image":
        epochs = min(60, max(8, round(120 / math.sqrt(math.sqrt(photos)))))
        return max(3, round(epochs * {"quick": 0.5, "balanced": 1, "best": 2}[preset])) * (2 if mode == "full" else 1)
    if mode == "probe":
        return 60  # over embeddings: all of them take seconds
    usual = min(30, max(4, round(60 / math.sqrt(math.sqrt(photos)))))
    return usual * (2 if preset == "best" else 1) * (2 if mode == "full" else 1)


def length(config: TrainConfig, inputs: PlanInputs, mode: Mode, *, batch: int, step: float, task: Task) -> Length:
    """The length of a training with steps of `batch` photos and `step` seconds."""
    photos, val, speed = inputs.train_photos, inputs.dataset.usable("val").height, inputs.speed
    usual = usual_epochs(photos, config.preset, mode, task)
    if config.epochs != "auto":
        return Length(mode, config.epochs, photos, {})
    if not config.budget or not speed or mode == "probe":
        return Length(mode, usual, photos, {"epochs": f"for {photos} photos, preset {config.preset}"})
    available = BUDGET_SHARE * config.budget - _overhead(photos, val, mode, speed)
    evaluation, steps = val * speed.embed, math.ceil(photos / batch)
    affordable = int(available / (steps * step + evaluation))
    if affordable >= 3:
        why = f"as many as fit the budget, at most {3 * usual}"
        return Length(mode, min(affordable, 3 * usual), photos, {"epochs": why})
    part = int(batch * (available / 3 - evaluation) / step) // batch * batch if step else photos
    # Less than one pass over a small dataset teaches a backbone less than the whole dataset teaches the heads.
    if part >= 4 * batch and (3 * part >= min(photos, 2000) or config.mode != "auto"):
        why = f"the budget allows 3 epochs of {part} of {photos} photos"
        return Length(mode, 3, part, {"epoch_photos": why, "epochs": why})
    if config.mode == "auto" and mode == "finetune" and task == "image":
        reasons = {"mode": "the budget is too short to tune the backbone", "epochs": "over embeddings, which is fast"}
        return Length("probe", usual_epochs(photos, config.preset, "probe"), photos, reasons)
    return Length(mode, 1, min(photos, 4 * batch), {"epochs": "the budget is too short for more"})


def suffices(config: TrainConfig, inputs: PlanInputs, mode: Mode, *, batch: int, step: float) -> bool:
    """True if a budget is long enough for the usual training of whole photos; false without a budget."""
    photos, val, speed = inputs.train_photos, inputs.dataset.usable("val").height, inputs.speed
    if not config.budget or not speed:
        return False
    epochs = usual_epochs(photos, config.preset, mode) if config.epochs == "auto" else config.epochs
    epoch = 0.0 if mode == "probe" else math.ceil(photos / batch) * step + val * speed.embed
    needed = _overhead(photos, val, mode, speed, _usual_views(photos)) + epochs * epoch
    return needed <= BUDGET_SHARE * config.budget


def views(config: TrainConfig, inputs: PlanInputs, augment: float) -> tuple[int, str]:
    """Views per photo in a probe and the reason: fewer for large datasets and short budgets."""
    if not augment:
        return 1, "photos are not augmented"
    photos, val = inputs.train_photos, inputs.dataset.usable("val").height
    number = _usual_views(photos)
    why = "more views add little" if number == _VIEWS else f"{photos} photos are enough"
    if config.budget and inputs.speed:
        available = BUDGET_SHARE * config.budget - _overhead(photos, val, "probe", inputs.speed)
        affordable = int(available / max(1e-9, photos * inputs.speed.embed))
        if affordable < number:
            return max(1, affordable), "as many as fit the budget"
    return number, why


def _usual_views(photos: int) -> int:
    number = min(_VIEWS, max(_FEWEST_VIEWS, math.ceil(_ENOUGH / photos)))
    return max(1, min(number, _EMBEDDINGS // photos))


def expected_seconds(plan: Plan, speed: Speed | None) -> dict[str, float]:
    """`seconds` and `other_seconds` of a plan; 0 if the speed was not measured."""
    if speed is None:
        return {"seconds": 0.0, "other_seconds": 0.0}
    overhead = _overhead(plan.train_photos + plan.unlabelled_photos, plan.val_photos, plan.mode, speed, plan.views)
    epoch = plan.epoch_steps * plan.step_seconds + plan.val_photos * speed.embed
    epochs = 0.0 if plan.mode == "probe" else plan.epochs * epoch
    return {"seconds": round(overhead + epochs), "other_seconds": round(overhead, 1)}


def _overhead(train: int, val: int, mode: Mode, speed: Speed, views: int = 0) -> float:
    """Seconds outside the epochs, with `views` views per photo in a probe."""
    before = {"probe": views * train + val, "finetune": min(train, WARM_UP_PHOTOS), "full": 0}[mode]
    embedded = before + 4 * val + min(train, 1000)
    return _START_SECONDS + _FINISH_SECONDS + speed.decode * (train + val) + speed.embed * embedded
