"""Settings of `plantml train`."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from plantml.settings import Config, Duration, Seed, option

Auto = Literal["auto"]
Task = Literal["image", "boxes", "tray", "anomaly"]
Mode = Literal["probe", "finetune", "full"]
Preset = Literal["quick", "balanced", "best"]
Balance = Literal["off", "weights", "logits", "sampling"]
Precision = Literal["32", "bf16"]


class AnomalyConfig(Config):
    """What is learnt of normal photos, with the task anomaly."""

    normal: str = Field("auto", description="Normal photos, as TARGET=CLASS; auto is health=healthy, or disease=none.")
    by: str = Field(
        "auto",
        description="Class target by which normal photos differ: a photo is compared with those of the nearest class;"
        " auto is category where there are several, off none.",
    )
    levels: tuple[Annotated[int, Field(ge=2, le=32)], ...] = Field(
        (16, 32), description="Strides of the backbone's maps whose features are compared.", min_length=1
    )
    cells: int = Field(
        2000,
        ge=16,
        le=100_000,
        description="Cells of normal photos to keep for the heat map; they bound the size of the model.",
    )


class FixedSettings(Config):
    """Settings that do not depend on the data or the machine; a plan copies them."""

    where: str = option("", "Use only photos that match a condition on columns.", metavar="CONDITION")
    pretrained: bool = Field(default=True, description="Start from pretrained weights.")
    weights: str = option(
        "", "Pretrained weights of the backbone: .safetensors or a torch state dict, as a file or URL, or hf-hub:NAME.",
        metavar="WEIGHTS", shown="timm's",
    )  # fmt: skip
    warm_start: str = option(
        "", "Start from the weights of a run, a bundle or REGISTRY/NAME@ALIAS; classes are joined by name.",
        flag="from", metavar="MODEL",
    )  # fmt: skip
    unlabelled: str = option("", "Also learn from the photos of this dataset, ignoring its labels.", metavar="DATASET")
    pseudo_threshold: float = Field(
        0.6, ge=0, le=1, description="Score from which an unlabelled photo gets the label of its neighbours, or a box."
    )
    without_photo: bool = Field(
        default=True, description="Also learn from rows without a photo what their columns say; only with covariates."
    )
    weight_decay: float = Field(0.02, ge=0, le=10, description="Weight decay of AdamW.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of steps in which the learning rate rises.")
    clip: float = Field(1.0, gt=0, le=1e6, description="Maximum gradient norm; 1e6 never clips.")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="Label smoothing of class targets.")
    background: float = option(
        0.0, "Share of augmented photos with random colours around the plants, which are told by colour.", ge=0, le=1
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout on the embedding before the heads.")
    drop_path: float = Field(0.1, ge=0, lt=1, description="Stochastic depth of the backbone.")
    mosaic: float = Field(0.5, ge=0, le=1, description="Share of pictures joined from four photos; boxes only.")
    cutmix: float = Field(
        0.0, ge=0, le=100, description="Alpha of CutMix; 0 disables it, because small symptoms get cut off."
    )
    combinations: Literal["any", "seen"] = Field(
        "any", description="seen: predict only combinations of classes that occur in the training photos."
    )
    target_risk: float = option(0.05, "Error rate to keep among accepted predictions.", gt=0, lt=1)
    false_alarms: float = option(
        0.01, "Share of normal photos that may be called anomalous, with --task anomaly.", gt=0, lt=1
    )
    anomaly: AnomalyConfig = Field(
        AnomalyConfig.model_validate({}), description="What is learnt of normal photos, with --task anomaly."
    )
    compile: bool = Field(default=False, description="Compile the backbone with torch.compile; needs a C++ compiler.")
    devices: int = option(1, "GPUs, or CPU processes, per machine.", ge=1, le=1024)
    nodes: int = option(1, "Number of machines.", ge=1, le=1024)
    strategy: Literal["auto", "ddp"] = option("auto", "Lightning strategy for several devices.")
    checkpoint_every: Duration = option(
        300.0, "Longest time between checkpoints; one is also written after every epoch.", metavar="TIME", shown="5m",
        validate_default=False,
    )  # fmt: skip
    logger: tuple[Literal["tensorboard", "mlflow"], ...] = option(
        (), "Loggers besides history.csv: tensorboard, mlflow, or both.", metavar="A,B"
    )
    tracking_uri: str = option("", "MLflow tracking URI.", metavar="URI")
    folds: Literal[0] | Annotated[int, Field(ge=2, le=100)] = option(
        0, "Cross-validate with N models instead of training one.", metavar="N", shown="none"
    )
    fold: int = Field(0, ge=0, le=100, description="Number of this run's fold; set by `plantml train --folds`.")
    seed: Seed = option(0, "Random seed.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fold > self.folds:
            raise ValueError(f"there is no fold {self.fold} of {self.folds} folds")
        if self.unlabelled and not self.pretrained and not self.warm_start:
            raise ValueError("unlabelled photos need a backbone that sees what is alike: leave out pretrained=false")
        if self.unlabelled and self.devices * self.nodes > 1:
            raise ValueError("unlabelled photos are learnt from on one device: leave out devices and nodes")
        if self.weights and (self.warm_start or not self.pretrained):
            other = "from" if self.warm_start else "pretrained=false"
            raise ValueError(f"weights and {other} exclude each other: a backbone starts from one of them")
        return self


class TrainConfig(FixedSettings):
    """Settings of `plantml train`. `auto` is resolved by `planner.plan`, from the data and the machine."""

    preset: Preset = option(
        "balanced", "quick trains heads on a frozen backbone; best uses larger photos and twice the epochs."
    )
    budget: Duration | None = option(None, "Wall-clock budget of the training, such as 20m or 8h.", metavar="TIME")
    task: Task | Auto = option(
        "auto",
        "What to learn: image (whole photos), boxes (plants in them), tray (plants, then a crop of each), or anomaly"
        " (what is unlike healthy plants).",
    )
    tile: Literal[0] | Annotated[int, Field(ge=64, le=65_536)] | Auto = option(
        "auto", "Train boxes on overlapping tiles of N pixels of large photos; 0 uses whole photos.", metavar="N"
    )
    targets: tuple[str, ...] = option((), "Targets to predict.", metavar="A,B", shown="all of the dataset")
    covariates: tuple[str, ...] = option(
        (), "Columns of measurements that the model uses along with the photo, as NAME or NAME:KIND; number or class.",
        metavar="A,B", shown="none",
    )  # fmt: skip
    mode: Mode | Auto = Field(
        "auto", description="Training mode: probe (frozen backbone), finetune (heads first) or full (all at once)."
    )
    backbone: str = option("auto", "Name of a timm model; auto is tf_efficientnet_lite0.")
    size: Annotated[int, Field(ge=32, le=1024)] | Auto = option("auto", "Input height and width, in pixels.")
    fit: Literal["pad", "crop", "squash"] | Auto = Field(
        "auto", description="How photos are fitted to the input size: pad, crop or squash."
    )
    epochs: Annotated[int, Field(ge=1, le=100_000)] | Auto = option("auto", "Number of epochs.")
    patience: Annotated[int, Field(ge=1, le=100_000)] | Auto = Field(
        "auto", description="Epochs without improvement before training stops early."
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Auto = option("auto", "Batch size over all devices.")
    lr: Annotated[float, Field(gt=0, le=10)] | Auto = Field(
        "auto", description="Peak learning rate of the heads, with AdamW."
    )
    backbone_lr: Annotated[float, Field(gt=0, le=10)] | Auto = Field(
        "auto", description="Peak learning rate of the backbone's last layers."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto", description="Learning-rate factor from each backbone stage to the one before it."
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto", description="Decay per step of the moving average of the weights; 0 disables it."
    )
    mixup: Annotated[float, Field(ge=0, le=100)] | Auto = Field("auto", description="Alpha of mixup; 0 disables it.")
    augment: Annotated[float, Field(ge=0, le=2)] | Auto = Field(
        "auto", description="Strength of augmentation; 0 only resizes, 2 is too strong for most datasets."
    )
    views: Annotated[int, Field(ge=1, le=1000)] | Auto = Field(
        "auto", description="Views per photo for a probe: itself, then augmented ones."
    )
    balance: Balance | Auto = Field(
        "auto",
        description="Class balancing: off, weights (effective number), logits (logit adjustment) or sampling.",
    )
    precision: Annotated[Precision | Auto, BeforeValidator(str)] = Field(  # in YAML 32 is a number
        "auto", description="Numeric precision: 32 or bf16."
    )
    workers: Annotated[int, Field(ge=0, le=256)] | Auto = Field(
        "auto", description="Augmentation worker processes; 0 augments in the training process."
    )
    device: Literal["cpu", "cuda", "mps"] | Auto = option("auto", "Device: cpu, cuda, mps or auto.")
    withhold: Literal["learned", "never"] = Field(
        "learned",
        description="Boxes without some targets, such as empty cells without a species: learned where training boxes"
        " of a class never have them, or never.",
    )
    forms: tuple[Literal["int8", "bfloat16"], ...] = option(
        (), "Forms to add to the bundle, for --speed: int8, bfloat16, or both.", metavar="A,B"
    )
