"""`plantml dataset relabel`, `rename-class`, `merge`, `subset` and `restore`: changes by hand."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.console import Console, Page, count

if TYPE_CHECKING:
    from plantml.data.editing import MergeResult

RELABEL_EXAMPLES = [
    "plantml dataset relabel leaves corrections.csv",
    "plantml dataset relabel leaves label-studio.json --new-classes",
]


def relabel(
    console: Console,
    dataset: Dataset,
    corrections: Annotated[
        str, typer.Argument(metavar="LIST", help="CSV, JSONL, Parquet or Label Studio file of photos and labels.")
    ],
    labels: Annotated[
        str, typer.Option(metavar="RULE", help="How a column `label` or `class` is read; as in import.")
    ] = "auto",
    image_column: Annotated[str | None, typer.Option(metavar="NAME", help="A list's column of photos.")] = None,
    new_classes: Annotated[
        bool, typer.Option("--new-classes", help="Allow classes that the dataset does not have.")
    ] = False,
) -> None:
    """Correct labels from a list, in a new version.

    Photos are named by their path relative to their source, or by their file name where it is unique. Empty
    cells change nothing. A photo that was set aside for review is in use again once the list names it.
    """
    from plantml.data import editing, versions

    listing = editing.corrections(corrections, versions.load(dataset), labels, image_column)
    done = editing.relabel(dataset, listing, new_classes=new_classes)
    ref = done.committed.version.ref
    content = {
        "dataset": ref,
        "fingerprint": done.committed.version.fingerprint,
        "changed": done.committed.changed,
        "listed": done.listed,
        "relabelled": done.changed,
        "back_in_use": done.back,
    }

    def show(page: Page) -> None:
        page.line(f"{ref}: {done.changed} of {count(done.listed, 'photo')} in the list have other labels now")
        if done.back:
            page.line(f"Back in use after review: {count(done.back, 'photo')}")

    console.result("dataset relabel", content, show)


RENAME_EXAMPLES = ["plantml dataset rename-class leaves disease 'Leaf Crinckle 150' 'Leaf Crinkle'"]


def rename_class(
    console: Console,
    dataset: Dataset,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Whose class it is.")],
    old: Annotated[str, typer.Argument(metavar="OLD", help="The name as it is.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name as it shall be.")],
) -> None:
    """Rename a class, in labels and boxes; a name that is taken joins the two."""
    from plantml.data import editing

    committed, photos = editing.rename_class(dataset, target, old, new)
    ref = committed.version.ref
    content = {"dataset": ref, "fingerprint": committed.version.fingerprint, "changed": committed.changed}
    content["photos"] = photos
    console.result(
        "dataset rename-class",
        content,
        lambda page: page.line(f"{ref}: {target} {old!r} is {new!r} now, on {count(photos, 'photo')}"),
    )


MERGE_EXAMPLES = [
    "plantml dataset merge leaves greenhouse",
    "plantml dataset merge s3://bucket/all s3://bucket/leaves@7 --splits",
]


def merge(
    console: Console,
    dataset: Dataset,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Reference of the dataset that is brought in.")],
    splits: Annotated[bool, typer.Option("--splits", help="Keep the splits of the other.")] = False,
) -> None:
    """Bring another dataset into this one, photos and all."""
    from plantml.data import editing

    threads = 4 * console.machine.threads
    done = editing.merge(dataset, other, splits=splits, threads=threads, progress=console.progress("copying"))
    _told(console, "dataset merge", done, f"plantml dataset check {dataset} --only files,duplicates")


SUBSET_EXAMPLES = [
    "plantml dataset subset leaves tomatoes --where 'category == \"tomato\"'",
    'plantml dataset subset leaves lab --where \'"lab/" in name and split != "test" and not brightness < 0.1\'',
]


def subset(
    console: Console,
    dataset: Dataset,
    out: Annotated[str, typer.Argument(metavar="OUT", help="URL of the new dataset.")],
    where: Annotated[str, typer.Option(metavar="CONDITION", help="Which rows, by columns, as in Python.")],
) -> None:
    """Make a new dataset of some rows, with their photos, labels and splits."""
    from plantml.data import editing

    threads = 4 * console.machine.threads
    done = editing.subset(dataset, out, where, threads=threads, progress=console.progress("copying"))
    _told(console, "dataset subset", done, f"plantml dataset info {out}")


def _told(console: Console, command: str, done: "MergeResult", after: str) -> None:
    version = done.committed.version
    content = {
        "dataset": version.ref,
        "fingerprint": version.fingerprint,
        "changed": done.committed.changed,
        "added": done.added,
        "known": done.known,
        "copied": done.copied,
        "conflicts": list(done.conflicts),
    }

    def show(page: Page) -> None:
        if version.number == 1:
            page.line(f"{version.url} is a new dataset")
        page.line(f"{version.ref}: {count(done.added, 'row')} added, {done.known} were there already")
        page.line(f"Files copied: {done.copied}")
        if done.conflicts:
            page.line(f"{count(len(done.conflicts), 'row')} differ and stay as they were, such as {done.conflicts[0]}")
        page.next(after)

    console.result(command, content, show)


RESTORE_EXAMPLES = ["plantml dataset restore leaves 3"]


def restore(
    console: Console,
    dataset: Dataset,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="The version to go back to.")],
) -> None:
    """Go back to an older version, as a new one: nothing is lost."""
    from plantml.data import editing

    committed = editing.restore(dataset, number)
    version = committed.version
    content = {"dataset": version.ref, "fingerprint": version.fingerprint, "changed": committed.changed, "from": number}
    console.result(
        "dataset restore",
        content,
        lambda page: page.line(
            f"{version.ref} is version {number} again" if committed.changed else f"{version.ref} is the same already"
        ),
    )
