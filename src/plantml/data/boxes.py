"""Boxes around what is to be seen in a photo."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with straight sides, in pixels of the upright photo.

    Attributes:
        x: of the left side.
        y: of the upper side.
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


def from_row(row: Mapping[str, Any]) -> Box:
    """A box from an element of a manifest's `boxes`."""
    return Box(row["x"], row["y"], row["w"], row["h"], json.loads(row["labels"] or "{}"))
