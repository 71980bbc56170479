"""What can be set for `plantml detect`."""

from typing import Literal

from pydantic import Field

from plantml.settings import Config, Duration, MaxFailures

STDOUT = "-"


class DetectConfig(Config):
    """What can be set for `plantml detect`."""

    model: str | None = Field(None, description="run, bundle, exported file or REGISTRY/NAME@ALIAS to use")
    out: str = Field(STDOUT, description="URL of the output (.jsonl, .csv, .parquet), or - for JSON Lines on stdout")
    format: str | None = Field(
        None, description="jsonl, csv, parquet, coco or megadetector; by the output's extension if not set"
    )
    split: str | None = Field(None, description="of datasets among the sources: only this split")
    column: str | None = Field(None, description="of tables among the sources: the column of paths or URLs")
    since: str | None = Field(
        None, description="of folders and globs: only files changed since an age like 24h or 7d, or a date"
    )
    allow_root: tuple[str, ...] = Field(
        (), description="folders and URLs under which lists may name images, and links to folders may lead"
    )
    runtime: str = Field("auto", description="auto, onnxruntime, torch or openvino")
    device: str = Field("cpu", description="cpu, or a device as torch names it")
    batch: int | None = Field(
        None, ge=1, le=1024, description="images a call of the model; 8, or for long runs what is measured, if not set"
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="images worked on at once; all usable cores, or what is measured, if not set"
    )
    top_k: int = Field(5, ge=1, le=10_000, description="classes named for each class target, best first")
    tta: bool = Field(default=False, description="average over mirrored and turned forms; 4 or 8 times as slow")
    tile: int | None = Field(None, ge=16, le=65_536, description="also answer for each tile of so many pixels")
    overlap: float = Field(0.2, ge=0, le=0.9, description="share of a tile that its neighbour shows too")
    similar: str | None = Field(None, description="dataset whose most similar photos are added to each record")
    neighbours: int = Field(5, ge=1, le=100, description="similar photos named in each record")
    advice: str | None = Field(None, description="YAML of texts by target and label that are added to the records")
    where: str | None = Field(None, description="condition on records; only those that fit are written and drawn")
    embeddings: str | None = Field(None, description="URL of the images' embeddings, .parquet or .npy")
    sheet: str | None = Field(None, description="PNG of a contact sheet of the first images and their answers")
    annotate: str | None = Field(None, description="folder of the photos with their answers drawn under them")
    sort_into: str | None = Field(None, description="folder that gets a folder of photos for each label")
    sort_by: str | None = Field(None, description="class target that photos are sorted by; the first one if not set")
    sort_how: Literal["link", "copy"] = Field("link", description="link (local files) or copy sorted photos")
    max_failures: MaxFailures = Field(
        "0", description="failed images that still end well: a number, or a share like 2%"
    )
    retry_failed: bool = Field(default=False, description="look again at images that failed in an earlier run")
    changed_only: bool = Field(
        default=False, description="write only images that are new or changed since the output was last written"
    )
    journal: str | None = Field(None, description="URL of the journal's folder; beside the output if not set")
    shard: str | None = Field(None, description="do only part i of n, written i/n, for `--merge` to put together")
    watch: bool = Field(default=False, description="go on with files as they arrive, until stopped")
    interval: Duration = Field(5.0, description="seconds between two looks for new files")
