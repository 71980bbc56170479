"""What can be set for `plantml retrain`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from plantml import storage
from plantml.curate import clean as cleaning
from plantml.data import splits
from plantml.errors import UsageError
from plantml.registry import ledger, operations
from plantml.settings import Config, Duration, Seed
from plantml.train.config import TrainConfig
from plantml.validate import gates

Url = Annotated[str, AfterValidator(storage.absolute)]
"""A relative path is taken from the working directory, once: a round that goes on elsewhere means the same place."""


class Feed(Config):
    """Where new labelled photos come from. The settings are those of `plantml dataset add`."""

    source: Url = Field(description="URL of a folder, an archive or a list of photos")
    format: str = Field("auto", description="of the source; auto tells it from the content")
    labels: str = Field("auto", description="how class names are read")
    taxonomy: Url | None = Field(None, description="URL of a file that says what each class name means")
    targets: tuple[str, ...] = Field((), description="a list's columns to predict")
    image_column: str | None = Field(None, description="a list's column of photos")
    group_column: str | None = Field(None, description="a list's column of what a split must keep together")
    reference: bool = Field(default=False, description="leave photos where they are")
    allow_root: tuple[Url, ...] = Field(
        (), description="folders and URLs under which the source may name photos, beside what lies around it"
    )
    new_classes: bool = Field(default=False, description="allow classes that the dataset does not have")


class DriftConfig(Config):
    """What `--on-drift` looks at."""

    records: Url | None = Field(None, description="URL of what detect wrote lately: .jsonl, .parquet or .csv")
    embeddings: Url | None = Field(None, description="URL of their embeddings, as detect --embeddings writes them")
    max_psi: float = Field(0.2, ge=0, le=1000, description="an index above this, and not by chance, is drift")
    min_p: float = Field(0.01, ge=0, le=1, description="embeddings with a p-value below this are drift")


class GateConfig(Config):
    """When a challenger is good enough."""

    min: tuple[str, ...] = Field((), description="gates NAME=NUMBER on all test photos: at least this")
    max: tuple[str, ...] = Field((), description="gates NAME=NUMBER on all test photos: at most this")
    max_drop: float = Field(
        0.05, ge=0, le=1, description="macro-F1, or the F1 of a class, may be so much lower than in service"
    )
    sure: float = Field(
        0.5, ge=0, lt=1, description="the challenger is better in more than this share of resamples; 0 asks for no gain"
    )


class RetrainConfig(Config):
    """What can be set for `plantml retrain`."""

    dataset: Url = Field(description="URL of the dataset that grows")
    model: Url = Field(description="URL of the model in its registry, such as s3://bucket/models/leaf")
    work: Url = Field(description="URL of a folder of its own: results of all steps, reports, the lease")
    feeds: tuple[Feed, ...] = Field((), description="where new labelled photos come from")
    min_new: int = Field(0, ge=0, le=10**9, description="trigger: so many new or corrected photos")
    every: Duration | None = Field(None, description="trigger: so long after the last round, such as 7d")
    on_drift: bool = Field(default=False, description="trigger: what is detected drifts away from the training photos")
    drift: DriftConfig = Field(DriftConfig.model_validate({}), description="what drift is looked for in")
    clean: str = Field("error", description="codes that are put right in new photos, as of dataset clean; empty: none")
    ratios: str = Field("0.7/0.15/0.15", description="shares of train, val and test; of new photos of train and val")
    group_by: str | None = Field(None, description="column or expression that tells groups, as of dataset split")
    recent: float = Field(0.15, ge=0, lt=1, description="share of new groups that are kept for the recent test set")
    recent_rounds: int = Field(3, ge=1, le=10_000, description="rounds whose test photos are the recent test set")
    start: Literal["fresh", "warm"] = Field("fresh", description="warm starts from the weights that are in service")
    train: TrainConfig = Field(TrainConfig.model_validate({}), description="of the challenger, as of plantml train")
    gates: GateConfig = Field(GateConfig.model_validate({}), description="when the challenger is good enough")
    alias: str = Field("production", description="what the version in service is called")
    challenger: str = Field("challenger", description="what the newest challenger is called")
    refused: Literal["keep", "review"] = Field(
        "keep", description="review sets the round's photos aside if their challenger is worse"
    )
    lease: Duration = Field(1800.0, description="a machine that is silent for so long has lost its work to others")
    on_result: str | None = Field(None, description="command that is called with the result as JSON on its input")
    seed: Seed = Field(0, description="of the splits and the bootstrap; train.seed is that of the training")


def check(config: RetrainConfig) -> None:
    """Raise `UsageError` for what cannot work together, before anything is done."""
    places = {name: storage.absolute(getattr(config, name)) for name in ("dataset", "model", "work")}
    for name, url in places.items():
        for other, outer in places.items():
            if name != other and (url == outer or url.startswith(f"{outer}/")):
                raise UsageError(
                    f"{name} {url} lies inside {other}", "each needs a folder of its own", "Choose another place."
                )
    _check_names(config)
    if config.on_drift and not config.drift.records:
        raise UsageError("on_drift has nothing to look at", "", "Name what detect wrote: drift.records: URL")
    if config.train.devices * config.train.nodes > 1:
        raise UsageError("A retraining uses one device", "", "Leave train.devices and train.nodes away.")
    asked = config.train.folds or config.train.warm_start or config.train.where
    if asked:
        raise UsageError(
            "train.folds, train.warm_start and train.where are not for retraining",
            "the loop decides what is trained on, and where it starts",
            "Leave them away; start: warm starts from the weights in service.",
        )


def _check_names(config: RetrainConfig) -> None:
    """What a step would refuse hours later."""
    for alias in (config.alias, config.challenger):
        ledger.check_alias(alias)
    if config.alias == config.challenger:
        raise UsageError(
            f"alias and challenger are both {config.alias!r}", "what was refused would be in service",
            "Choose another name for one of them.",
        )  # fmt: skip
    if operations.is_guarded(config.challenger):
        what = f"challenger cannot be called {config.challenger!r}"
        raise UsageError(what, "what is called so has passed its gates", "Choose another name.")
    if config.clean:
        cleaning.codes(config.clean)
    splits.parse_ratios(config.ratios)
    for kind in ("min", "max"):
        gates.parse(kind, getattr(config.gates, kind))
