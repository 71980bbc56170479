"""A whole dataset in one file, as `plantml dataset export --format bundle` writes it."""

import io
from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

from plantml import storage
from plantml.data import boxes, manifest
from plantml.data.importers import ImportListing, Item
from plantml.data.importers.annotations import Reading, understood
from plantml.data.importers.tree import Tree
from plantml.data.importers.vetting import targets_of
from plantml.errors import InputError
from plantml.parsing import parse_json_object
from plantml.targets import Target

FILE = "plantml-bundle.json"
ROWS = "rows.parquet"
VERSION = 1

_NEEDED = ("source", "name", "image_id", "boxes", "group", "split", "status", "reason")
_MISSING = "images/missing"


def fits(tree: Tree) -> bool:
    """True if the tree is a bundle."""
    return FILE in tree.files


def list_bundle(tree: Tree, reading: Reading) -> ImportListing:
    """List every row of a bundle unchanged, whatever its status. Labels are stored, so no rule applies."""
    del reading
    targets, rows = _content(tree)
    with understood(tree.url):
        items = _items(tree, targets, rows)
    return ImportListing(
        tuple(sorted(items, key=lambda item: item.name)), targets, "stored in the bundle", dict(tree.skipped)
    )


def _items(tree: Tree, targets: tuple[Target, ...], rows: pl.DataFrame) -> list[Item]:
    repeated = {name for name, number in Counter(rows["name"]).items() if number > 1}
    sources = {name: number for number, name in enumerate(sorted(set(rows["source"])), start=1)}
    items = []
    for row in rows.sort(manifest.KEY).iter_rows(named=True):
        prefix = f"{sources[row['source']]}/" if row["name"] in repeated else ""
        items.append(_item(tree, prefix + row["name"], row, targets))
    return items


def _content(tree: Tree) -> tuple[tuple[Target, ...], pl.DataFrame]:
    try:
        head = parse_json_object(tree.read(FILE), tree.url_of(FILE))
        version = head["plantml_bundle"]
        if version != VERSION:
            raise InputError(f"{tree.url} is a bundle of version {version}", f"this is {VERSION}", "Update plantml.")
        targets = targets_of(head["targets"])
        rows = pl.read_parquet(io.BytesIO(tree.read(ROWS)))
        rows.select(*_NEEDED, *(target.name for target in targets))
        return targets, manifest.conform(rows, targets)
    except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{tree.url} is a damaged bundle", why, "Export it again.") from error


def _item(tree: Tree, name: str, row: Mapping[str, Any], targets: tuple[Target, ...]) -> Item:
    return Item(
        name,
        "" if row["status"] == manifest.NO_PHOTO else storage.join(tree.url, member(row) or _MISSING),
        labels={target.name: row[target.name] for target in targets if row[target.name] is not None},
        split=row["split"],
        group=row["group"],
        boxes=boxes.from_rows(row["boxes"]),
        meta={key[5:]: text for key, text in row.items() if key.startswith("meta_") and text is not None},
        status=row["status"] if row["status"] in {manifest.NO_PHOTO, manifest.EXCLUDED} else "ok",
        reason=row["reason"] or "",
    )


def member(row: Mapping[str, Any]) -> str | None:
    """The name of a row's photo in a bundle, from its SHA-256; `None` if its bytes were never read."""
    identity = row["image_id"]
    return f"images/{identity[:2]}/{identity}{storage.suffix(row['name'])}" if identity else None
