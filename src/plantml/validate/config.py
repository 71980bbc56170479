"""What can be set for `plantml validate`."""

from pydantic import Field

from plantml.metrics.bootstrap import RESAMPLES, SEED
from plantml.settings import Config, MaxFailures, Seed


class ValidateConfig(Config):
    """What can be set for `plantml validate`."""

    model: str | None = Field(None, description="run, bundle, exported file or REGISTRY/NAME@ALIAS to judge")
    against: str | None = Field(None, description="another model, judged on the same photos")
    split: str = Field("test", description="split to judge on: train, val, test, or all")
    where: str | None = Field(None, description="only photos for which this condition holds")
    map: str | None = Field(None, description="CSV file that renames classes of the dataset: target,from,to")
    shared_classes: bool = Field(False, description="leave out photos whose class the model does not know")
    out: str | None = Field(None, description="URL of a folder for metrics.json, predictions and plots")
    report: str | None = Field(None, description="URL of a report, one HTML file")
    markdown: str | None = Field(None, description="URL of a summary in Markdown")
    junit: str | None = Field(None, description="URL of the gates as JUnit XML")
    review: int = Field(0, ge=0, le=100_000, description="photos to label next, written to OUT/review")
    robustness: bool = Field(False, description="judge on changed photos too: blur, noise, light and the like")
    robustness_photos: int = Field(500, ge=1, le=1_000_000, description="photos at most that are changed")
    runtime: str = Field("auto", description="what runs it, such as onnxruntime or torch; auto chooses")
    device: str = Field("cpu", description="cpu, or a device as torch names it")
    batch: int = Field(8, ge=1, le=1024, description="images a call of the model")
    fresh: bool = Field(False, description="predict again what an earlier validation predicted")
    max_failures: MaxFailures = Field("0", description="unreadable photos that still end well: a number, or a share")
    min: tuple[str, ...] = Field((), description="gates NAME=NUMBER: the score must be at least this")
    max: tuple[str, ...] = Field((), description="gates NAME=NUMBER: the score must be at most this")
    max_drop: float | None = Field(
        None, ge=0, le=1, description="gate: macro-F1, or a class's F1, may be so much lower than the other model's"
    )
    resamples: int = Field(RESAMPLES, ge=100, le=100_000, description="of the bootstrap over groups")
    seed: Seed = Field(SEED, description="of the bootstrap and of the choice of photos")
