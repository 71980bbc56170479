"""`plantml dataset split` and `tag`: split and name versions."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import MAX_SEED, Dataset, DatasetUrl
from plantml.cli.command import command
from plantml.cli.console import Console, Page, as_json, count, show_next

if TYPE_CHECKING:
    from plantml.data.splits import SplitReport
    from plantml.data.versions import Committed


@command(
    "plantml dataset split leaves",
    "plantml dataset split leaves --ratios 8/1/1 --groups leaf_of_photo.csv",
    "plantml dataset split apples --group-by 'DSC_\\d+'",
    "plantml dataset split trays --deep   # photos that overlap stay together",
    "plantml dataset split leaves --keep   # assign only new photos",
    "plantml dataset split leaves --seed 3 --resplit",
)
def split(
    console: Console,
    dataset: DatasetUrl,
    ratios: Annotated[str, typer.Option(metavar="T/V/T", help="Shares of train, val and test.")] = "0.7/0.15/0.15",
    groups: Annotated[
        str | None, typer.Option(metavar="TABLE", help="Table of photos and groups; each group stays in one split.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMN|REGEX", help="Group by a column, or by a regex on photo names.")
    ] = None,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Keep near-duplicates in one split.")] = True,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also detect crops, rotations and overlaps; needs [curate].")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Assign only new photos; leave the others where they are.")
    ] = False,
    resplit: Annotated[bool, typer.Option("--resplit", help="Replace the existing splits.")] = False,
) -> None:
    """Assign every photo to train, val or test.

    Groups, exact duplicates and near-duplicates stay in one split, and every class of every target is spread evenly.
    The result depends only on the content of the photos, not on their order or location. With --keep, a new photo
    with a near-duplicate in the test set is excluded, with the reason twin-of-test. A row without a photo follows the
    photos of its group, and is in train if there are none.
    """
    from plantml.curate import photo_groups
    from plantml.data import splits

    committed = splits.split_dataset(
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
    result = committed.report
    content = as_json(committed, "report") | as_json(result, "counts", "ratios", "left_out")
    content |= {"splits": result.counts, "held": result.left_out}
    console.result(content, lambda page: _show_split(page, committed, dataset))


def _show_split(page: Page, committed: "Committed[SplitReport]", dataset: str) -> None:
    version, result = committed.version, committed.report
    total = sum(result.counts.values())
    page.line(f"{version.ref}: {count(total, 'photo')} in {count(result.groups, 'group')}")
    if not committed.changed:
        page.line("Nothing to do: the dataset already has this split.")
    rows = [[name, n, f"{n / max(total, 1):.1%}", f"{result.ratios[name]:.1%}"] for name, n in result.counts.items()]
    page.table(("split", "photos", "share", "target share"), rows)
    for rule, number in result.joined.items():
        if number:
            page.line(f"Kept together by {rule}: {count(number, 'photo')}")
    if result.placed:
        page.line(f"Photos without a split before: {result.placed}")
    if result.without_photo:
        page.line(f"Rows without a photo: {', '.join(f'{name} {n}' for name, n in result.without_photo.items())}")
    for warning in result.warnings:
        page.line(f"Warning: {warning}", style="yellow")
    for reason, number in result.left_out.items():
        page.line(f"Excluded, {reason}: {count(number, 'photo')}")
    if result.matched is not None:
        page.line(f"Photos in the group table: {result.matched}")
    show_next(page, version, dataset)


@command("plantml dataset tag leaves@7 frozen-test")
def tag(
    console: Console,
    dataset: Dataset,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Tag: letters, digits, dots and dashes.")],
) -> None:
    """Tag a version, so that DATASET@NAME refers to it."""
    from plantml.data import versions

    number = versions.tag(dataset, name)
    url = versions.parse_reference(dataset)[0]
    console.result(
        {"dataset": url, "version": number, "tag": name}, lambda page: page.line(f"{url}@{name} is version {number}")
    )
