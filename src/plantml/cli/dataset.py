"""`plantml dataset …`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.command import command, group
from plantml.cli.console import Console, Page, count

if TYPE_CHECKING:
    from plantml.data.importing import Imported
    from plantml.data.splits import SplitReport
    from plantml.data.summary import Difference, Info

app = group("dataset", "Import, look at, split and compare datasets of photos.")

Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="URL of the dataset; @N or @TAG for a version.")
]


@command(
    app,
    "synth",
    examples=[
        "plantml dataset synth photos --images 400 --seed 7",
        "plantml dataset synth faulty --images 2000 --defects 0.1",
        "plantml dataset synth s3://bucket/synth --classes tomato___healthy,tomato___rust",
    ],
)
def synth(
    console: Console,
    out: Annotated[str, typer.Argument(metavar="OUT", help="URL of a folder for photos and labels.")],
    images: Annotated[int, typer.Option(min=1, help="Photos to make.")] = 200,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Classes like tomato___rust; about ten if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same bytes.")] = 0,
    size: Annotated[
        int, typer.Option(min=32, max=4096, help="Height and width, pixels.")
    ] = 256,
    defects: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Share of photos with a planted fault; truth.csv names them."
        ),
    ] = 0.0,
) -> None:
    """Make photos of plants that no one took, with known labels, boxes and severity."""
    from plantml.data import synth as library

    chosen = tuple(name.strip() for name in classes.split(",")) if classes else library.DEFAULT_CLASSES
    spec = library.SynthSpec(images=images, classes=chosen, seed=seed, size=size, defects=defects)
    made = library.write(spec, out, workers=console.machine.threads, progress=console.progress("drawing"))

    def show(page: Page) -> None:
        page.line(f"Made {count(images, 'photo')} of {count(len(spec.classes), 'class', 'classes')} in {out}")
        if defects:
            page.line(f"The planted faults are in {out}/truth.csv")
        page.line(f"Next: plantml dataset import {out}/labels.csv DATASET --group-column plant")

    console.result("dataset synth", {"out": out, "images": made.images, "classes": list(spec.classes)}, show)


@command(
    app,
    "import",
    examples=[
        "plantml dataset import photos/ leaves",
        "plantml dataset import PlantVillage/ leaves --labels crop___disease",
        "plantml dataset import labels.csv leaves --target severity:value:fraction --group-column plant",
        "plantml dataset import photos/ leaves --draft-taxonomy map.yaml   # then edit map.yaml, then:",
        "plantml dataset import photos/ leaves --taxonomy map.yaml",
        "plantml dataset import s3://bucket/season s3://bucket/leaves --reference",
    ],
)
def import_(
    console: Console,
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Folder of photos, or a .csv, .jsonl or .parquet list.")
    ],
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="URL of the dataset; made if it is not there.")
    ],
    labels: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="How class names are read: auto, none, one target's name, or a pattern like crop___disease"
            " or category/disease.",
        ),
    ] = "auto",
    taxonomy: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="YAML of what each class name means; instead of a rule."),
    ] = None,
    draft_taxonomy: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the guessed taxonomy there to edit, and stop.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KIND[:UNIT]]",
            help="A list's column to predict; kinds are class, multilabel, value. May be repeated.",
        ),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="A list's column of photos.")
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="A list's column of what a split must keep together.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Leave photos where they are; copy nothing.")
    ] = False,
) -> None:
    """Bring photos and their labels into a dataset.

    Folders named train, val or test give the split, the folder around a photo its class. Photos that cannot
    be read come in as excluded rows with the reason. The source is only read. Importing it again adds
    what is new.
    """
    from plantml import storage
    from plantml.data import importing
    from plantml.data import labels as label_rules

    given = label_rules.load_taxonomy(taxonomy) if taxonomy else None
    listing = importing.list_source(
        source,
        rule=labels,
        taxonomy=given,
        targets=target or (),
        image_column=image_column,
        group_column=group_column,
    )
    if draft_taxonomy:
        names = [item.meta["class"] for item in listing.items if "class" in item.meta]
        storage.create(
            draft_taxonomy, label_rules.draft(given or label_rules.read_names(names, labels)).encode()
        )
        drafted = {"taxonomy": draft_taxonomy, "classes": len(set(names))}
        console.result(
            "dataset import",
            drafted,
            lambda page: page.line(
                f"Wrote {draft_taxonomy} with {count(len(set(names)), 'class', 'classes')}. Edit it, then:\n"
                f"plantml dataset import {source} {dataset} --taxonomy {draft_taxonomy}"
            ),
        )
        return
    done = importing.import_source(
        source,
        dataset,
        listing,
        reference=reference,
        threads=console.machine.threads,
        progress=console.progress("importing"),
    )
    console.result("dataset import", _imported(done), lambda page: _show_imported(page, done, dataset))


def _imported(done: "Imported") -> dict[str, Any]:
    version = done.version
    return {
        "dataset": version.ref,
        "fingerprint": version.fingerprint,
        "changed": done.changed,
        "listed": done.listed,
        "added": done.added,
        "known": done.known,
        "copies": done.copies,
        "excluded": [{"name": name, "reason": reason} for name, reason in done.excluded],
        "relabelled": list(done.relabelled),
        "skipped": dict(done.skipped),
        "labels": done.rule,
        "targets": [{"name": t.name, "kind": t.kind, "classes": list(t.classes), "unit": t.unit} for t in version.targets],
        "notes": list(done.notes),
    }  # fmt: skip


def _show_imported(page: Page, done: "Imported", dataset: str) -> None:
    version = done.version
    page.line(
        f"{version.ref}: {done.added} of {count(done.listed, 'photo')} added, {done.known} were there already"
    )
    page.line(f"Labels: {done.rule}")
    for target in version.targets:
        shown = ", ".join(target.classes[:12]) + (" …" if len(target.classes) > 12 else "") or target.unit
        page.line(
            f"  {target.name}: {count(len(target.classes), 'class', 'classes') if target.classes else 'value'}: {shown}"
        )
    if done.copies:
        page.line(f"Exact copies of other photos: {done.copies}")
    for name, reason in done.excluded[:10]:
        page.line(f"Excluded: {name} ({reason})")
    if len(done.excluded) > 10:
        page.line(f"Excluded: {len(done.excluded) - 10} more; plantml dataset info {dataset}")
    for reason, number in done.skipped.items():
        page.line(f"Passed over: {count(number, 'file')} ({reason})")
    if done.relabelled:
        page.line(
            f"{count(len(done.relabelled), 'photo')} have other labels at the source now; the dataset keeps its own."
        )
    for note in done.notes:
        page.line(note)
    if version.usable("train").is_empty():
        page.line(f"Next: plantml dataset split {dataset}")
    else:
        page.line(f"Next: plantml train {dataset} --out RUN")


@command(app, "info", examples=["plantml dataset info leaves", "plantml dataset info leaves@3 --json"])
def info(console: Console, dataset: Dataset) -> None:
    """Count what a version holds, by target, class and split."""
    from plantml.data import summary

    found = summary.info(dataset)
    content = {
        "dataset": found.version.ref,
        "fingerprint": found.version.fingerprint,
        "rows": found.rows,
        "usable": found.usable,
        "distinct": found.distinct,
        "excluded": found.excluded,
        "splits": found.splits,
        "classes": found.classes,
        "values": found.values,
        "unlabelled": found.unlabelled,
        "sizes": found.sizes,
        "formats": found.formats,
        "bytes": found.total_bytes,
        "tags": found.tags,
    }
    console.result("dataset info", content, lambda page: _show_info(page, found))


def _show_info(page: Page, found: "Info") -> None:
    version = found.version
    tags = f"  tags: {', '.join(found.tags)}" if found.tags else ""
    page.line(f"{version.ref}{tags}", style="bold")
    page.line(
        f"{found.rows} rows, {found.usable} usable, {found.distinct} distinct files, {found.total_bytes / 1e6:.1f} MB"
    )
    page.line(f"fingerprint {version.fingerprint}")
    if found.sizes:
        sizes = found.sizes
        page.line(
            f"{sizes['min_width']} to {sizes['max_width']} pixels wide, {sizes['min_height']} to {sizes['max_height']} high; "
            + ", ".join(f"{name} {number}" for name, number in found.formats.items())
        )
    if found.excluded:
        page.table(("excluded because", "rows"), found.excluded.items())
    splits = list(found.splits)
    for target, classes in found.classes.items():
        rows = [
            [name, *(by.get(split, 0) for split in splits), sum(by.values())] for name, by in classes.items()
        ]
        if found.unlabelled[target]:
            rows.append(["(not labelled)", *("" for _ in splits), found.unlabelled[target]])
        page.table((target, *splits, "all"), rows)
    for target, values in found.values.items():
        page.table(
            (target, "photos", "min", "mean", "max"),
            [[version.target(target).unit or "value", *_numbers(values)]],
        )
    page.table(("split", "photos"), found.splits.items())


def _numbers(values: Any) -> list[Any]:
    return [int(values["count"]), *(values.get(name) for name in ("min", "mean", "max"))]


@command(app, "log", examples=["plantml dataset log leaves"])
def log(console: Console, dataset: Dataset) -> None:
    """Show how a dataset came about, newest version first."""
    from plantml.data import versions

    commits = versions.log(dataset)
    tags: dict[int, list[str]] = {}
    for name, number in versions.tags(versions.parse_reference(dataset)[0]).items():
        tags.setdefault(number, []).append(name)
    content = [
        {
            "version": number,
            "operation": commit.operation,
            "parameters": dict(commit.parameters),
            "time": commit.time,
            "plantml": commit.plantml,
            "counts": dict(commit.counts),
            "fingerprint": commit.fingerprint,
            "tags": tags.get(number, []),
        }
        for number, commit in commits
    ]
    rows = [
        [
            number,
            commit.time,
            commit.operation,
            ", ".join(
                f"{key} {value}" for key, value in commit.parameters.items() if value not in (None, False)
            ),
            sum(commit.counts.values()),
            commit.fingerprint[:12],
            ", ".join(tags.get(number, [])),
        ]
        for number, commit in commits
    ]
    columns = ("version", "time", "operation", "parameters", "rows", "fingerprint", "tags")
    console.result("dataset log", {"versions": content}, lambda page: page.table(columns, rows))


@command(
    app,
    "diff",
    examples=["plantml dataset diff leaves@1 leaves@2", "plantml dataset diff leaves s3://bucket/leaves"],
)
def diff(
    console: Console,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="A version.")],
    after: Annotated[
        str, typer.Argument(metavar="AFTER", help="Another version, of this or of another dataset.")
    ],
) -> None:
    """Show what differs between two versions."""
    from plantml.data import summary

    found = summary.diff(before, after)
    content = {
        "before": found.before,
        "after": found.after,
        "same": found.same,
        "added": found.added,
        "removed": found.removed,
        "changed": {
            name: [{"name": key, "before": old, "after": new} for key, old, new in rows]
            for name, rows in found.changed.items()
        },
        "classes": found.classes,
    }
    console.result("dataset diff", content, lambda page: _show_diff(page, found))


def _show_diff(page: Page, found: "Difference") -> None:
    page.line(f"{found.before} -> {found.after}", style="bold")
    if found.same:
        page.line("No difference.")
    for sign, names in (("+", found.added), ("-", found.removed)):
        if names:
            page.line(f"{sign} {count(len(names), 'row')}, such as {names[0]}")
    for target, changes in found.classes.items():
        page.line(f"{target}: {' '.join(changes) or 'came or went'}")
    for column, rows in found.changed.items():
        page.table((column, "before", "after"), rows[:8])
        if len(rows) > 8:
            page.line(f"… and {len(rows) - 8} more; --json has them all")


@command(
    app,
    "split",
    examples=[
        "plantml dataset split leaves",
        "plantml dataset split leaves --ratios 8/1/1 --groups leaf_of_photo.csv",
        "plantml dataset split leaves --seed 3 --resplit",
    ],
)
def split(
    console: Console,
    dataset: Dataset,
    ratios: Annotated[
        str, typer.Option(metavar="T/V/T", help="Shares of train, val and test.")
    ] = "0.7/0.15/0.15",
    groups: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="Table of photo and group; photos of one group stay together."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    resplit: Annotated[bool, typer.Option("--resplit", help="Replace the splits that are there.")] = False,
) -> None:
    """Give every photo to train, val or test.

    Groups and exact copies stay together, every class of every target is spread evenly, and the result
    depends on the photos' content alone: not on their order, place or machine.
    """
    from plantml.data import splits

    found = splits.split_dataset(dataset, ratios=ratios, groups=groups, seed=seed, resplit=resplit)
    version = found.committed.version
    content = {
        "dataset": version.ref,
        "fingerprint": version.fingerprint,
        "changed": found.committed.changed,
        "splits": dict(found.counts),
        "groups": found.groups,
        "joined": dict(found.joined),
        "matched": found.matched,
    }
    console.result("dataset split", content, lambda page: _show_split(page, found, dataset))


def _show_split(page: Page, found: "SplitReport", dataset: str) -> None:
    total = sum(found.counts.values())
    page.line(f"{found.committed.version.ref}: {count(total, 'photo')} in {count(found.groups, 'group')}")
    if not found.committed.changed:
        page.line("Nothing to do: the dataset has this very split.")
    page.table(
        ("split", "photos", "share"), [[name, n, f"{n / total:.1%}"] for name, n in found.counts.items()]
    )
    for rule, number in found.joined.items():
        if number:
            page.line(f"Kept together by {rule}: {count(number, 'photo')}")
    if found.matched is not None:
        page.line(f"Photos that the group table names: {found.matched}")
    page.line(f"Next: plantml train {dataset} --out RUN")


@command(app, "tag", examples=["plantml dataset tag leaves@7 frozen-test"])
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
