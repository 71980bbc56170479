"""Bounding boxes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle, in pixels of the upright photo.

    Attributes:
        x: left edge.
        y: top edge.
        w: width.
        h: height.
        labels: class by target name.
    """

    x: float
    y: float
    w: float
    h: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """The box as an element of a manifest's `boxes`: its labels are canonical JSON."""
        labels = json.dumps(dict(self.labels), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return {"x": float(self.x), "y": float(self.y), "w": float(self.w), "h": float(self.h), "labels": labels}


def from_rows(rows: Iterable[Mapping[str, Any]] | None) -> tuple[Box, ...] | None:
    """Boxes from a manifest's `boxes`; `None` if the photo is not annotated."""
    if rows is None:
        return None
    return tuple(Box(row["x"], row["y"], row["w"], row["h"], json.loads(row["labels"] or "{}")) for row in rows)


def around(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float, float, float]:
    """The smallest box around points: x, y, width, height."""
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
