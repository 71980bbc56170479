"""`plantml dataset export`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.command import command
from plantml.cli.console import Console, Page, as_json, count

if TYPE_CHECKING:
    from plantml.data.exporting import Exported


@command(
    "plantml dataset export leaves out/ --format folder",
    "plantml dataset export leaves@7 s3://bucket/leaves-coco --format coco",
    "plantml dataset export leaves yolo/ --format yolo --split train --split val",
    "plantml dataset export leaves leaves.zip --format bundle   # plantml dataset import leaves.zip OTHER",
)
def export(
    console: Console,
    dataset: Dataset,
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="URL of a new or empty folder, or of a .zip file for a bundle.")
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Format: folder, csv, parquet, coco, yolo, voc, cvat, label-studio, webdataset, crops, croissant or"
            " bundle.",
        ),
    ],
    split: Annotated[
        list[str] | None, typer.Option(metavar="SPLIT", help="Export only this split. Repeatable.")
    ] = None,
) -> None:
    """Export photos and labels to another format.

    Photos are copied, except for excluded ones. Data that the format cannot hold is written to plantml.json, so that
    importing the export restores labels, boxes, groups and splits. A table also holds rows without a photo; a bundle
    holds everything, even excluded photos.
    """
    from plantml.data import exporting

    result = exporting.export_dataset(
        dataset, out, format=format_, splits=split or (), progress=console.progress("exporting")
    )
    console.result(as_json(result), lambda page: _show(page, result))


def _show(page: Page, result: "Exported") -> None:
    counts = ", ".join(f"{number} {name}" for name, number in result.counts.items())
    size = f"{result.bytes / 1e6:.1f} MB"
    page.line(
        f"{result.out}: {counts} of {result.version.ref} as {result.format} ({count(result.files, 'file')}, {size})"
    )
    for note in result.notes:
        page.line(note)
