"""List a source's photos and labels: the table of formats that plantml imports."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from plantml import storage
from plantml.data import manifest
from plantml.data.importers import ImportListing, bundle, coco, cvat, folder, hf, label_studio, sidecar, voc, yolo
from plantml.data.importers.annotations import Reading, understood
from plantml.data.importers.table import CLASS_COLUMNS, KNOWN_TARGETS, list_rows
from plantml.data.importers.tree import Tree
from plantml.data.importers.vetting import vetted
from plantml.data.labels import Taxonomy
from plantml.data.tables import EXTENSIONS as TABLES
from plantml.data.tables import is_table, read_table
from plantml.errors import InputError, PlantmlError, UsageError
from plantml.storage import addresses
from plantml.storage.addresses import Trust
from plantml.targets import check_name

AUTO = "auto"
_FILES = {".json", ".xml", ".yaml", ".yml"}


@dataclass(frozen=True)
class _Format:
    """How a format is recognized in a tree, and read: from the tree, or from a single file if it has such files."""

    fits: Callable[[Tree], bool]
    read: Callable[[Tree, Reading], ImportListing]
    read_file: Callable[[Tree, Reading, str], ImportListing] | None = None


def _tables(tree: Tree) -> list[str]:
    return [name for name in tree.with_suffix(*TABLES) if "/" not in name]


def _read_table(tree: Tree, reading: Reading, file: str | None = None) -> ImportListing:
    files = [file] if file else _tables(tree)
    if len(files) != 1:
        raise InputError(
            f"{tree.url} has {len(files)} lists of photos",
            ", ".join(files) or "no file at its top level ends in .csv, .tsv, .jsonl, .ndjson or .parquet",
            "Name the list itself as the source.",
        )
    if reading.sidecar is not None and not reading.targets:
        targets = [f"{target.name}:{target.kind}:{target.unit}" for target in reading.sidecar.targets]
        reading = replace(reading, targets=targets)
    return list_rows(tree.url_of(files[0]), read_table(tree.url_of(files[0])), tree.url, reading)


FORMATS: Mapping[str, _Format] = {
    "bundle": _Format(bundle.fits, bundle.list_bundle),
    "hf": _Format(hf.fits, hf.list_hf),
    "yolo": _Format(yolo.fits, yolo.list_yolo),
    "voc": _Format(voc.fits, voc.list_voc),
    "cvat": _Format(cvat.fits, cvat.list_cvat, cvat.list_cvat),
    "coco": _Format(coco.fits, coco.list_coco, coco.list_coco),
    "label-studio": _Format(label_studio.fits, label_studio.list_label_studio, label_studio.list_label_studio),
    "table": _Format(lambda _: False, _read_table, _read_table),
    "folder": _Format(lambda _: False, folder.list_tree),
}
"""Importers by format name. `table` and `folder` are never detected; `folder` is the fallback."""


def list_source(
    source: str,
    *,
    format: str = AUTO,  # noqa: A002 - the name of the option
    rule: str = "auto",
    taxonomy: Taxonomy | None = None,
    targets: Sequence[str] = (),
    image_column: str | None = None,
    group_column: str | None = None,
    trust: Trust | None = None,
) -> ImportListing:
    """List all photos of a source with their labels, without decoding a photo.

    A source is a folder, an archive (zip or tar), or a single annotation file. A photo at an address that must not
    be opened is listed with the reason.

    Args:
        source: its URL.
        format: one of `FORMATS`, or `auto`: plantml's own exports are recognized by their sidecar, other formats
            by their content; the fallback is `folder`.
        rule: how class names are read; see `labels.read_names`.
        taxonomy: used instead of the rule.
        targets: columns of a table to predict: `name`, `name:kind` or `name:value:unit`.
        image_column: of a table.
        group_column: of a table.
        trust: which addresses the source may name outside itself and its folder.

    Raises:
        UsageError: there is no such format.
        InputError: there is nothing at `source`, no format fits, or several do.
    """
    if not source.strip():
        raise UsageError("No source is named", "its name is empty", "Name a folder, an archive or a list.")
    if format not in {AUTO, *FORMATS}:
        raise UsageError(
            f"There is no format {format!r}",
            f"formats: {AUTO}, {', '.join(sorted(FORMATS))}",
            "Choose one of them, or leave --format out.",
        )
    source = storage.absolute(source)
    if not storage.is_unicode(source):
        raise InputError(f"{source} cannot be imported", "its name is not UTF-8, as manifests are", "Rename it.")
    reading, trust = Reading(rule, taxonomy, targets, image_column, group_column), trust or Trust()
    listing = vetted(_list(source, format, reading, trust.roots))
    for target in listing.targets:
        check_name(target.name, manifest.SYSTEM)
    return _judged(listing, source, trust)


def _judged(listing: ImportListing, source: str, trust: Trust) -> ImportListing:
    roots = addresses.own_roots(source, "")  # of nearly all photos
    reasons = (
        (at, trust.refusal(item.url, addresses.own_roots(source, item.name) if item.name.startswith("..") else roots))
        for at, item in enumerate(listing.items)
        if item.url
    )
    refusals = {at: why for at, why in reasons if why}
    if not refusals:
        return listing
    items = tuple(
        replace(item, refusal=refusals[at]) if at in refusals else item for at, item in enumerate(listing.items)
    )
    return replace(listing, items=items)


def _list(source: str, name: str, reading: Reading, roots: Sequence[str]) -> ImportListing:
    ends, place = storage.suffix(source), storage.inside(source)
    if not is_table(source):
        # Do not ask a web server whether an archive is a folder: it would answer with the whole file.
        called_a_file = bool(place) or ends in _FILES
        if (storage.is_local(source) or not called_a_file) and storage.is_dir(source):
            return _list_tree(Tree(source, roots=roots), name, reading)
        if not storage.exists(source):
            raise InputError(
                f"There is nothing at {source}",
                "",
                "Name a folder or archive of photos, or a CSV, JSONL or Parquet list.",
            )
        if place:
            return _list_tree(_opened(Tree(place)), name, reading)
    if ends in {".yaml", ".yml"} and name in {AUTO, "yolo"}:
        return FORMATS["yolo"].read(Tree(storage.split(source)[0] or ".", roots=roots), reading)
    if not is_table(source) and ends not in {".json", ".xml"}:
        raise InputError(
            f"{source} is neither a folder, nor an archive, nor a list",
            "",
            "Lists end in .csv, .tsv, .jsonl, .ndjson, .parquet, .json or .xml;"
            " archives in .zip, .tar, .tar.gz or .tgz.",
        )
    around = Tree(storage.split(source)[0] or ".", listed=False)
    return _list_file(around, storage.basename(source), name, reading)


def _list_file(around: Tree, file: str, name: str, reading: Reading) -> ImportListing:
    url = around.url_of(file)
    if name == AUTO and is_table(file):
        name = "table"
    elif name == AUTO and storage.suffix(file) == ".xml":
        name = "cvat"
    elif name == AUTO:
        content = around.json(file)
        name = "coco" if coco.is_coco(content) else "label-studio" if label_studio.is_label_studio(content) else name
    read = FORMATS[name].read_file if name in FORMATS else None
    if read is None:
        known = [each for each, format_ in FORMATS.items() if format_.read_file]
        raise InputError(
            f"{url} cannot be read" + ("" if name == AUTO else f" as {name}"),
            f"single files are read as {', '.join(known)}",
            "Name the folder around it as the source.",
        )
    export_sidecar = _sidecar(around) if is_table(file) else None
    return _with(export_sidecar, read(around, replace(reading, sidecar=export_sidecar), file), reading)


def _list_tree(tree: Tree, name: str, reading: Reading) -> ImportListing:
    if tree.has(sidecar.INCOMPLETE):
        raise InputError(f"{tree.url} is an unfinished export", f"it contains {sidecar.INCOMPLETE}", "Export it again.")
    if tree.has("versions/000001.parquet"):
        raise InputError(
            f"{tree.url} is a dataset",
            "its photos are named by their hashes",
            f"Merge it: plantml dataset merge DATASET {tree.url}",
        )
    export_sidecar = _sidecar(tree)
    notes: list[str] = []
    if name == AUTO:
        name = export_sidecar.format if export_sidecar and export_sidecar.format in FORMATS else _detect(tree)
        if name == "folder":
            notes = list(_unread(tree))
        elif name not in {"hf", "bundle"} and export_sidecar is None:
            notes = list(_unread_labels(tree, name))
    listing = FORMATS[name].read(tree, replace(reading, sidecar=export_sidecar))
    listing = replace(listing, notes=(*listing.notes, *notes, *tree.notes))
    return _with(export_sidecar, listing, reading)


def _unread(tree: Tree) -> Iterator[str]:
    """Notes on files beside the photos that could hold their labels."""
    if lists := _tables(tree):
        yield f"{', '.join(lists)} was not read: to import what it lists, name it as the source."
    others = [name for name in tree.with_suffix(*sorted(_FILES)) if name != sidecar.FILE]
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        yield (
            f"{others[0]}{more} was not read: no annotation format fits. If it annotates these photos, name its"
            " format: --format voc, cvat, yolo, coco or label-studio."
        )


def _unread_labels(tree: Tree, name: str) -> Iterator[str]:
    """Notes on tables beside annotations of a format, where they label the photos."""
    for table in _tables(tree):
        try:
            columns = read_table(tree.url_of(table)).columns
        except PlantmlError:  # it need not be about photos
            continue
        if labels := [column for column in (*KNOWN_TARGETS, *CLASS_COLUMNS) if column in columns]:
            yield (
                f"{table} was not read: the annotations are {name}. It has {', '.join(labels)} of photos. To import"
                " these instead, name it as the source."
            )


def _with(export_sidecar: sidecar.Sidecar | None, listing: ImportListing, reading: Reading) -> ImportListing:
    if export_sidecar is None:
        return listing
    with understood(sidecar.FILE):
        return export_sidecar.over(listing, labels=reading.rule == AUTO and reading.taxonomy is None)


def _opened(tree: Tree) -> Tree:
    """An archive's tree, starting at its single top folder if that is a plantml export."""
    top = next(iter(tree.files), "").partition("/")[0]
    own = {f"{top}/{name}" for name in (sidecar.FILE, sidecar.INCOMPLETE, bundle.FILE)}
    if not own & set(tree.files) or not all(name.startswith(f"{top}/") for name in tree.files):
        return tree
    inner = Tree(storage.join(tree.url, top))
    inner.skipped = tree.skipped
    return inner


def _sidecar(tree: Tree) -> sidecar.Sidecar | None:
    if not tree.has(sidecar.FILE):
        return None
    return sidecar.parse(tree.url_of(sidecar.FILE), tree.json(sidecar.FILE))


def _detect(tree: Tree) -> str:
    fitting = [name for name, format_ in FORMATS.items() if format_.fits(tree)]
    if len(fitting) > 1 and fitting[0] != "bundle":
        raise InputError(
            f"{tree.url} fits several formats",
            f"it has the files of {' and '.join(fitting)}",
            f"Choose one, such as --format {fitting[0]}, or name one annotation file as the source.",
        )
    if fitting:
        return fitting[0]
    if yolo.lacks_names(tree):
        return "yolo"  # which says so: imported as a folder, the photos would lose their boxes
    if not tree.photos:
        raise tree.without_photos(f"Name a folder of photos, or set --format: {', '.join(FORMATS)}")
    return "folder"
