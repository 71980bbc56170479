"""Records as annotations to correct and to train on: YOLO with its photos, and Label Studio."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from plantml import storage
from plantml.detect.annotate import file_name
from plantml.detect.exchange_formats import BoxClasses, write_list
from plantml.errors import PlantmlError
from plantml.model.contract import Contract
from plantml.model.records import labels_of
from plantml.parsing import dump_yaml

if TYPE_CHECKING:
    from plantml.detect.writers import OutputRow

_EPOCH = (1980, 1, 1, 0, 0, 0)  # so that the same records give the same bytes


def yolo(path: Path, rows: "Iterable[OutputRow]", contract: Contract) -> None:
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


def label_studio(path: Path, rows: "Iterable[OutputRow]", contract: Contract) -> None:
    """A list of tasks with predictions: rectangles for boxes, choices for the labels of whole photos.

    The controls are called as in `plantml dataset export --format label-studio`: `boxes`, and the name of the target.
    A failure is a task without predictions. Values have no place.
    """
    classes = BoxClasses(contract) if contract.detection else None
    with path.open("w", encoding="utf-8", newline="\n") as file:
        write_list(file, (_task(number, row.unicode_record(), classes) for number, row in enumerate(rows, start=1)))
        file.write("\n")


def _task(number: int, record: Mapping[str, Any], classes: BoxClasses | None) -> dict[str, Any]:
    from plantml.data.exporters.label_studio import LOCAL_FILES

    image = record["image"]
    if storage.is_local(image) and "::" not in image:
        image = f"{LOCAL_FILES}{quote(storage.absolute(image))}"
    task: dict[str, Any] = {"id": number, "data": {"image": image}}
    if record["failure"] is None:
        results = _results(record, classes)
        lowest = min((result["score"] for result in results), default=1.0)
        version = f"plantml {record['model'][:12]}"
        task["predictions"] = [{"model_version": version, "score": lowest, "result": results}]
    return task


def _results(record: Mapping[str, Any], classes: BoxClasses | None) -> list[dict[str, Any]]:
    from plantml.data.exporters.label_studio import choices, rectangle

    size = record["width"], record["height"]
    if classes is not None:
        return [
            rectangle(number, (box["x"], box["y"], box["w"], box["h"]), classes.name(box), size)
            | {"score": box["score"]}
            for number, box in enumerate(record["boxes"], start=1)
        ]
    return [
        choices(target, [label for label, _ in labels], size) | {"score": min(score for _, score in labels)}
        for target, prediction in record["targets"].items()
        if (labels := labels_of(prediction))
    ]
