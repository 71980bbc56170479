"""Hugging Face image folders: `metadata.csv`, `.jsonl` or `.parquet` beside the photos, one file or one per split.

Format: https://huggingface.co/docs/datasets/image_dataset. `file_name` names the photo; `objects` may hold
boxes (x, y, width, height in pixels) and their categories.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from plantml.data.boxes import Box
from plantml.data.importers import ImportListing, Item, split_of
from plantml.data.importers.annotations import Reading, understood
from plantml.data.importers.table import list_rows
from plantml.data.importers.tree import Tree
from plantml.data.importers.vetting import name_of
from plantml.data.tables import read_table
from plantml.errors import InputError

_FILES = {"metadata.csv", "metadata.jsonl", "metadata.parquet"}
_CATEGORIES = ("categories", "category", "labels", "label")


def fits(tree: Tree) -> bool:
    """True if there is a metadata file with a column `file_name`."""
    return any("file_name" in read_table(tree.url_of(name)).columns for name in _files(tree))


def list_hf(tree: Tree, reading: Reading) -> ImportListing:
    """List the photos that the tree's metadata files name, each relative to its own file."""
    files = _files(tree)
    if not files:
        raise InputError(
            f"No metadata.csv or metadata.jsonl in {tree.url}",
            "they list the photos",
            "Add one of them, or choose another --format.",
        )
    tables = [_table(tree, name) for name in files]
    table = pl.concat(tables, how="diagonal_relaxed")
    objects = dict(zip(table["file_name"], table["objects"], strict=True)) if "objects" in table.columns else {}
    rest = table.drop("objects", strict=False)
    listing = list_rows(tree.url, rest, tree.url, replace(reading, image_column="file_name"))
    if objects:
        with understood(tree.url):
            listing = _with_boxes(listing, objects, reading)
    return replace(listing, skipped=dict(tree.skipped_besides(item.name for item in listing.items)))


def _files(tree: Tree) -> list[str]:
    return [name for name in tree.files if posixpath.basename(name) in _FILES]


def _table(tree: Tree, name: str) -> pl.DataFrame:
    table = read_table(tree.url_of(name))
    if "file_name" not in table.columns:
        raise InputError(
            f"{tree.url_of(name)} has no column file_name",
            f"its columns: {', '.join(table.columns)}",
            "Name the column of photos file_name.",
        )
    folder = posixpath.dirname(name)
    if folder:
        table = table.with_columns(file_name=pl.lit(f"{folder}/") + pl.col("file_name").cast(pl.String))
    if "split" not in table.columns and split_of(name):
        table = table.with_columns(split=pl.lit(split_of(name)))
    return table


def _with_boxes(listing: ImportListing, objects: Mapping[str, Any], reading: Reading) -> ImportListing:
    boxes_of = {name: _boxes(content) for name, content in objects.items() if content is not None}
    names = {label for boxes in boxes_of.values() for _, label in boxes if label is not None}
    taxonomy = reading.names(names)

    def drawn(item: Item) -> tuple[Box, ...] | None:
        if item.name not in boxes_of:
            return None
        return tuple(
            Box(box[0], box[1], box[2], box[3], {} if label is None else dict(taxonomy(label)))
            for box, label in boxes_of[item.name]
        )

    items = tuple(replace(item, boxes=drawn(item)) for item in listing.items)
    classes = tuple(sorted({*listing.classes, *names}))
    return replace(listing, items=items, classes=classes)


def _boxes(content: Mapping[str, Any]) -> list[tuple[list[float], str | None]]:
    boxes = content.get("bbox") or []
    labels = next((content[key] for key in _CATEGORIES if content.get(key) is not None), [None] * len(boxes))
    if any(len(box) != 4 for box in boxes):
        raise ValueError("a box needs four numbers")
    return [
        ([float(value) for value in box], None if label is None else name_of(label))
        for box, label in zip(boxes, labels, strict=True)
    ]
