"""YOLO with its photos, to correct and to train on."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plantml import storage
from plantml.detect.annotate import file_name
from plantml.detect.formats.box_classes import BoxClasses
from plantml.detect.output_row import OutputRow
from plantml.errors import PlantmlError
from plantml.model.contract import Contract
from plantml.parsing import dump_yaml

_EPOCH = (1980, 1, 1, 0, 0, 0)  # so that the same records give the same bytes


def write(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    """A zip as Ultralytics unpacks it: `data.yaml`, the photos in `images/`, and `class x y w h score` in `labels/`.

    A photo that failed, or cannot be read any more, is left out.
    """
    classes = BoxClasses(contract)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for row in rows:
            record = row.unicode_record()
            if record["failure"] is not None:
                continue
            try:
                data = storage.read(row.record["image"])
            except PlantmlError:
                continue
            name = file_name(record, storage.suffix(record["image"].partition("?")[0]))
            if f"images/{name}" in file.NameToInfo:  # the same photo in two folders
                continue
            file.writestr(zipfile.ZipInfo(f"images/{name}", _EPOCH), data)
            lines = "".join(_line(box, classes, record) for box in record["boxes"])
            file.writestr(zipfile.ZipInfo(f"labels/{file_name(record, '.txt')}", _EPOCH), lines)
        names = dict(enumerate(classes.names))
        described = dump_yaml({"train": "images", "val": "images", "names": names})  # readers need both
        file.writestr(zipfile.ZipInfo("data.yaml", _EPOCH), described)


def _line(box: Mapping[str, Any], classes: BoxClasses, record: Mapping[str, Any]) -> str:
    width, height = record["width"], record["height"]
    centre = (box["x"] + box["w"] / 2) / width, (box["y"] + box["h"] / 2) / height
    numbers = *centre, box["w"] / width, box["h"] / height, box["score"]
    return f"{classes.number(box)} {' '.join(f'{number:.8g}' for number in numbers)}\n"
