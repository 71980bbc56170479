"""Bounding boxes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from plantml.errors import InputError
from plantml.targets import Target, check_name


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle, in pixels of the upright photo: left, top, width, height; with labels by target."""

    x: float
    y: float
    w: float
    h: float
    labels: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def classes(self) -> dict[str, str]:
        """The labels that are classes, without values."""
        return {name: label for name, label in self.labels.items() if isinstance(label, str)}

    def as_row(self) -> dict[str, Any]:
        """The box as an element of a manifest's `boxes`: its labels are canonical JSON."""
        labels = json.dumps(dict(self.labels), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return {"x": float(self.x), "y": float(self.y), "w": float(self.w), "h": float(self.h), "labels": labels}


def from_rows(rows: Iterable[Mapping[str, Any]] | None) -> tuple[Box, ...] | None:
    """Boxes from a manifest's `boxes`; `None` if the photo is not annotated."""
    if rows is None:
        return None
    return tuple(Box(row["x"], row["y"], row["w"], row["h"], json.loads(row["labels"] or "{}")) for row in rows)


def annotated(rows: pl.DataFrame) -> pl.DataFrame:
    """The photos in which somebody looked for boxes, with the boxes that have an area: no model finds the others."""
    sides = pl.element().struct
    has_area = (sides.field("w") > 0) & (sides.field("h") > 0)
    drawn = rows.filter(pl.col("boxes").is_not_null())
    return drawn.with_columns(pl.col("boxes").list.eval(pl.element().filter(has_area)))


def targets_of(rows: Iterable[Mapping[str, Any] | None], known: Sequence[Target] = ()) -> tuple[Target, ...]:
    """The targets that the labels of boxes name, sorted by name.

    Args:
        rows: boxes of a manifest, of all photos.
        known: targets of the photos: one of the same name and kind gives unit and the order of classes.

    Raises:
        InputError: a target has classes and numbers.
    """
    labels: dict[str, set[str | float]] = {}
    for text in {row["labels"] for row in rows if row is not None and row["labels"]}:
        for name, label in json.loads(text).items():
            labels.setdefault(name, set()).add(label)
    by_name = {target.name: target for target in known}
    targets = []
    for name, values in sorted(labels.items()):
        classes = {value for value in values if isinstance(value, str)}
        if classes and len(classes) < len(values):
            raise InputError(f"Boxes have classes and numbers as {name}", "a target has one kind", "Fix the labels.")
        of_photos = by_name.get(name, Target(name, "class" if classes else "value"))
        order = [*(each for each in of_photos.classes if each in classes), *sorted(classes - set(of_photos.classes))]
        targets.append(Target(check_name(name), "class" if classes else "value", tuple(order), of_photos.unit))
    return tuple(targets)


def frame(rows: pl.DataFrame, targets: Sequence[Target]) -> pl.DataFrame:
    """One row per box of a manifest's rows: `x`, `y`, `w`, `h`, and a column per target, null where not labelled."""
    drawn = rows.select(pl.col("boxes").explode()).drop_nulls().unnest("boxes")
    labels = [json.loads(text or "{}") for text in drawn["labels"].to_list()]
    columns = [
        pl.Series(
            target.name, [each.get(target.name) for each in labels], pl.Float64 if target.kind == "value" else pl.String
        )
        for target in targets
    ]
    return drawn.select(*"xywh").with_columns(columns)


def around(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float, float, float]:
    """The smallest box around points: x, y, width, height."""
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
