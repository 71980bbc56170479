"""YOLO: `data.yaml`, `images/train/` and `labels/train/`, as Ultralytics reads them."""

from plantml.data.exporters import ExportPhoto, ExportSet, Written, path, sidecar_entry
from plantml.data.exporters.naming import ClassNames, box_names
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar
from plantml.parsing import dump_yaml


def write(content: ExportSet, out: Output) -> Written:
    """Write one text file per photo with `class x y w h` lines; photos that were not annotated have none."""
    content.need_boxes("YOLO's labels are boxes")
    names = box_names(content)
    ids = {name: number for number, name in enumerate(names.ordered)}
    there = {content.folder(photo) for photo in content.photos}
    places = _places(there)
    images = {}
    for photo, data in out.read(content.photos):
        folder = content.folder(photo)
        name = path("images", folder, photo.file)
        out.write(name, data)
        if photo.boxes is not None:
            out.write(path("labels", folder, f"{photo.stem}.txt"), _lines(photo, names, ids).encode())
        is_own_folder = list(places.values()).count(path("images", folder)) == 1  # otherwise it serves two splits
        split = photo.split if is_own_folder else None
        images[name] = sidecar_entry(photo, split=split, boxes=photo.boxes or ())
    described = {**places, "names": {number: name for name, number in ids.items()}}
    notes = ["data.yaml must name both train and val; one has no photos and points to another split."]
    return Written(
        ("data.yaml", dump_yaml(described).encode()),
        Sidecar("yolo", content.targets, names.meaning, images),
        content.counts,
        () if {"train", "val"} <= there else notes,
    )


def _places(there: set[str]) -> dict[str, str]:
    """Folder by split; readers need train and val, so a missing one points to another split."""
    first = next((split for split in ("train", "val", "test") if split in there), "")
    places = {split: path("images", split if split in there else first) for split in ("train", "val")}
    return {**places, **({"test": "images/test"} if "test" in there else {})}


def _lines(photo: ExportPhoto, names: ClassNames, ids: dict[str, int]) -> str:
    width, height = photo.row["width"], photo.row["height"]
    return "".join(
        f"{ids[names[box.classes]]} {(box.x + box.w / 2) / width:.12g} {(box.y + box.h / 2) / height:.12g}"
        f" {box.w / width:.12g} {box.h / height:.12g}\n"
        for box in photo.boxes or ()
    )
