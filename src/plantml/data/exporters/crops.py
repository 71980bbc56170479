"""Crops: each box as a separate photo in class folders, to train a classifier on boxes."""

import io

from PIL import Image

from plantml import imaging
from plantml.data.boxes import Box
from plantml.data.exporters import ExportSet, Written, path
from plantml.data.exporters.naming import NO_LABEL, ClassNames
from plantml.data.exporters.output import Output
from plantml.data.importers.sidecar import Sidecar
from plantml.targets import Target

_QUALITY = 95


def write(content: ExportSet, out: Output) -> Written:
    """Write the upright pixels inside each box as JPEG, cut at the edges of the photo.

    Crops of one photo share a group, the photo's group or else its name, so that a split keeps them together.
    """
    content.need_boxes("crops are made from boxes")
    every = [box.classes for photo in content.photos for box in photo.boxes or ()]
    names = ClassNames(every, empty=NO_LABEL, folders=True)
    entries, outside = {}, 0
    drawn = [photo for photo in content.photos if photo.boxes]
    for photo, data in out.read(drawn):
        upright = imaging.thumbnail(data, max(photo.row["width"], photo.row["height"]))
        for number, box in enumerate(photo.boxes or (), start=1):
            crop = _cut(upright, box)
            if crop is None:
                outside += 1
                continue
            name = path(photo.split or "", names[box.classes], f"{photo.stem}_{number:03d}.jpg")
            out.write(name, _jpeg(crop))
            entries[name] = {"group": photo.group or photo.row["name"]}
    known = {target.name: target for target in content.targets if target.kind == "class"}
    targets = {name: known.get(name, Target(name, "class")) for labels in every for name in labels}
    notes = [f"Boxes entirely outside their photo, without a crop: {outside}."] if outside else []
    counts = {"photos": len(drawn), "crops": len(entries)}
    return Written(None, Sidecar("folder", tuple(targets.values()), names.meaning, entries), counts, notes)


def _cut(upright: Image.Image, box: Box) -> Image.Image | None:
    left, top = max(0, round(box.x)), max(0, round(box.y))
    right, bottom = min(upright.width, round(box.x + box.w)), min(upright.height, round(box.y + box.h))
    return upright.crop((left, top, right, bottom)) if left < right and top < bottom else None


def _jpeg(crop: Image.Image) -> bytes:
    buffer = io.BytesIO()
    crop.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()
