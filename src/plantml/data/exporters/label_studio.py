"""Label Studio: tasks with the current labels as predictions, and a labelling interface to correct them.

The tasks' URLs need local file serving of the export's folder (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT).
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from plantml.data.exporters import ExportPhoto, ExportSet, Written, path, sidecar_entry
from plantml.data.exporters.naming import ClassNames, box_names
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar
from plantml.targets import Target

LOCAL_FILES = "/data/local-files/?d="
"""Under this path, Label Studio serves files of its own machine."""


def write(content: ExportSet, out: Output) -> Written:
    """Write `tasks.json`: choices for classes, and rectangles for boxes in percent of the upright photo."""
    names = box_names(content)
    label_targets = [target.name for target in content.targets if target.kind != "value"]
    tasks, images = [], {}
    for number, (photo, data) in enumerate(out.read(content.photos), start=1):
        name = path("images", content.folder(photo), photo.file)
        out.write(name, data)
        results = _results(photo, label_targets, names)
        task: dict[str, Any] = {"id": number, "data": {"image": f"{LOCAL_FILES}{quote(name)}"}}
        if results or photo.boxes is not None:
            task["predictions"] = [{"model_version": "plantml", "result": results}]
        tasks.append(task)
        exported = [target for target in label_targets if photo.labels.get(target) != []]
        boxes = photo.boxes or () if content.has_boxes and "predictions" in task else None
        images[name] = sidecar_entry(photo, targets=exported, split=photo.split, boxes=boxes)
    out.write("interface.xml", interface(content.targets, names.ordered if content.has_boxes else None))
    return Written(
        ("tasks.json", json.dumps(tasks, ensure_ascii=False).encode()),
        Sidecar("label-studio", content.targets, names.meaning, images),
        content.counts,
        ["Import interface.xml as the labelling interface, then tasks.json."],
    )


def _results(photo: ExportPhoto, targets: list[str], names: ClassNames) -> list[dict[str, Any]]:
    size = photo.row["width"], photo.row["height"]
    results: list[dict[str, Any]] = []
    for target in targets:
        label = photo.labels.get(target)
        if label:
            results.append(choices(target, label if isinstance(label, list) else [label], size))
    for number, box in enumerate(photo.boxes or (), start=1):
        results.append(rectangle(number, (box.x, box.y, box.w, box.h), names[box.classes], size))
    return results


def choices(target: str, labels: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
    """A result that labels the whole photo, whose width and height are `size`."""
    result = {"from_name": target, "to_name": "image", "type": "choices", "value": {"choices": list(labels)}}
    return result | {"original_width": size[0], "original_height": size[1]}


def rectangle(number: int, box: tuple[float, float, float, float], name: str, size: tuple[int, int]) -> dict[str, Any]:
    """A result that is a box (x, y, w, h in pixels) with a class name in a photo of width and height `size`."""
    width, height = size
    sides = ("x", width), ("y", height), ("width", width), ("height", height)
    percent = {side: pixels / length * 100 for (side, length), pixels in zip(sides, box, strict=True)}
    value = {**percent, "rotation": 0, "rectanglelabels": [name]}
    result = {"id": f"b{number}", "from_name": "boxes", "to_name": "image", "type": "rectanglelabels", "value": value}
    return result | {"original_width": width, "original_height": height, "image_rotation": 0}


def interface(targets: Iterable[Target], box_names: Iterable[str] | None = None, *, texts: Sequence[str] = ()) -> bytes:
    """The labelling interface: choices for targets with classes, and rectangles if boxes have names.

    `texts` are fields of a task that are shown beside its photo.
    """
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image")
    for name in texts:
        ET.SubElement(view, "Text", name=name, value=f"${name}")
    for target in targets:
        if target.kind != "value":
            choice = "multiple" if target.kind == "multilabel" else "single"
            control = ET.SubElement(view, "Choices", name=target.name, toName="image", choice=choice)
            for each in target.classes:
                ET.SubElement(control, "Choice", value=each)
    if box_names is not None:
        control = ET.SubElement(view, "RectangleLabels", name="boxes", toName="image")
        for each in box_names:
            ET.SubElement(control, "Label", value=each)
    ET.indent(view)
    text: bytes = ET.tostring(view, encoding="utf-8")
    return text
