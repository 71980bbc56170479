"""Tasks of Label Studio with predictions, to correct and to train on."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from plantml import storage
from plantml.detect.formats.box_classes import BoxClasses
from plantml.detect.formats.json_lists import write_list
from plantml.detect.output_row import OutputRow
from plantml.model.contract import Contract
from plantml.model.records import labels_of


def write(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
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
