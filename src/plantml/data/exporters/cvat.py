"""CVAT for images 1.1: `annotations.xml`, `images/`, and `labels.json` for the labels of a CVAT project.

A box is named by its category, health and disease; its other labels are attributes.
"""

import json
import math
from typing import Any
from xml.etree import ElementTree as ET

from plantml.data.boxes import Box
from plantml.data.exporters import KNOWN, ExportSet, Written, path, sidecar_entry
from plantml.data.exporters.naming import OBJECT, ClassNames, main_targets
from plantml.data.exporters.output import Output
from plantml.data.importers.cvat import UNDEFINED
from plantml.data.importers.sidecar import Sidecar


def write(content: ExportSet, out: Output) -> Written:
    """Write photos, boxes with attributes, and the class of each photo as its tag."""
    drawn = [box for photo in content.photos for box in photo.boxes or ()]
    named = _named_by(drawn)
    class_targets = main_targets(content.targets)
    whole = {photo.file: photo.labels_of(class_targets) for photo in content.photos}
    names = ClassNames(
        [*(_part(box, named) for box in drawn), *(labels for labels in whole.values() if labels)], empty=OBJECT
    )
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    labels = _labels(content, drawn, named, names)
    _describe(ET.SubElement(root, "meta"), labels)
    images = {}
    for number, (photo, data) in enumerate(out.read(content.photos)):
        name = path("images", photo.file)
        out.write(name, data)
        size = {"width": str(photo.row["width"]), "height": str(photo.row["height"])}
        subset = {"subset": photo.split} if photo.split else {}
        image = ET.SubElement(root, "image", {"id": str(number), "name": photo.file, **subset, **size})
        if whole[photo.file]:
            ET.SubElement(image, "tag", label=names[whole[photo.file]])
        for box in photo.boxes or ():
            _add_box(image, box, named, names)
        boxes = (photo.boxes or ()) if content.has_boxes else None
        images[name] = sidecar_entry(photo, targets=class_targets, split=photo.split, boxes=boxes, box_values=True)
    ET.indent(root)
    out.write("annotations.xml", ET.tostring(root, encoding="utf-8", xml_declaration=True))
    out.write("labels.json", json.dumps(labels, ensure_ascii=False, indent=2).encode())
    return Written(
        None,
        Sidecar("cvat", content.targets, names.meaning, images),
        content.counts,
        ["Paste labels.json as the raw labels of a CVAT project, upload images/, then annotations.xml as CVAT 1.1."],
    )


def _named_by(boxes: list[Box]) -> tuple[str, ...]:
    """The targets whose classes make up the names of boxes: the known ones, or else the first."""
    targets = sorted({target for box in boxes for target in box.classes})
    return tuple(target for target in KNOWN if target in targets) or tuple(targets[:1])


def _part(box: Box, named: tuple[str, ...]) -> dict[str, str]:
    return {target: label for target, label in box.classes.items() if target in named}


def _add_box(image: ET.Element, box: Box, named: tuple[str, ...], names: ClassNames) -> None:
    sides = {"xtl": box.x, "ytl": box.y, "xbr": box.x + box.w, "ybr": box.y + box.h}
    corners = {side: _text(number) for side, number in sides.items()}
    attributes = {"label": names[_part(box, named)], "occluded": "0", **corners, "z_order": "0"}
    each = ET.SubElement(image, "box", attributes)
    for target, label in sorted(box.labels.items()):
        if target not in named or not isinstance(label, str):
            ET.SubElement(each, "attribute", name=target).text = label if isinstance(label, str) else _text(label)


def _labels(content: ExportSet, boxes: list[Box], named: tuple[str, ...], names: ClassNames) -> list[dict[str, Any]]:
    """The labels in the form of CVAT's raw editor; each has the attributes of all boxes."""
    known: dict[str, set[str]] = {target.name: set(target.classes) for target in content.targets}
    classes: dict[str, set[str]] = {}
    values: dict[str, list[float]] = {}
    for box in boxes:
        for target, label in box.labels.items():
            if not isinstance(label, str):
                values.setdefault(target, []).append(label)
            elif target not in named:
                classes.setdefault(target, set(known.get(target, ()))).add(label)
    attributes = [
        {"name": target, "input_type": "select", "mutable": False, "values": [UNDEFINED, *sorted(of_target)],
         "default_value": UNDEFINED}
        for target, of_target in sorted(classes.items())
    ]  # fmt: skip
    for target, numbers in sorted(values.items()):
        low, high = min(0, math.floor(min(numbers))), max(1, math.ceil(max(numbers)))
        whole = all(number == int(number) for number in numbers)
        limits = [str(low), str(high), "1" if whole else "0.01"]
        attributes.append(
            {"name": target, "input_type": "number", "mutable": False, "values": limits, "default_value": str(low)}
        )
    return [{"name": name, "attributes": attributes} for name in names.ordered]


def _describe(meta: ET.Element, labels: list[dict[str, Any]]) -> None:
    around = ET.SubElement(ET.SubElement(meta, "task"), "labels")
    for label in labels:
        element = ET.SubElement(around, "label")
        ET.SubElement(element, "name").text = label["name"]
        attributes = ET.SubElement(element, "attributes")
        for each in label["attributes"]:
            attribute = ET.SubElement(attributes, "attribute")
            for key in ("name", "mutable", "input_type", "default_value"):
                ET.SubElement(attribute, key).text = str(each[key])
            ET.SubElement(attribute, "values").text = "\n".join(each["values"])


def _text(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(float(number))
