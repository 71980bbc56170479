"""The plan of learning normal photos: no epochs and no learning rate, but a budget of parts of photos to keep."""

import polars as pl

from plantml.data import normality
from plantml.errors import InputError
from plantml.imaging import Fit, FitMode
from plantml.model.contract import ANOMALY
from plantml.train.config import TrainConfig
from plantml.train.plan import FIXED, Plan, versions
from plantml.train.plan_inputs import PlanInputs, Speed
from plantml.train.selection import Selection
from plantml.train.weights import DEFAULT

BATCH = 16
"""Photos whose features are computed at a time."""

_SIZE = {"quick": 224, "balanced": 256, "best": 384}
"""Height and width of the input by preset: more pixels make the heat map finer, and the score no better."""

_START_SECONDS, _FINISH_SECONDS = 10.0, 15.0
"""Before the first photo; and to export and verify the model."""

_BUDGET_SHARE = 0.95


def plan(config: TrainConfig, inputs: PlanInputs) -> Plan:
    """Plan the training of a model of anomalies.

    Raises:
        InputError: there are no normal photos to learn from, or to set the threshold with; or a setting is of
            another task.
    """
    dataset = inputs.dataset
    _check_settings(config)
    train, val = dataset.usable("train"), dataset.usable("val")
    normal_val = int((normality.labels(dataset, dataset.normal).filter(_is_usable(dataset, "val")) == "normal").sum())
    _check_splits(dataset, train.height, normal_val)
    reasons = {
        "epochs": "nothing is learnt by gradient steps: one look at each photo",
        "photos": f"normal are photos with {dataset.normal}; {normal_val} of the validation photos set the threshold",
    }
    if config.anomaly.normal == "auto":
        reasons["normal"] = normality.of_dataset(dataset)[1]
    by, why = normality.differing_by(dataset, train, config.anomaly.by, dataset.normal)
    if why:
        reasons["by"] = why
    size = config.size
    if size == "auto":
        size = _SIZE[config.preset]
        reasons["size"] = f"preset {config.preset}: more pixels make the heat map finer, and the score no better"
    size = -(-size // 32) * 32
    fit, reasons["fit"] = _fit(train) if config.fit == "auto" else (config.fit, "setting")
    device: str = config.device
    if device == "auto":
        device, reasons["device"] = inputs.hardware.device, "the best one on this machine"
    backbone = config.backbone
    if backbone == "auto":
        backbone, reasons["backbone"] = DEFAULT, "its weights are installed, and it is fast on every CPU"
    photos = train.height
    if config.budget and inputs.speed:
        affordable = _affordable(config.budget, val.height, inputs.speed)
        if affordable < photos:
            photos, reasons["epoch_photos"] = affordable, "as many as fit the budget"
    draft = Plan(
        **{key: getattr(config, key) for key in FIXED},
        dataset=dataset.url,
        dataset_version=dataset.number,
        fingerprint=dataset.fingerprint,
        asked=config.model_dump(mode="json"),
        reasons=reasons,
        preset=config.preset,
        budget=config.budget,
        task="anomaly",
        mode="probe",
        normal=dataset.normal,
        by=by,
        targets=(ANOMALY,),
        train_photos=train.height,
        val_photos=val.height,
        backbone=backbone,
        parent="",
        input=Fit(size, size, fit),
        epochs=1,
        patience=1,
        epoch_photos=photos,
        batch_size=BATCH if config.batch_size == "auto" else config.batch_size,
        lr=0.0,
        backbone_lr=0.0,
        layer_decay=1.0,
        ema=0.0,
        mixup=0.0,
        augment=0.0,
        views=1,
        balance="off",
        class_weights={},
        class_logits={},
        precision="32",
        workers=0,
        device=device,
        step_seconds=0.0,
        seconds=0.0,
        versions=versions(),
    )
    if inputs.speed is None:
        return draft
    return draft.model_copy(update={"seconds": round(_seconds(photos, val.height, inputs.speed))})


def _is_usable(dataset: Selection, split: str) -> pl.Series:
    return dataset.rows.select((pl.col("status") == "ok") & (pl.col("split") == split)).to_series()


def _check_settings(config: TrainConfig) -> None:
    others = {
        "from": config.warm_start,
        "unlabelled": config.unlabelled,
        "covariates": config.covariates,
        "targets": config.targets,
        "tile": config.tile not in {"auto", 0},
        "background": config.background,
        "devices": config.devices * config.nodes > 1,
        "forms int8": "int8" in config.forms,  # whose export would be refused after the training
    }
    for name, is_set in others.items():
        if is_set:
            raise InputError(
                f"--{name} is not for the task anomaly",
                "it learns from normal photos with a frozen backbone, in one process",
                "Leave it out.",
            )


def _check_splits(dataset: Selection, train: int, val: int) -> None:
    if train and val:
        return
    split = "" if dataset.usable()["split"].is_null().all() else " --resplit"
    raise InputError(
        f"{dataset.ref} has no photos with {dataset.normal} in its {'val' if train else 'train'} split",
        "it learns from normal photos, and others set its threshold",
        f"Split it: plantml dataset split {dataset.url}{split}; or name others: --set anomaly.normal=TARGET=CLASS",
    )


def _fit(train: pl.DataFrame) -> tuple[FitMode, str]:
    sides = train.select(long=pl.max_horizontal("width", "height"), short=pl.min_horizontal("width", "height"))
    square = sides.filter(pl.col("short") > 0).select(((pl.col("long") / pl.col("short")) < 1.1).mean()).item()
    if square and square > 0.95:
        return "squash", "nearly all photos are square"
    return "pad", "keeps every pixel and the aspect ratio"


def _affordable(budget: float, val: int, speed: Speed) -> int:
    """Training photos that fit a budget; a few at least."""
    rest = _BUDGET_SHARE * budget - _seconds(0, val, speed)
    return max(8, int(rest / max(1e-9, speed.decode + speed.embed)))


def _seconds(train: int, val: int, speed: Speed) -> float:
    # Validation photos are looked at three times: for the threshold, and by both sides of the proof.
    return _START_SECONDS + _FINISH_SECONDS + (train + val) * speed.decode + (train + 3 * val) * speed.embed
