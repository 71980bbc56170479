"""Settings of `plantml detect`."""

from typing import Literal

from plantml.settings import ON, OVERLAP, Config, Duration, MaxFailures, Speed, Tile, option

STDOUT = "-"

TableRows = Literal["photos", "boxes"]
"""What a row of a CSV or Parquet file is."""


class DetectConfig(Config):
    """Settings of `plantml detect`."""

    model: str | None = option(
        None, "Model to use: a run, a bundle, an exported file or REGISTRY/NAME@ALIAS.", metavar="MODEL"
    )
    out: str = option(STDOUT, "Output file: .jsonl, .csv or .parquet; - writes JSON Lines to stdout.", metavar="URL")
    format: str | None = option(
        None,
        "Output format: jsonl, csv, parquet, coco, megadetector, yolo (a .zip) or label-studio.",
        metavar="FORMAT",
        shown="by file extension",
    )
    rows: TableRows = option("photos", "Rows of CSV and Parquet: one per photo, or one per box.")
    split: str | None = option(None, "Read only this split of datasets.")
    column: str | None = option(None, "Column of tables that holds paths or URLs.", metavar="NAME")
    since: str | None = option(
        None, "Read only files changed since: an age like 24h or 7d, or a date (folders and globs).", metavar="WHEN"
    )
    allow_root: tuple[str, ...] = option(
        (), "Also read images listed under this folder or URL, and follow links into it. Repeatable.", metavar="URL"
    )
    where: str | None = option(
        None, "Write only records that match a condition: 'decision == \"review\"'.", metavar="CONDITION"
    )
    top_k: int = option(5, "Number of classes listed per target, best first.", ge=1, le=10_000)
    tta: bool = option(
        default=False, description="Use test-time augmentation: average over flips and rotations. 4 to 8 times slower."
    )
    tile: Tile = option(
        None, "Also predict, or find objects, on tiles of this size, in pixels; 0 uses whole photos only.",
        metavar="PIXELS", shown="those that the model was trained on",
    )  # fmt: skip
    overlap: float = option(OVERLAP, "Overlap of neighbouring tiles, as a share of the tile size.", ge=0, le=0.9)
    similar: str | None = option(None, "Add the most similar photos of a dataset to each record.", metavar="DATASET")
    neighbours: int = option(5, "Number of similar photos per record.", ge=1, le=100)
    advice: str | None = option(
        None, "Add advice texts to records, by target and label; see configs/advice.yaml.", metavar="YAML"
    )
    embeddings: str | None = option(None, "Write embeddings to a .parquet or .npy file.", metavar="URL")
    sheet: str | None = option(None, "Draw a contact sheet of the first predictions, as PNG.", metavar="URL")
    annotate: str | None = option(
        None, "Draw each photo with its predictions, boxes and tiles into a folder.", metavar="DIR"
    )
    sort_into: str | None = option(None, "Sort photos into one folder per predicted label.", metavar="DIR")
    sort_by: str | None = option(None, "Target to sort by.", metavar="TARGET", shown="the first class target")
    sort_how: Literal["link", "copy"] = option("link", "Link or copy sorted photos; links need local files.")
    max_failures: MaxFailures = option(
        "0", "Failures tolerated before the exit code is 5, as a number or a share.", metavar="N|N%"
    )
    batch: int | None = option(None, "Batch size.", shown="8, or measured in long runs", ge=1, le=1024)
    threads: int | None = option(
        None, "Worker threads.", shown="all usable cores, or measured in long runs", ge=1, le=1024
    )
    runtime: str = option("auto", "Runtime: auto, onnxruntime, torch or openvino.")
    device: str = option("cpu", "Device: cpu, or a torch device name.")
    speed: Speed = option(
        "exact", "Form of the network: float32 (exact), the fastest proven one (auto), or the named one."
    )
    retry_failed: bool = option(default=False, description="Retry images that failed in an earlier run.")
    changed_only: bool = option(
        default=False, description="Write only records that are new or changed since --out was last written."
    )
    engine: str | None = option(
        None, f"{ON[:-1]}; k8s:N with --print.", flag="on", metavar="ENGINE", shown="this process"
    )
    journal: str | None = option(None, "Folder of the journal.", metavar="DIR", shown="beside --out")
    shard: str | None = option(None, "Process only shard I of N; join the outputs with --merge.", metavar="I/N")
    watch: bool = option(default=False, description="Keep running and process new files as they arrive.")
    interval: Duration = option(5.0, "Polling interval of --watch, such as 5s or 1m.", metavar="TIME", shown="5s")
