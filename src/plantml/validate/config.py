"""Settings of `plantml validate`."""

from pydantic import Field

from plantml.metrics.bootstrap import RESAMPLES, SEED
from plantml.settings import Config, MaxFailures, Seed


class ValidateConfig(Config):
    """Settings of `plantml validate`."""

    model: str | None = Field(None, description="run, bundle, exported file or REGISTRY/NAME@ALIAS to validate")
    against: str | None = Field(None, description="another model to compare with, on the same photos")
    split: str = Field("test", description="split to validate on: train, val, test, or all")
    where: str | None = Field(None, description="only photos that match this condition")
    map: str | None = Field(None, description="CSV file that renames classes of the dataset: target,from,to")
    shared_classes: bool = Field(False, description="leave out photos whose class the model does not know")
    out: str | None = Field(None, description="URL of a folder for metrics.json, predictions and plots")
    report: str | None = Field(None, description="URL of the HTML report, a single file")
    markdown: str | None = Field(None, description="URL of a summary in Markdown")
    junit: str | None = Field(None, description="URL of the gates as JUnit XML")
    review: int = Field(0, ge=0, le=100_000, description="photos to label next, written to OUT/review")
    robustness: bool = Field(False, description="score perturbed photos too: blur, noise, brightness and others")
    robustness_photos: int = Field(500, ge=1, le=1_000_000, description="maximum number of photos to perturb")
    runtime: str = Field("auto", description="onnxruntime, torch, openvino, or auto")
    device: str = Field("cpu", description="cpu, or a torch device such as cuda:0")
    batch: int = Field(8, ge=1, le=1024, description="batch size")
    fresh: bool = Field(False, description="ignore cached predictions")
    max_failures: MaxFailures = Field(
        "0", description="failures tolerated before the exit code is 5: a number, or a percentage"
    )
    min: tuple[str, ...] = Field((), description="gates NAME=NUMBER: the score must be at least this")
    max: tuple[str, ...] = Field((), description="gates NAME=NUMBER: the score must be at most this")
    max_drop: float | None = Field(
        None,
        ge=0,
        le=1,
        description="gate: the largest allowed drop of macro-F1, and of each class's F1, against the other model",
    )
    resamples: int = Field(RESAMPLES, ge=100, le=100_000, description="bootstrap resamples, over groups")
    seed: Seed = Field(SEED, description="random seed of the bootstrap and of sampling")
