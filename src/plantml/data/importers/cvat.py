"""CVAT for images 1.1: one XML file of images with their boxes and tags.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. Corners are edges, in pixels of the photo.
"""

import math
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from plantml.data.boxes import around
from plantml.data.importers import SPLIT_NAMES, ImportListing, split_of
from plantml.data.importers.annotations import (
    Annotated,
    NamedBox,
    Reading,
    assemble,
    attribute_labels,
    counted,
    size_of,
    understood,
)
from plantml.data.importers.tree import Tree
from plantml.errors import InputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_SHAPES = ("box", "polygon", "ellipse", "mask")
_NO_BOXES = ("polyline", "points", "cuboid", "skeleton")
_ROOT, _PROBED = "annotations", 5

UNDEFINED = "__undefined__"
"""What CVAT's users call the default of an attribute that is not set: CVAT has no attribute without a default."""


def fits(tree: Tree) -> bool:
    """True if one of the first XML files is CVAT's."""
    return any(tree.root_tag(name) == _ROOT for name in tree.with_suffix(".xml")[:_PROBED])


def list_cvat(tree: Tree, reading: Reading, file: str | None = None) -> ImportListing:
    """List the photos of a tree's CVAT files, or of one file.

    A tag labels the whole photo, attributes are further labels. Where any box is drawn, an image without one is
    annotated without boxes. A rotated box and a polygon are imported as the box around them. The photo of a malformed
    annotation is excluded, with the reason.

    Raises:
        InputError: there is no such file, it is not CVAT for images, or a photo is named twice.
    """
    files = [file] if file else [name for name in tree.with_suffix(".xml") if tree.root_tag(name) == _ROOT]
    if not files:
        raise InputError(
            f"No CVAT file in {tree.url}",
            "none of its .xml files has the root <annotations>",
            "Export the task as CVAT for images 1.1.",
        )
    roots = {name: _root(tree, name) for name in files}
    drawn = any(image.find(shape) is not None for root in roots.values() for image in root for shape in _SHAPES)
    notes: Counter[str] = Counter()
    photos: dict[str, Annotated] = {}
    for name, root in roots.items():
        for photo in _photos(tree, name, root, notes, drawn=drawn):
            if photo.name in photos:
                raise InputError(
                    f"{photo.name} is named twice", f"the second time by {name}", "Name one file as the source."
                )
            photos[photo.name] = photo
    return assemble(photos.values(), reading, tree.skipped_besides(photos), counted(notes + tree.decisions))


def _root(tree: Tree, name: str) -> "Element":
    url = tree.url_of(name)
    with understood(url):
        root = tree.xml(name)
    if root.tag != _ROOT or root.find("track") is not None:
        why = "it holds the tracks of a video" if root.tag == _ROOT else f"its root is <{root.tag[:80]}>"
        raise InputError(f"{url} is not CVAT for images", why, "Export the task as CVAT for images 1.1.")
    return root


def _photos(tree: Tree, file: str, root: "Element", notes: Counter[str], *, drawn: bool) -> Iterator[Annotated]:
    numbers = {
        (label.findtext("name") or "", attribute.findtext("name") or "")
        for label in root.iterfind("meta//labels/label")
        for attribute in label.iterfind("attributes/attribute")
        if attribute.findtext("input_type") == "number"
    }
    images = root.findall("image")
    here = posixpath.dirname(file)
    subsets = sorted({image.get("subset", "") for image in images})
    folders = [f"{folder}/{subset}" for folder in ("images", ".") for subset in subsets]
    folders = [posixpath.join(here, folder) for folder in ("images", "", *folders, "..", "../images")]
    locations = tree.locate([image.get("name") or "(no name)" for image in images], folders)
    for image, name in zip(images, locations, strict=True):
        try:
            yield _annotated(tree, name, image, numbers, notes, drawn=drawn)
        except ValueError as error:
            reason = f"bad-annotation: {error}"
            yield Annotated(name, tree.url_of(name), split=_split(image, name), reason=reason)


def _annotated(
    tree: Tree, name: str, image: "Element", numbers: set[tuple[str, str]], notes: Counter[str], *, drawn: bool
) -> Annotated:
    boxes, classes = [], []
    labels: dict[str, str] = {}
    for each in image:
        label = (each.get("label") or "").strip() or None
        attributes = attribute_labels(_attributes(each, numbers), notes)
        if each.tag in _SHAPES:
            boxes.append(NamedBox(*_box(each, notes), label, attributes))
        elif each.tag in _NO_BOXES:
            notes["Points, lines, cuboids and skeletons were left out"] += 1
        elif each.tag == "tag":
            if label is not None and label not in classes:
                classes.append(label)
            labels |= {key: value for key, value in attributes.items() if isinstance(value, str)}
    return Annotated(
        name,
        tree.url_of(name),
        classes,
        labels=labels,
        boxes=boxes if drawn else None,
        split=_split(image, name),
        size=size_of(image.get("width"), image.get("height")),
        reason=tree.ambiguous.get(name, ""),
    )


def _split(image: "Element", name: str) -> str | None:
    return SPLIT_NAMES.get(image.get("subset", "").lower()) or split_of(name)


def _attributes(annotation: "Element", numbers: set[tuple[str, str]]) -> Mapping[str, str | float]:
    """The attributes of a box or tag by name; those that the file declares as numbers are numbers."""
    attributes: dict[str, str | float] = {}
    for each in annotation.iterfind("attribute"):
        name, text = each.get("name") or "", (each.text or "").strip()
        is_number = text and (annotation.get("label"), name) in numbers
        if text != UNDEFINED:
            attributes[name] = _number(name, text) if is_number else text
    return attributes


def _box(shape: "Element", notes: Counter[str]) -> tuple[float, float, float, float]:
    if shape.tag == "polygon":
        notes["Polygons imported as their bounding box"] += 1
        points = [point.split(",") for point in (shape.get("points") or "").split(";")]
        if any(len(point) != 2 for point in points):
            raise ValueError(f"a polygon with the points {shape.get('points', '')[:80]!r}")
        return around([_number("x", x) for x, _ in points], [_number("y", y) for _, y in points])
    if shape.tag == "mask":
        notes["Masks imported as their bounding box"] += 1
        left, top, width, height = (_side(shape, side) for side in ("left", "top", "width", "height"))
        return left, top, width, height
    turn = math.radians(_number("rotation", shape.get("rotation") or "0"))
    if shape.tag == "ellipse":
        notes["Ellipses imported as their bounding box"] += 1
        x, y, a, b = (_side(shape, side) for side in ("cx", "cy", "rx", "ry"))
        a, b = math.hypot(a * math.cos(turn), b * math.sin(turn)), math.hypot(a * math.sin(turn), b * math.cos(turn))
        return x - a, y - b, 2 * a, 2 * b
    left, top, right, bottom = (_side(shape, side) for side in ("xtl", "ytl", "xbr", "ybr"))
    width, height = right - left, bottom - top
    if not turn:
        return left, top, width, height
    notes["Rotated boxes imported as their bounding box"] += 1
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    w, h = width * cos + height * sin, width * sin + height * cos  # CVAT rotates about the centre
    return left + (width - w) / 2, top + (height - h) / 2, w, h


def _side(shape: "Element", side: str) -> float:
    return _number(f"{shape.tag}'s {side}", shape.get(side) or "")


def _number(what: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"a {what} that is not a number: {text[:80]!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"a {what} that is not finite: {text[:80]!r}")
    return number
