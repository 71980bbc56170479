"""COCO: `annotations/instances_train.json` and `images/train/` per split.

Without boxes, annotations label whole photos and have no `bbox`. With boxes, readers expect one in every
annotation, so labels of whole photos go to the sidecar.
"""

import json
from typing import Any

from plantml.data.boxes import Box
from plantml.data.exporters import ExportPhoto, ExportSet, Written, path, sidecar_entry
from plantml.data.exporters.naming import OBJECT, ClassNames, main_targets
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar


def write(content: ExportSet, out: Output) -> Written:
    """Write one JSON file per split, or one for an unsplit dataset."""
    class_targets = () if content.has_boxes else main_targets(content.targets)
    whole = {photo.file: photo.labels_of(class_targets) for photo in content.photos}
    boxes = [box.classes for photo in content.photos for box in photo.boxes or ()]
    names = ClassNames([*boxes, *(labels for labels in whole.values() if labels)], empty=OBJECT)
    ids = {name: number for number, name in enumerate(names.ordered, start=1)}
    files: dict[str, dict[str, list[Any]]] = {}
    images, drawn = {}, 0
    for number, (photo, data) in enumerate(out.read(content.photos), start=1):
        folder = content.folder(photo)
        name = path("images", folder, photo.file)
        out.write(name, data)
        file = files.setdefault(folder, {"images": [], "annotations": []})
        file["images"].append(_image(number, photo))
        for box in photo.boxes or ():
            drawn += 1
            file["annotations"].append(_box(drawn, number, ids[names[box.classes]], box))
        if whole[photo.file]:
            category = ids[names[whole[photo.file]]]
            file["annotations"].append({"id": number, "image_id": number, "category_id": category})
        images[name] = sidecar_entry(
            photo,
            targets=class_targets,
            split=photo.split,
            boxes=(photo.boxes or ()) if content.has_boxes else None,
            box_values=True,
        )
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in ids.items()]
    info = {"description": content.version.ref.rpartition("/")[2], "version": content.version.fingerprint}
    texts = {
        f"annotations/instances{f'_{folder}' if folder else ''}.json": json.dumps(
            {"info": info, "licenses": [], **file, "categories": categories}, ensure_ascii=False
        ).encode()
        for folder, file in files.items()
    }
    last = max(texts)
    for name, text in texts.items():
        if name != last:
            out.write(name, text)
    sidecar = Sidecar("coco", content.targets, names.meaning, images)
    return Written((last, texts[last]), sidecar, {"photos": len(content.photos), "boxes": drawn})


def _image(number: int, photo: ExportPhoto) -> dict[str, Any]:
    return {"id": number, "file_name": photo.file, "width": photo.row["width"], "height": photo.row["height"]}


def _box(number: int, image: int, category: int, box: Box) -> dict[str, Any]:
    values = {name: label for name, label in box.labels.items() if name not in box.classes}
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [box.x, box.y, box.w, box.h],
        "area": box.w * box.h,
        "iscrowd": 0,
        **({"attributes": values} if values else {}),
    }
