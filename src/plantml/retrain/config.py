"""Settings of `plantml retrain`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from plantml import storage
from plantml.settings import Config, Duration, Seed, option
from plantml.train.config import TrainConfig

Url = Annotated[str, AfterValidator(storage.absolute)]
"""Relative paths are resolved once, so that a round resumed in another directory uses the same place."""


class Feed(Config):
    """A source of new labelled photos, with the settings of `plantml dataset add`."""

    source: Url = Field(description="URL of a folder, an archive or a list of photos.")
    format: str = Field("auto", description="Format of the source; auto detects it.")
    labels: str = Field("auto", description="Rule for reading class names.")
    taxonomy: Url | None = Field(None, description="URL of a YAML file that maps class names to labels.")
    targets: tuple[str, ...] = Field((), description="Columns of the list to predict.")
    image_column: str | None = Field(None, description="Column of the list that holds photos.")
    group_column: str | None = Field(None, description="Column of the list whose groups a split keeps together.")
    reference: bool = Field(default=False, description="Reference photos in place; copy nothing.")
    allow_root: tuple[Url, ...] = Field((), description="More folders and URLs from which the source may name photos.")
    new_classes: bool = Field(default=False, description="Allow classes that are new to the dataset.")


class DriftConfig(Config):
    """Settings of the `--on-drift` trigger."""

    records: Url | None = Field(None, description="URL of recent records of detect: .jsonl, .parquet or .csv.")
    embeddings: Url | None = Field(None, description="URL of their embeddings, from detect --embeddings.")
    max_psi: float = Field(0.2, ge=0, le=1000, description="Report drift if a significant stability index is larger.")
    min_p: float = Field(0.01, ge=0, le=1, description="Report drift if the p-value of the embeddings is smaller.")


class GateConfig(Config):
    """What a challenger must reach."""

    min: tuple[str, ...] = Field((), description="Gates METRIC=NUMBER on all test photos: lower bounds.")
    max: tuple[str, ...] = Field((), description="Gates METRIC=NUMBER on all test photos: upper bounds.")
    max_drop: float = Field(
        0.05, ge=0, le=1, description="Largest drop of macro-F1, or of a class's F1, below the model in service."
    )
    sure: float = Field(
        0.5, ge=0, lt=1,
        description="Share of bootstrap resamples in which the challenger must be better; 0 requires no gain.",
    )  # fmt: skip


class RetrainConfig(Config):
    """Settings of `plantml retrain`."""

    dataset: Url = Field(description="URL of the dataset that grows.")
    model: Url = Field(description="URL of the model in its registry, such as s3://bucket/models/leaf.")
    work: Url = Field(description="URL of a separate folder for the results of all steps, reports and the lease.")
    feeds: tuple[Feed, ...] = Field((), description="Sources of new labelled photos.")
    min_new: int = option(
        0, "Trigger: at least N new or corrected photos.", metavar="N", shown="any new photo", ge=0, le=10**9
    )
    every: Duration | None = option(None, "Trigger: time since the last round, such as 7d or 12h.", metavar="TIME")
    on_drift: bool = option(default=False, description="Trigger: detections have drifted from the training photos.")
    drift: DriftConfig = Field(DriftConfig.model_validate({}), description="Settings of the drift trigger.")
    clean: str = Field("error", description="Finding codes fixed in new photos, as for dataset clean; empty: none.")
    ratios: str = Field("0.7/0.15/0.15", description="Shares of train, val and test; new photos use train and val.")
    group_by: str | None = Field(None, description="Column or regex that defines groups, as for dataset split.")
    recent: float = Field(0.15, ge=0, lt=1, description="Share of new groups reserved for the recent test set.")
    recent_rounds: int = Field(3, ge=1, le=10_000, description="Number of rounds in the recent test set.")
    start: Literal["fresh", "warm"] = Field("fresh", description="Initial weights; warm uses the model in service.")
    train: TrainConfig = Field(TrainConfig.model_validate({}), description="Settings of plantml train.")
    gates: GateConfig = Field(GateConfig.model_validate({}), description="What a challenger must reach.")
    alias: str = Field("production", description="Alias of the version in service.")
    challenger: str = Field("challenger", description="Alias of the newest challenger.")
    refused: Literal["keep", "review"] = Field(
        "keep", description="What to do with a refused challenger's new photos; review sets them aside."
    )
    lease: Duration = Field(1800.0, description="Time without a sign of life after which another machine takes over.")
    by: str | None = Field(None, description="Author in the registry's history; by default user and machine.")
    on_result: str | None = option(None, "Run a command with the result as JSON on its stdin.", metavar="COMMAND")
    seed: Seed = Field(0, description="Random seed of the splits and the bootstrap; training uses train.seed.")
