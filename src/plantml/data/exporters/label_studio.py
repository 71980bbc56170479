"""Label Studio: tasks with the current labels as predictions, and a labelling interface to correct them.

The tasks' URLs need local file serving of the export's folder (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT).
"""

import json
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from plantml.data.boxes import Box
from plantml.data.exporters import ExportPhoto, ExportSet, Written, path, sidecar_entry
from plantml.data.exporters.naming import OBJECT, ClassNames
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar

_URL = "/data/local-files/?d="


def write(content: ExportSet, out: Output) -> Written:
    """Write `tasks.json`: choices for classes, and rectangles for boxes in percent of the upright photo."""
    names = ClassNames((box.classes for photo in content.photos for box in photo.boxes or ()), empty=OBJECT)
    label_targets = [target.name for target in content.targets if target.kind != "value"]
    tasks, images = [], {}
    for number, (photo, data) in enumerate(out.read(content.photos), start=1):
        name = path("images", content.folder(photo), photo.file)
        out.write(name, data)
        results = _results(photo, label_targets, names)
        task: dict[str, Any] = {"id": number, "data": {"image": f"{_URL}{quote(name)}"}}
        if results or photo.boxes is not None:
            task["predictions"] = [{"model_version": "plantml", "result": results}]
        tasks.append(task)
        exported = [target for target in label_targets if photo.labels.get(target) != []]
        boxes = photo.boxes or () if content.has_boxes and "predictions" in task else None
        images[name] = sidecar_entry(photo, targets=exported, split=photo.split, boxes=boxes)
    out.write("interface.xml", _interface(content, names))
    return Written(
        ("tasks.json", json.dumps(tasks, ensure_ascii=False).encode()),
        Sidecar("label-studio", content.targets, names.meaning, images),
        {"photos": len(tasks), "boxes": sum(len(photo.boxes or ()) for photo in content.photos)},
        ["Import interface.xml as the labelling interface, then tasks.json."],
    )


def _results(photo: ExportPhoto, targets: list[str], names: ClassNames) -> list[dict[str, Any]]:
    size = {"original_width": photo.row["width"], "original_height": photo.row["height"]}
    results: list[dict[str, Any]] = []
    for target in targets:
        label = photo.labels.get(target)
        if label:
            value: dict[str, Any] = {"choices": label if isinstance(label, list) else [label]}
            results.append({"from_name": target, "to_name": "image", "type": "choices", "value": value, **size})
    for number, box in enumerate(photo.boxes or (), start=1):
        value = {**_percent(box, photo), "rotation": 0, "rectanglelabels": [names[box.classes]]}
        results.append(
            {"id": f"b{number}", "from_name": "boxes", "to_name": "image", "type": "rectanglelabels", "value": value}
            | {**size, "image_rotation": 0}
        )
    return results


def _percent(box: Box, photo: ExportPhoto) -> dict[str, float]:
    width, height = photo.row["width"], photo.row["height"]
    return {
        "x": box.x / width * 100,
        "y": box.y / height * 100,
        "width": box.w / width * 100,
        "height": box.h / height * 100,
    }


def _interface(content: ExportSet, names: ClassNames) -> bytes:
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image")
    for target in content.targets:
        if target.kind != "value":
            choice = "multiple" if target.kind == "multilabel" else "single"
            control = ET.SubElement(view, "Choices", name=target.name, toName="image", choice=choice)
            for each in target.classes:
                ET.SubElement(control, "Choice", value=each)
    if content.has_boxes:
        control = ET.SubElement(view, "RectangleLabels", name="boxes", toName="image")
        for each in names.ordered:
            ET.SubElement(control, "Label", value=each)
    ET.indent(view)
    text: bytes = ET.tostring(view, encoding="utf-8")
    return text
