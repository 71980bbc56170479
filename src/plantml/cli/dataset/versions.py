"""`plantml dataset split` and `tag`: making and naming versions."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import MAX_SEED, Dataset
from plantml.cli.console import Console, Page, count, show_next

if TYPE_CHECKING:
    from plantml.data.splits import SplitReport

SPLIT_EXAMPLES = [
    "plantml dataset split leaves",
    "plantml dataset split leaves --ratios 8/1/1 --groups leaf_of_photo.csv",
    "plantml dataset split apples --group-by 'DSC_\\d+'",
    "plantml dataset split trays --deep   # photos that overlap stay together",
    "plantml dataset split leaves --keep   # place new photos, move no old one",
    "plantml dataset split leaves --seed 3 --resplit",
]


def split(
    console: Console,
    dataset: Dataset,
    ratios: Annotated[str, typer.Option(metavar="T/V/T", help="Shares of train, val and test.")] = "0.7/0.15/0.15",
    groups: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="Table of photo and group; photos of one group stay together."),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|REGEX", help="Group by a column, or by what a pattern finds in the names."),
    ] = None,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Keep near-duplicates together.")] = True,
    deep: Annotated[
        bool, typer.Option("--deep", help="Look at the photos for crops, turns and overlaps too; needs [curate].")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Another seed, another split.")] = 0,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Move no photo that has a split: place new ones around it."),
    ] = False,
    resplit: Annotated[bool, typer.Option("--resplit", help="Replace the splits that are there.")] = False,
) -> None:
    """Give every photo to train, val or test.

    Groups, exact copies and near-duplicates stay together, every class of every target is spread evenly, and
    the result depends on the photos' content alone: not on their order, place or machine. With --keep a new
    photo whose near-duplicate is in the test set is left out, with the reason twin-of-test.
    """
    from plantml.curate import photo_groups
    from plantml.data import splits

    found = splits.split_dataset(
        dataset,
        ratios=ratios,
        groups=groups,
        group_by=group_by,
        near=near,
        by_pixels=photo_groups.finder(console.machine, console.progress) if deep else None,
        seed=seed,
        keep=keep,
        resplit=resplit,
    )
    version = found.committed.version
    content = {
        "dataset": version.ref,
        "fingerprint": version.fingerprint,
        "changed": found.committed.changed,
        "splits": dict(found.counts),
        "groups": found.groups,
        "joined": dict(found.joined),
        "matched": found.matched,
        "held": dict(found.left_out),
        "placed": found.placed,
        "warnings": list(found.warnings),
    }
    console.result("dataset split", content, lambda page: _show_split(page, found, dataset))


def _show_split(page: Page, found: "SplitReport", dataset: str) -> None:
    total = sum(found.counts.values())
    page.line(f"{found.committed.version.ref}: {count(total, 'photo')} in {count(found.groups, 'group')}")
    if not found.committed.changed:
        page.line("Nothing to do: the dataset has this very split.")
    rows = [[name, n, f"{n / max(total, 1):.1%}", f"{found.ratios[name]:.1%}"] for name, n in found.counts.items()]
    page.table(("split", "photos", "share", "wanted"), rows)
    for rule, number in found.joined.items():
        if number:
            page.line(f"Kept together by {rule}: {count(number, 'photo')}")
    if found.placed:
        page.line(f"Photos that had no split before: {found.placed}")
    for warning in found.warnings:
        page.line(f"Warning: {warning}", style="yellow")
    for reason, number in found.left_out.items():
        page.line(f"Left out, {reason}: {count(number, 'photo')}")
    if found.matched is not None:
        page.line(f"Photos that the group table names: {found.matched}")
    show_next(page, found.committed.version, dataset)


TAG_EXAMPLES = ["plantml dataset tag leaves@7 frozen-test"]


def tag(
    console: Console,
    dataset: Dataset,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dots and dashes.")],
) -> None:
    """Give a version a name; DATASET@NAME means it from then on."""
    from plantml.data import versions

    number = versions.tag(dataset, name)
    url = versions.parse_reference(dataset)[0]
    console.result(
        "dataset tag",
        {"dataset": url, "version": number, "tag": name},
        lambda page: page.line(f"{url}@{name} is version {number}"),
    )
