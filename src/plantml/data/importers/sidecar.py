"""`plantml.json`: what plantml adds to an export because its format cannot express it.

An import that finds it restores what was exported.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from plantml.data import boxes
from plantml.data.importers import ImportListing, Item
from plantml.data.importers.vetting import name_of, targets_of
from plantml.data.labels import Labels
from plantml.errors import InputError
from plantml.targets import Target, check_name

FILE = "plantml.json"
INCOMPLETE = "plantml-export-incomplete"
"""Marks an export until its last file is written."""

_VERSION = 1


@dataclass(frozen=True)
class Sidecar:
    """What a format cannot express.

    Attributes:
        format: the exporter that wrote it.
        targets: with kind, classes in order, and unit.
        classes: labels of each class name.
        images: by the photo's name in the export: any of `labels`, `split`, `group` and `boxes` (rows of a
            manifest, or null for "not annotated"). The format itself expresses what is missing here, or all.
    """

    format: str
    targets: tuple[Target, ...] = ()
    classes: Mapping[str, Labels] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The content of its file."""
        return {
            "plantml_sidecar": _VERSION,
            "format": self.format,
            "targets": [asdict(target) for target in self.targets],
            "classes": {name: dict(labels) for name, labels in self.classes.items()},
            "images": {name: dict(content) for name, content in self.images.items() if content},
        }

    def over(self, listing: ImportListing, *, labels: bool = True) -> ImportListing:
        """The listing with the sidecar's content added; without its labels if the user reads them by another rule."""
        if not labels:
            items = tuple(
                _over(item, {**self.images.get(item.name, {}), "labels": {}}, set()) for item in listing.items
            )
            return replace(listing, items=items)
        by_name = {target.name: target for target in (*self.targets, *listing.targets)}
        by_name |= {target.name: target for target in self.targets}
        many = {target.name for target in self.targets if target.kind == "multilabel"}
        items = tuple(_over(item, self.images.get(item.name, {}), many) for item in listing.items)
        return replace(listing, items=items, targets=tuple(by_name.values()))


def parse(url: str, content: Any) -> Sidecar:
    """A sidecar from its parsed JSON. Raises `InputError` if it is malformed, or from a newer plantml."""
    try:
        version = content["plantml_sidecar"]
        if version != _VERSION:
            raise InputError(f"{url} has version {version}", f"this plantml reads {_VERSION}", "Update plantml.")
        classes = {name: _labels(labels) for name, labels in content["classes"].items()}
        images = {name: dict(each) for name, each in content["images"].items()}
        return Sidecar(name_of(content["format"]), targets_of(content["targets"]), classes, images)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{url} is not a plantml sidecar",
            f"{type(error).__name__}: {error}",
            "Remove it to import the photos by their format alone.",
        ) from error


def _labels(content: Any) -> Labels:
    return {check_name(name_of(target)): name_of(label) for target, label in content.items()}


def _over(item: Item, entry: Mapping[str, Any], many: set[str]) -> Item:
    labels = {**item.labels, **entry.get("labels", {})}
    labels = {key: [value] if key in many and isinstance(value, str) else value for key, value in labels.items()}
    drawn = boxes.from_rows(entry["boxes"]) if "boxes" in entry else item.boxes
    return replace(
        item, labels=labels, split=entry.get("split", item.split), group=entry.get("group", item.group), boxes=drawn
    )
