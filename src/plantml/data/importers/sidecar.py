"""`plantml.json`: what plantml writes beside an exported set because the set's format cannot say it.

Where it lies in a source, the import gives back what was exported. A foreign set never has it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from plantml.data import boxes
from plantml.data.importers import Item, Listing
from plantml.data.importers.vetting import name_of, targets_of
from plantml.data.labels import Labels
from plantml.errors import InputError
from plantml.targets import Target, check_name

FILE = "plantml.json"
INCOMPLETE = "plantml-export-incomplete"
"""Lies in an export until the last file is written."""

_VERSION = 1


@dataclass(frozen=True)
class Sidecar:
    """What a format cannot say of a set.

    Attributes:
        format: the exporter that wrote it.
        targets: with kind, classes in order, and unit.
        classes: what each class name of the set means.
        images: by the photo's name in the set: any of `labels`, `split`, `group`, and `boxes` (rows of a
            manifest, or null for "nobody drew any"). What is not named there the format says itself.
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
            "images": {name: dict(content) for name, content in self.images.items()},
        }

    def over(self, listing: Listing, *, labels: bool = True) -> Listing:
        """The listing with what the format could not say; without labels where the user reads them otherwise."""
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
    """A sidecar from its parsed JSON. Raises `InputError` if it is none, or from a newer plantml."""
    try:
        version = content["plantml_sidecar"]
        if version != _VERSION:
            raise InputError(f"{url} has version {version}", f"this plantml reads {_VERSION}", "Update plantml.")
        classes = {name: _labels(labels) for name, labels in content["classes"].items()}
        images = {name: dict(each) for name, each in content["images"].items()}
        return Sidecar(name_of(content["format"]), targets_of(content["targets"]), classes, images)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{url} is not what plantml writes beside an export",
            f"{type(error).__name__}: {error}",
            "Remove it to import the set as its format alone describes it.",
        ) from error


def _labels(content: Any) -> Labels:
    return {check_name(name_of(target)): name_of(label) for target, label in content.items()}


def _over(item: Item, said: Mapping[str, Any], many: set[str]) -> Item:
    labels = {**item.labels, **said.get("labels", {})}
    labels = {key: [value] if key in many and isinstance(value, str) else value for key, value in labels.items()}
    drawn = item.boxes
    if "boxes" in said:
        rows = said["boxes"]
        drawn = None if rows is None else tuple(boxes.from_row(row) for row in rows)
    return replace(
        item, labels=labels, split=said.get("split", item.split), group=said.get("group", item.group), boxes=drawn
    )
