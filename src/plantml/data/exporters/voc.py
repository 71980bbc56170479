"""Pascal VOC: `Annotations/a.xml`, `JPEGImages/a.jpg`, and `ImageSets/Main/train.txt`."""

from xml.etree import ElementTree as ET

from plantml.data.boxes import Box
from plantml.data.exporters import ExportPhoto, ExportSet, Written, path, sidecar_entry
from plantml.data.exporters.naming import ClassNames, box_names
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar


def write(content: ExportSet, out: Output) -> Written:
    """Write one XML file per photo; photos that were not annotated have none."""
    content.need_boxes("VOC's labels are boxes")
    names = box_names(content)
    images = {}
    for photo, data in out.read(content.photos):
        name = path("JPEGImages", photo.file)
        out.write(name, data)
        if photo.boxes is not None:
            out.write(f"Annotations/{photo.stem}.xml", _xml(photo, photo.boxes, names))
        images[name] = sidecar_entry(photo, split=photo.split, boxes=photo.boxes or ())
    lists = {
        split: "".join(f"{photo.stem}\n" for photo in content.photos if photo.split == split).encode()
        for split in ("train", "val", "test")
    }
    for split, stems in lists.items():
        if stems:
            out.write(f"ImageSets/Main/{split}.txt", stems)
    return Written(None, Sidecar("voc", content.targets, names.meaning, images), content.counts)


def _xml(photo: ExportPhoto, boxes: tuple[Box, ...], names: ClassNames) -> bytes:
    root = ET.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", photo.file)
    size = ET.SubElement(root, "size")
    for key, value in (("width", photo.row["width"]), ("height", photo.row["height"]), ("depth", 3)):
        _add(size, key, value)
    for box in boxes:
        each = ET.SubElement(root, "object")
        _add(each, "name", names[box.classes])
        corners = ET.SubElement(each, "bndbox")
        for key, number in (("xmin", box.x), ("ymin", box.y), ("xmax", box.x + box.w), ("ymax", box.y + box.h)):
            _add(corners, key, int(number) if number == int(number) else number)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8")
    return text


def _add(parent: ET.Element, name: str, value: object) -> None:
    ET.SubElement(parent, name).text = str(value)
