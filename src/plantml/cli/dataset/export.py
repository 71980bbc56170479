"""`plantml dataset export`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.console import Console, Page, count

if TYPE_CHECKING:
    from plantml.data.exporting import Exported

EXPORT_EXAMPLES = [
    "plantml dataset export leaves out/ --format folder",
    "plantml dataset export leaves@7 s3://bucket/leaves-coco --format coco",
    "plantml dataset export leaves yolo/ --format yolo --split train --split val",
    "plantml dataset export leaves leaves.zip --format bundle   # plantml dataset import leaves.zip OTHER",
]


def export(
    console: Console,
    dataset: Dataset,
    out: Annotated[str, typer.Argument(metavar="OUT", help="URL of a new or empty folder; of a .zip for a bundle.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="folder, csv, parquet, coco, yolo, voc, label-studio, webdataset, crops, croissant or bundle.",
        ),
    ],
    split: Annotated[
        list[str] | None, typer.Option(metavar="SPLIT", help="Only train, val or test. May be repeated.")
    ] = None,
) -> None:
    """Write photos and labels in a format that others read.

    Photos are copied, excluded ones left out. What a format cannot hold is written beside it to plantml.json,
    so that importing the export again gives the same labels, boxes, groups and splits. A bundle holds
    everything, excluded photos too.
    """
    from plantml.data import exporting

    done = exporting.export_dataset(
        dataset, out, format=format_, splits=split or (), progress=console.progress("exporting")
    )
    content = {
        "dataset": done.version.ref,
        "fingerprint": done.version.fingerprint,
        "out": done.out,
        "format": done.format,
        "counts": dict(done.counts),
        "files": done.files,
        "bytes": done.bytes,
        "notes": list(done.notes),
    }
    console.result("dataset export", content, lambda page: _show(page, done))


def _show(page: Page, done: "Exported") -> None:
    counts = ", ".join(f"{number} {name}" for name, number in done.counts.items())
    size = f"{done.bytes / 1e6:.1f} MB"
    page.line(f"{done.out}: {counts} of {done.version.ref} as {done.format} ({count(done.files, 'file')}, {size})")
    for note in done.notes:
        page.line(note)
