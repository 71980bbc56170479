"""`plantml dataset import`."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import AllowRoot, DatasetUrl, Engine, ImageColumn
from plantml.cli.command import command
from plantml.cli.console import Console, Page, as_json, count, show_next
from plantml.errors import AlreadyExistsError, InputError

if TYPE_CHECKING:
    from plantml.data.importers import ImportListing
    from plantml.data.importing import Imported

Source = Annotated[str, typer.Argument(metavar="SRC", help="Folder or archive of photos, or an annotation file.")]


@dataclass(frozen=True)
class SourceOptions:
    """The options of `import` and `add` that say how to read the source."""

    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Format: folder, table, coco, yolo, voc, cvat, label-studio, hf or bundle; auto detects it.",
        ),
    ] = "auto"
    labels: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Rule for reading class names: auto, none, a target's name, or a pattern like crop___disease"
            " or category/disease.",
        ),
    ] = "auto"
    taxonomy: Annotated[
        str | None, typer.Option(metavar="FILE", help="YAML file that maps class names to labels; replaces --labels.")
    ] = None
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KIND[:UNIT]]",
            help="Column of the list to predict; kinds are class, multilabel and value. Repeatable.",
        ),
    ] = None
    image_column: ImageColumn = None
    group_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the list whose groups a split keeps together.")
    ] = None
    reference: Annotated[bool, typer.Option("--reference", help="Reference photos in place; copy nothing.")] = False
    allow_root: AllowRoot = None

    def list_source(self, source: str, *, offline: bool) -> "ImportListing":
        """The photos of a source with their labels."""
        from plantml.data import formats, labels
        from plantml.storage.addresses import Trust

        return formats.list_source(
            source,
            format=self.format_,
            rule=self.labels,
            taxonomy=labels.load_taxonomy(self.taxonomy) if self.taxonomy else None,
            targets=self.target or (),
            image_column=self.image_column,
            group_column=self.group_column,
            trust=Trust.of(self.allow_root, offline=offline),
        )


@command(
    "plantml dataset import photos/ leaves",
    "plantml dataset import PlantVillage/ leaves --labels crop___disease",
    "plantml dataset import labels.csv leaves --target severity:value:fraction --group-column plant",
    "plantml dataset import photos/ leaves --draft-taxonomy map.yaml   # then edit map.yaml, then:",
    "plantml dataset import photos/ leaves --taxonomy map.yaml",
    "plantml dataset import annotations/instances_train.json leaves",
    "plantml dataset import s3://bucket/boxes.zip leaves --format yolo",
    "plantml dataset import s3://bucket/season s3://bucket/leaves --reference",
    "plantml dataset import s3://bucket/season s3://bucket/leaves --on slurm",
)
def import_(
    console: Console,
    source: Source,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="URL of the dataset; created if it does not exist.")
    ],
    reading: SourceOptions,
    draft_taxonomy: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a draft taxonomy to edit, then exit.")
    ] = None,
    on: Engine = None,
) -> None:
    """Import photos and their labels into a dataset.

    Folders named train, val or test define the split; the folder of a photo defines its class. Photos that cannot be
    read become excluded rows with the reason. A row of a table without a photo is kept for its columns and labels. The
    source is never changed. Repeat the import to add new photos.
    """
    from plantml import storage
    from plantml.data import labels as label_rules

    listing = reading.list_source(source, offline=console.machine.offline)
    if draft_taxonomy:
        names = listing.classes
        classes = label_rules.load_taxonomy(reading.taxonomy) if reading.taxonomy else None
        drafted_text = label_rules.draft(classes or label_rules.read_names(names, reading.labels))
        try:
            storage.create(draft_taxonomy, drafted_text.encode())
        except AlreadyExistsError as error:
            why = "it may contain your edits"
            raise InputError(f"{draft_taxonomy} already exists", why, "Choose another name, or remove it.") from error
        drafted = {"taxonomy": draft_taxonomy, "classes": len(set(names))}
        console.result(
            drafted,
            lambda page: page.line(
                f"Wrote {draft_taxonomy} with {count(len(set(names)), 'class', 'classes')}. Edit it, then:\n"
                f"plantml dataset import {source} {dataset} --taxonomy {draft_taxonomy}"
            ),
        )
        return
    _import(console, "import", source, dataset, listing, reference=reading.reference, on=on)


@command(
    "plantml dataset add leaves week-47.csv",
    "plantml dataset add leaves s3://lab/feed --labels crop___disease --new-classes",
)
def add(
    console: Console,
    dataset: DatasetUrl,
    source: Source,
    reading: SourceOptions,
    new_classes: Annotated[
        bool, typer.Option("--new-classes", help="Allow targets and classes that are new to the dataset.")
    ] = False,
) -> None:
    """Add new labelled photos to an existing dataset.

    Only photos with new names are read. Unknown classes are refused, so that a typo does not become a class. Exact
    duplicates with different labels are reported; `check` finds them, too.
    """
    from plantml.data import editing, versions

    listing = reading.list_source(source, offline=console.machine.offline)
    editing.check_known(versions.load(dataset), listing, new_classes=new_classes)
    _import(console, "add", source, dataset, listing, reference=reading.reference)


def _import(
    console: Console,
    verb: str,
    source: str,
    dataset: str,
    listing: "ImportListing",
    *,
    reference: bool,
    on: str | None = None,
) -> None:
    from plantml.data import importing

    fill = None
    if on is not None:
        from plantml.engines import importing as parts
        from plantml.engines import opening

        fill = parts.filler(opening.open_engine(on, console.machine), console.machine, console.listener)
    result = importing.import_source(
        source,
        dataset,
        listing,
        reference=reference,
        threads=console.machine.threads,
        progress=console.progress(f"{verb}ing"),
        fill=fill,
    )
    console.result(_imported(result), lambda page: _show_imported(page, result, dataset))
    if result.listed and not result.usable:
        raise InputError(
            f"No photo of {source} can be used",
            f"all of {count(result.listed, 'photo')} are excluded: {importing.reasons(result)}",
            f"Repair the source and import it again; plantml dataset info {dataset} counts the reasons.",
        )


def _imported(result: "Imported") -> dict[str, Any]:
    from plantml.data import summary

    return as_json(result, "source", "rule") | {
        "conflicts": [{"name": name, "target": target, "labels": labels} for name, target, labels in result.conflicts],
        "excluded": [{"name": name, "reason": reason} for name, reason in result.excluded],
        "labels": result.rule,
        "targets": [asdict(target) for target in result.version.targets],
        "boxes": summary.count_boxes(result.version.usable()),
    }


def _show_imported(page: Page, result: "Imported", dataset: str) -> None:
    version = result.version
    excluded = f", {len(result.excluded)} of them excluded" if result.excluded else ""
    page.line(
        f"{version.ref}: {result.added} of {count(result.listed, 'photo')} added{excluded},"
        f" {result.known} already present"
    )
    if result.without_photo:
        known = result.without_photo - result.added_without_photo
        page.line(f"Rows without a photo: {result.added_without_photo} added, {known} already present")
    page.line(f"Labels: {result.rule}")
    for target in version.targets:
        shown = ", ".join(target.classes[:12]) + (" …" if len(target.classes) > 12 else "") or target.unit
        page.line(
            f"  {target.name}: {count(len(target.classes), 'class', 'classes') if target.classes else 'value'}: {shown}"
        )
    _show_boxes(page, result)
    if result.copies:
        page.line(f"Exact duplicates of other photos: {result.copies}")
    for name, target_name, labels in result.conflicts[:10]:
        page.line(f"Conflict: {name}: {target_name} {labels}")
    if len(result.conflicts) > 10:
        page.line(f"Conflict: {len(result.conflicts) - 10} more; --json lists all")
    _show_excluded(page, result, dataset)
    if result.refused:
        page.line(f"Not read: {count(result.refused, 'photo')} outside of the source; allow them with --allow-root URL")
    for reason, number in result.skipped.items():
        page.line(f"Skipped: {count(number, 'file')} ({reason})")
    _show_changed(page, result)
    for note in result.notes:
        page.line(note)
    show_next(page, version, dataset)


def _show_excluded(page: Page, result: "Imported", dataset: str) -> None:
    by_code: dict[str, list[tuple[str, str]]] = {}
    for name, reason in result.excluded:
        by_code.setdefault(reason.partition(":")[0], []).append((name, reason))
    for code, photos in by_code.items():
        for name, reason in photos[:3]:
            page.line(f"Excluded: {name} ({reason})")
        if len(photos) > 3:
            page.line(f"Excluded: {len(photos) - 3} more ({code}); plantml dataset info {dataset}")


def _show_boxes(page: Page, result: "Imported") -> None:
    from plantml.data import summary

    counts = sorted(summary.count_boxes(result.version.usable()).items(), key=lambda pair: -pair[1])
    if counts:
        names = ", ".join(f"{name or 'no class'} {number}" for name, number in counts[:12])
        more = " …" if len(counts) > 12 else ""
        page.line(f"Boxes: {sum(number for _, number in counts)}: {names}{more}")


def _show_changed(page: Page, result: "Imported") -> None:
    """Known photos that have changed at the source."""
    if result.mended:
        repaired = count(len(result.mended), "photo")
        page.line(f"{repaired} could not be read before and can be now, such as {result.mended[0]}.")
    if result.relabelled:
        relabelled = count(len(result.relabelled), "photo has", "photos have")
        page.line(f"{relabelled} different labels at the source; the dataset keeps its labels.")
    if result.replaced:
        page.line(
            f"{count(len(result.replaced), 'photo')} at the source have changed, such as {result.replaced[0]}; "
            "the dataset keeps its copies. Give new photos new names."
        )
