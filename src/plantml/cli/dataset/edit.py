"""`plantml dataset relabel`, `join`, `rename-class`, `merge`, `subset` and `restore`: manual changes."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Dataset, DatasetUrl, ImageColumn
from plantml.cli.command import command
from plantml.cli.console import Console, Page, as_json, count

if TYPE_CHECKING:
    from plantml.data.editing import MergeResult
    from plantml.data.versions import Committed


@command(
    "plantml dataset relabel leaves corrections.csv", "plantml dataset relabel leaves label-studio.json --new-classes"
)
def relabel(
    console: Console,
    dataset: DatasetUrl,
    corrections: Annotated[
        str, typer.Argument(metavar="LIST", help="CSV, JSONL, Parquet or Label Studio file of photos and labels.")
    ],
    labels: Annotated[
        str, typer.Option(metavar="RULE", help="Rule for reading a column `label` or `class`, as in import.")
    ] = "auto",
    image_column: ImageColumn = None,
    new_classes: Annotated[
        bool, typer.Option("--new-classes", help="Allow classes that are new to the dataset.")
    ] = False,
) -> None:
    """Correct labels from a list, in a new version.

    Photos are matched by their path relative to their source, or by a unique file name. Empty cells change nothing.
    A photo that was set aside for review is used again if the list contains it.
    """
    from plantml.data import editing, versions

    listing = editing.corrections(corrections, versions.load(dataset), labels, image_column)
    committed = editing.relabel(dataset, listing, new_classes=new_classes)
    ref, result = committed.version.ref, committed.report
    content = as_json(committed, "report") | as_json(result)

    def show(page: Page) -> None:
        page.line(f"{ref}: {result.relabelled} of {count(result.listed, 'photo')} in the list relabelled")
        if result.back_in_use:
            page.line(f"Used again after review: {count(result.back_in_use, 'photo')}")

    console.result(content, show)


@command(
    "plantml dataset join leaves measurements.csv",
    "plantml dataset join leaves climate.parquet --columns temperature,humidity --image-column photo",
)
def join(
    console: Console,
    dataset: DatasetUrl,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="CSV, TSV, JSONL or Parquet table of photos.")],
    columns: Annotated[
        str,
        typer.Option(metavar="A,B", help="Columns to join. [default: all that are not targets]", show_default=False),
    ] = "",
    image_column: ImageColumn = None,
) -> None:
    """Join measured columns of a table to photos, in a new version.

    Photos are matched by their path relative to their source, a unique file name, or the SHA-256 of their bytes. Empty
    cells change nothing. `plantml train --covariates` makes inputs of these columns.
    """
    from plantml.data import covariates

    names = [name.strip() for name in columns.split(",") if name.strip()]
    committed = covariates.join(dataset, table, names, image_column)
    version, result = committed.version, committed.report

    def show(page: Page) -> None:
        page.line(f"{version.ref}: {', '.join(result.columns)} of {count(result.joined, 'photo')}", style="bold")
        if result.unmatched:
            page.line(f"Rows of the table without a photo in the dataset: {result.unmatched}")
        page.next(f"plantml train {dataset} --covariates {','.join(result.columns)}")

    console.result(as_json(committed, "report") | as_json(result), show)


@command("plantml dataset rename-class leaves disease 'Leaf Crinckle 150' 'Leaf Crinkle'")
def rename_class(
    console: Console,
    dataset: DatasetUrl,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Target of the class.")],
    old: Annotated[str, typer.Argument(metavar="OLD", help="Current name.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name.")],
) -> None:
    """Rename a class in labels and boxes; an existing name merges the two classes."""
    from plantml.data import editing

    committed = editing.rename_class(dataset, target, old, new)
    ref, photos = committed.version.ref, committed.report
    content = as_json(committed, "report") | {"photos": photos}
    console.result(
        content, lambda page: page.line(f"{ref}: {target} {old!r} renamed to {new!r} on {count(photos, 'photo')}")
    )


@command(
    "plantml dataset merge leaves greenhouse", "plantml dataset merge s3://bucket/all s3://bucket/leaves@7 --splits"
)
def merge(
    console: Console,
    dataset: DatasetUrl,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Dataset to merge into DATASET.")],
    splits: Annotated[bool, typer.Option("--splits", help="Keep the splits of OTHER.")] = False,
) -> None:
    """Merge another dataset, with its photos, into this one."""
    from plantml.data import editing

    threads = 4 * console.machine.threads
    committed = editing.merge(dataset, other, splits=splits, threads=threads, progress=console.progress("copying"))
    _show_merged(console, committed, f"plantml dataset check {dataset} --only files,duplicates")


@command(
    "plantml dataset subset leaves tomatoes --where 'category == \"tomato\"'",
    'plantml dataset subset leaves lab --where \'"lab/" in name and split != "test" and not brightness < 0.1\'',
)
def subset(
    console: Console,
    dataset: Dataset,
    out: Annotated[str, typer.Argument(metavar="OUT", help="URL of the new dataset.")],
    where: Annotated[
        str, typer.Option(metavar="CONDITION", help="Keep the rows that meet this condition, in Python syntax.")
    ],
) -> None:
    """Create a dataset from selected rows, with their photos, labels and splits."""
    from plantml.data import editing

    threads = 4 * console.machine.threads
    committed = editing.subset(dataset, out, where, threads=threads, progress=console.progress("copying"))
    _show_merged(console, committed, f"plantml dataset info {out}")


def _show_merged(console: Console, committed: "Committed[MergeResult]", after: str) -> None:
    version, result = committed.version, committed.report
    content = as_json(committed, "report") | as_json(result)

    def show(page: Page) -> None:
        if version.number == 1:
            page.line(f"{version.url} is a new dataset")
        page.line(f"{version.ref}: {count(result.added, 'row')} added, {result.known} already present")
        page.line(f"Files copied: {result.copied}")
        if result.conflicts:
            page.line(
                f"{count(len(result.conflicts), 'row')} differ and were left unchanged, such as {result.conflicts[0]}"
            )
        page.next(after)

    console.result(content, show)


@command("plantml dataset restore leaves 3")
def restore(
    console: Console,
    dataset: DatasetUrl,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Version to restore.")],
) -> None:
    """Restore an older version as a new one; no version is deleted."""
    from plantml.data import editing

    committed = editing.restore(dataset, number)
    version = committed.version
    content = as_json(committed, "report") | {"from": number}
    console.result(
        content,
        lambda page: page.line(
            f"{version.ref} restores version {number}"
            if committed.changed
            else f"Nothing to do: {version.ref} is the same"
        ),
    )
