"""Measured columns of a dataset's photos, such as temperature or variety, which are metadata of a version."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from plantml.data import manifest, tables, versions
from plantml.data.editing import row_finder
from plantml.data.manifest import SYSTEM, Version, meta_column
from plantml.data.versions import Committed
from plantml.errors import InputError
from plantml.targets import Target


def column_of(rows: pl.DataFrame, name: str) -> str | None:
    """The column of a manifest that holds a covariate: metadata, or else a target; `None` if there is none."""
    return next((column for column in (f"meta_{name}", name) if column in rows.columns), None)


def rows_of(rows: pl.DataFrame, names: Iterable[str]) -> Sequence[dict[str, Any]]:
    """The covariates of photos by name, one dictionary per row; those that the manifest lacks are left out."""
    columns = {name: column for name in names if (column := column_of(rows, name)) is not None}
    if not columns:
        return [{} for _ in range(rows.height)]
    return rows.select(pl.col(column).alias(name) for name, column in columns.items()).to_dicts()


def fingerprint(rows: pl.DataFrame, targets: Iterable[Target], names: Iterable[str]) -> str:
    """As `manifest.fingerprint`, with the covariates of these names, as far as there are such columns."""
    columns = [column_of(rows, name) for name in names]
    return manifest.fingerprint(rows, targets, [column for column in columns if column is not None])


@dataclass(frozen=True)
class Joined:
    """The result of joining a table.

    `unmatched` are rows of the table that name no photo of the dataset.
    """

    columns: Sequence[str]
    listed: int
    joined: int
    unmatched: int


def join(ref: str, url: str, columns: Sequence[str] = (), image_column: str | None = None) -> Committed[Joined]:
    """Take columns of a table into the metadata of the photos that it names; an empty cell changes nothing.

    Args:
        ref: of the dataset.
        url: of the table. It names photos by their path relative to their source, by a unique file name, or by the
            SHA-256 of their bytes, and may name others, too.
        columns: to take; by default all that are neither targets nor columns of every dataset.
        image_column: of the table, which names the photos.

    Raises:
        InputError: the table lacks a column, a column is a target, it names no photo of the dataset, a photo twice, or
            several photos by one name.
    """
    table, version = tables.read_table(url), versions.load(ref)
    image_column = tables.image_column(url, table.columns, image_column, "--image-column")
    taken = {*SYSTEM, *(target.name for target in version.targets), image_column}
    columns = list(columns) or [name for name in table.columns if name not in taken]
    for name in columns:
        _check_column(url, table, name, version)
    if not columns:
        raise InputError(f"{url} has no columns to join", f"it has {', '.join(table.columns)}", "Name another table.")

    def apply(head: Version) -> tuple[pl.DataFrame, tuple[Target, ...], Joined]:
        matches = _match(head, url, table[image_column].to_list())
        rows = head.rows
        changed: set[int] = set()
        for name in columns:
            column = meta_column(name)
            values = rows[column].to_list() if column in rows.columns else [None] * rows.height
            for place, value in zip(matches, table[name].to_list(), strict=True):
                if value is not None and str(value).strip():
                    for at in place:
                        values[at] = str(value).strip()
                    changed.update(place)
            rows = rows.with_columns(pl.Series(column, values, dtype=pl.String))
        unmatched = sum(not place for place in matches)
        return rows, head.targets, Joined(columns, table.height, len(changed), unmatched)

    return versions.change(ref, "join", {"table": url, "columns": ",".join(columns)}, apply)


def _check_column(url: str, table: pl.DataFrame, name: str, version: Version) -> None:
    if name not in table.columns:
        raise InputError(
            f"{url} has no column {name!r}", f"its columns: {', '.join(table.columns)}", "Name one of its columns."
        )
    if name in {target.name for target in version.targets}:
        raise InputError(
            f"{name} is a target of {version.ref}",
            "labels are corrected, not joined",
            f"plantml dataset relabel {version.url} {url}",
        )


def _match(version: Version, url: str, names: Sequence[Any]) -> list[Sequence[int]]:
    """The rows of a version that each row of a table names; copies of one photo by its SHA-256."""
    find = row_finder(version)
    by_hash: dict[str, list[int]] = {}
    for row, image_id in enumerate(version.rows["image_id"]):
        by_hash.setdefault(str(image_id), []).append(row)
    matches: list[Sequence[int]] = []
    named: dict[int, str] = {}
    for name in map(str, names):
        rows = by_hash.get(name.lower()) or find(name)
        if len(rows) > 1 and name.lower() not in by_hash:
            raise InputError(
                f"{name} of {url} matches {len(rows)} photos of {version.ref}",
                "a file name alone is not unique",
                "Name photos by their path relative to their source.",
            )
        twice = next((row for row in rows if row in named), None)
        if twice is not None:
            raise InputError(
                f"{url} names {version.rows['name'][twice]} twice",
                f"as {named[twice]} and as {name}",
                "Keep one of its rows.",
            )
        named.update(dict.fromkeys(rows, name))
        matches.append(rows)
    if not named:
        example = f"the dataset's names look like {version.rows['name'][0]!r}" if version.rows.height else "it is empty"
        raise InputError(f"{url} names no photo of {version.ref}", example, "Name its photos: --image-column NAME")
    return matches
