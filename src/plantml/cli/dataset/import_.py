"""`plantml dataset import`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import AllowRoot, Dataset
from plantml.cli.console import Console, Page, count, show_next
from plantml.errors import AlreadyExistsError, InputError

if TYPE_CHECKING:
    from plantml.data.importers import ImportListing
    from plantml.data.importing import Imported

IMPORT_EXAMPLES = [
    "plantml dataset import photos/ leaves",
    "plantml dataset import PlantVillage/ leaves --labels crop___disease",
    "plantml dataset import labels.csv leaves --target severity:value:fraction --group-column plant",
    "plantml dataset import photos/ leaves --draft-taxonomy map.yaml   # then edit map.yaml, then:",
    "plantml dataset import photos/ leaves --taxonomy map.yaml",
    "plantml dataset import annotations/instances_train.json leaves",
    "plantml dataset import s3://bucket/boxes.zip leaves --format yolo",
    "plantml dataset import s3://bucket/season s3://bucket/leaves --reference",
]


Source = Annotated[str, typer.Argument(metavar="SRC", help="Folder or archive of photos, or an annotation file.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="folder, table, coco, yolo, voc, label-studio, hf or bundle; auto tells by the content.",
    ),
]
Rule = Annotated[
    str,
    typer.Option(
        metavar="RULE",
        help="How class names are read: auto, none, one target's name, or a pattern like crop___disease"
        " or category/disease.",
    ),
]
TaxonomyFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="YAML of what each class name means; instead of a rule.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:KIND[:UNIT]]",
        help="A list's column to predict; kinds are class, multilabel, value. May be repeated.",
    ),
]
ImageColumn = Annotated[str | None, typer.Option(metavar="NAME", help="A list's column of photos.")]
GroupColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="A list's column of what a split must keep together.")
]
Reference = Annotated[bool, typer.Option("--reference", help="Leave photos where they are; copy nothing.")]


def import_(
    console: Console,
    source: Source,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="URL of the dataset; made if it is not there.")],
    format_: Format = "auto",
    labels: Rule = "auto",
    taxonomy: TaxonomyFile = None,
    draft_taxonomy: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the guessed taxonomy there to edit, and stop.")
    ] = None,
    target: Targets = None,
    image_column: ImageColumn = None,
    group_column: GroupColumn = None,
    reference: Reference = False,
    allow_root: AllowRoot = None,
) -> None:
    """Bring photos and their labels into a dataset.

    Folders named train, val or test give the split, the folder around a photo its class. Photos that cannot
    be read come in as excluded rows with the reason. The source is only read. Importing it again adds
    what is new.
    """
    from plantml import storage
    from plantml.data import formats
    from plantml.data import labels as label_rules
    from plantml.storage.addresses import Trust

    given = label_rules.load_taxonomy(taxonomy) if taxonomy else None
    listing = formats.list_source(
        source,
        format=format_,
        rule=labels,
        taxonomy=given,
        targets=target or (),
        image_column=image_column,
        group_column=group_column,
        trust=Trust.of(allow_root, offline=console.machine.offline),
    )
    if draft_taxonomy:
        names = listing.classes
        drafted_text = label_rules.draft(given or label_rules.read_names(names, labels))
        try:
            storage.create(draft_taxonomy, drafted_text.encode())
        except AlreadyExistsError as error:
            why = "it may have been edited"
            raise InputError(f"{draft_taxonomy} exists already", why, "Choose another name, or remove it.") from error
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
    _bring(console, "import", source, dataset, listing, reference=reference)


ADD_EXAMPLES = [
    "plantml dataset add leaves week-47.csv",
    "plantml dataset add leaves s3://lab/feed --labels crop___disease --new-classes",
]


def add(
    console: Console,
    dataset: Dataset,
    source: Source,
    new_classes: Annotated[
        bool, typer.Option("--new-classes", help="Allow targets and classes that the dataset does not have.")
    ] = False,
    format_: Format = "auto",
    labels: Rule = "auto",
    taxonomy: TaxonomyFile = None,
    target: Targets = None,
    image_column: ImageColumn = None,
    group_column: GroupColumn = None,
    reference: Reference = False,
    allow_root: AllowRoot = None,
) -> None:
    """Add new labelled photos to a dataset that is there.

    Only photos with new names are read. Classes must be known, so that a typing error is no new class; photos
    whose very bytes are known under another label are told, and `check` finds them.
    """
    from plantml.data import editing, formats, versions
    from plantml.data import labels as label_rules
    from plantml.storage.addresses import Trust

    listing = formats.list_source(
        source,
        format=format_,
        rule=labels,
        taxonomy=label_rules.load_taxonomy(taxonomy) if taxonomy else None,
        targets=target or (),
        image_column=image_column,
        group_column=group_column,
        trust=Trust.of(allow_root, offline=console.machine.offline),
    )
    editing.check_known(versions.load(dataset), listing, new_classes=new_classes)
    _bring(console, "add", source, dataset, listing, reference=reference)


def _bring(
    console: Console, verb: str, source: str, dataset: str, listing: "ImportListing", *, reference: bool
) -> None:
    from plantml.data import importing

    done = importing.import_source(
        source,
        dataset,
        listing,
        reference=reference,
        threads=console.machine.threads,
        progress=console.progress(f"{verb}ing"),
    )
    console.result(f"dataset {verb}", _imported(done), lambda page: _show_imported(page, done, dataset))
    if done.listed and not done.usable:
        raise InputError(
            f"No photo of {source} can be used",
            f"of {count(done.listed, 'photo')} all are excluded: {importing.reasons(done)}",
            f"Mend the source and import it again; plantml dataset info {dataset} counts the reasons.",
        )


def _imported(done: "Imported") -> dict[str, Any]:
    from plantml.data import summary

    version = done.version
    return {
        "dataset": version.ref,
        "fingerprint": version.fingerprint,
        "changed": done.changed,
        "listed": done.listed,
        "usable": done.usable,
        "added": done.added,
        "mended": list(done.mended),
        "known": done.known,
        "copies": done.copies,
        "conflicts": [{"name": name, "target": target, "labels": said} for name, target, said in done.conflicts],
        "excluded": [{"name": name, "reason": reason} for name, reason in done.excluded],
        "refused": done.refused,
        "relabelled": list(done.relabelled),
        "replaced": list(done.replaced),
        "skipped": dict(done.skipped),
        "labels": done.rule,
        "targets": [asdict(target) for target in version.targets],
        "boxes": summary.count_boxes(version.usable()),
        "notes": list(done.notes),
    }  # fmt: skip


def _show_imported(page: Page, done: "Imported", dataset: str) -> None:
    version = done.version
    page.line(f"{version.ref}: {done.added} of {count(done.listed, 'photo')} added, {done.known} were there already")
    page.line(f"Labels: {done.rule}")
    for target in version.targets:
        shown = ", ".join(target.classes[:12]) + (" …" if len(target.classes) > 12 else "") or target.unit
        page.line(
            f"  {target.name}: {count(len(target.classes), 'class', 'classes') if target.classes else 'value'}: {shown}"
        )
    _show_boxes(page, done)
    if done.copies:
        page.line(f"Exact copies of other photos: {done.copies}")
    for name, target_name, said in done.conflicts[:10]:
        page.line(f"Conflict: {name}: {target_name} {said}")
    if len(done.conflicts) > 10:
        page.line(f"Conflict: {len(done.conflicts) - 10} more; --json has them all")
    for name, reason in done.excluded[:10]:
        page.line(f"Excluded: {name} ({reason})")
    if len(done.excluded) > 10:
        page.line(f"Excluded: {len(done.excluded) - 10} more; plantml dataset info {dataset}")
    if done.refused:
        page.line(f"Not read: {count(done.refused, 'photo')} named outside the source; --allow-root URL allows more")
    for reason, number in done.skipped.items():
        page.line(f"Passed over: {count(number, 'file')} ({reason})")
    _show_changed(page, done)
    for note in done.notes:
        page.line(note)
    show_next(page, version, dataset)


def _show_boxes(page: Page, done: "Imported") -> None:
    from plantml.data import summary

    counts = sorted(summary.count_boxes(done.version.usable()).items(), key=lambda pair: -pair[1])
    if counts:
        names = ", ".join(f"{name or 'no class'} {number}" for name, number in counts[:12])
        more = " …" if len(counts) > 12 else ""
        page.line(f"Boxes: {sum(number for _, number in counts)}: {names}{more}")


def _show_changed(page: Page, done: "Imported") -> None:
    """Photos that were there already, and are not what they were."""
    if done.mended:
        again = count(len(done.mended), "photo")
        page.line(f"{again} could not be read before and came anew, such as {done.mended[0]}.")
    if done.relabelled:
        others = count(len(done.relabelled), "photo has", "photos have")
        page.line(f"{others} other labels at the source now; the dataset keeps its own.")
    if done.replaced:
        page.line(
            f"{count(len(done.replaced), 'photo')} at the source are other files now, such as {done.replaced[0]}; "
            "the dataset keeps those that it has. Give new photos new names."
        )
