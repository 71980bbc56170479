"""Settings of `plantml validate`."""

from pydantic import Field

from plantml.settings import ON, RESAMPLES, Config, MaxFailures, Seed, Speed, Tile, option


class ValidateConfig(Config):
    """Settings of `plantml validate`."""

    model: str | None = option(
        None, "Model to validate: a run, a bundle, an exported file or REGISTRY/NAME@N.", metavar="MODEL"
    )
    against: str | None = option(None, "Compare with another model on the same photos.", metavar="MODEL")
    split: str = option("test", "Split to validate on: train, val, test or all.")
    where: str | None = option(None, "Use only photos that match a condition on columns.", metavar="CONDITION")
    map: str | None = option(None, "Rename classes of the dataset by a CSV file: [target,]from,to.", metavar="FILE")
    shared_classes: bool = option(default=False, description="Leave out photos whose class the model does not know.")
    out: str | None = option(None, "Folder for metrics.json, predictions and charts.", metavar="DIR")
    report: str | None = option(None, "Write a report as one HTML file.", metavar="FILE")
    markdown: str | None = option(None, "Write a summary in Markdown.", metavar="FILE")
    junit: str | None = option(None, "Write the gates as JUnit XML.", metavar="FILE")
    review: int = option(
        0, "Select N photos to label next and write them to OUT/review as Label Studio tasks.",
        metavar="N", shown="none", ge=0, le=100_000,
    )  # fmt: skip
    robustness: bool = option(
        default=False, description="Also validate on perturbed photos: blur, noise, brightness and more."
    )
    robustness_photos: int = Field(500, ge=1, le=1_000_000, description="Maximum number of photos to perturb.")
    min: tuple[str, ...] = option((), "Gate: exit code 4 if the metric is lower. Repeatable.", metavar="METRIC=NUMBER")
    max: tuple[str, ...] = option((), "Gate: exit code 4 if the metric is higher. Repeatable.", metavar="METRIC=NUMBER")
    max_drop: float | None = option(
        None, "Gate: exit code 4 if macro-F1 (or boxes' AP) or any class's F1 drops by more than this below --against.",
        metavar="NUMBER", ge=0, le=1,
    )  # fmt: skip
    max_failures: MaxFailures = option(
        "0", "Failures tolerated before the exit code is 5, as a number or a share.", metavar="N|N%"
    )
    tile: Tile = option(
        None, "Find boxes on tiles of this size, in pixels; 0 uses whole photos only.",
        metavar="PIXELS", shown="those that the model was trained on",
    )  # fmt: skip
    batch: int = option(8, "Batch size.", ge=1, le=1024)
    runtime: str = option("auto", "Runtime: auto, onnxruntime, torch or openvino.")
    device: str = option("cpu", "Device: cpu, or a torch device name.")
    engine: str | None = option(None, ON, flag="on", metavar="ENGINE", shown="this process")
    speed: Speed = option(
        "exact", "Form of the network: float32 (exact), the fastest proven one (auto), or the named one."
    )
    fresh: bool = option(default=False, description="Ignore cached predictions of earlier validations.")
    resamples: int = Field(RESAMPLES, ge=100, le=100_000, description="Bootstrap resamples over groups.")
    seed: Seed = Field(0, description="Random seed of the bootstrap and of photo sampling.")
