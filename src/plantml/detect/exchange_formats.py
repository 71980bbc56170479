"""Records in the formats of other programs: COCO, and the batch results of MegaDetector.

Neither can hold a prediction for a whole image, so it is written as one box around the image.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from plantml.about import __version__
from plantml.model.contract import Contract

if TYPE_CHECKING:
    from plantml.detect.writers import OutputRow

MEGADETECTOR = "1.4"
"""Version of MegaDetector's format: https://lila.science/megadetector-output-format."""

_PLANT = "1"


def coco(path: Path, rows: "Iterable[OutputRow]", contract: Contract) -> None:
    """COCO's `instances` with a `score` on each annotation, as its tools take results.

    A category is a class of a target; its `supercategory` is the target. An image has an annotation for the
    label of each class target and for each label of each multilabel one; values are in the image's `values`.
    A failure is an image of size 0 with its `failure`.
    """
    numbers, number = {}, 0
    categories: list[dict[str, Any]] = []
    for target in contract.targets:
        for name in target.classes:
            numbers[target.name, name] = len(categories) + 1
            categories.append({"id": len(categories) + 1, "name": name, "supercategory": target.name})
    info = {"description": "plantml detect", "version": __version__}
    with (
        path.open("w", encoding="utf-8", newline="\n") as file,
        tempfile.TemporaryFile("w+", encoding="utf-8") as boxes,
    ):
        file.write(f'{{"info":{_text(info)},"licenses":[],"categories":{_text(categories)},"images":[')
        for image_id, row in enumerate(rows, start=1):
            record = row.unicode_record()
            _append(file, image_id, _coco_image(image_id, record))
            for box, name, label, score in _predictions(record):
                number += 1
                annotation = {
                    "id": number,
                    "image_id": image_id,
                    "category_id": numbers[name, label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "score": score,
                }
                _append(boxes, number, annotation)
        file.write('],"annotations":[')
        boxes.seek(0)
        while chunk := boxes.read(1 << 20):
            file.write(chunk)
        file.write("]}\n")


def megadetector(path: Path, rows: "Iterable[OutputRow]", contract: Contract) -> None:
    """MegaDetector's batch results, format 1.4.

    There is one detection category, `plant`, and one classification category for each class of each target,
    called `target: class`. A detection's `conf` is the lowest score of all class targets.
    """
    names = [f"{target.name}: {name}" for target in contract.targets for name in target.classes]
    numbers = {name: str(number) for number, name in enumerate(names)}
    info = {"format_version": MEGADETECTOR, "detector": "plantml", "classifier": f"plantml {__version__}"}
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"info":{_text(info)},"detection_categories":{{"{_PLANT}":"plant"}},')
        file.write(
            f'"classification_categories":{_text({number: name for name, number in numbers.items()})},"images":['
        )
        for number, row in enumerate(rows, start=1):
            _append(file, number, _mega_image(row.unicode_record(), numbers))
        file.write("]}\n")


def _coco_image(number: int, record: Mapping[str, Any]) -> dict[str, Any]:
    image = {
        "id": number,
        "file_name": record["image"],
        "width": record["width"] or 0,
        "height": record["height"] or 0,
    }
    if record["failure"] is not None:
        return image | {"failure": record["failure"]}
    values = {name: prediction["value"] for name, prediction in record["targets"].items() if "value" in prediction}
    return image | {"decision": record["decision"]} | ({"values": values} if values else {})


def _predictions(record: Mapping[str, Any]) -> Iterator[tuple[list[float], str, str, float]]:
    """Box (left, top, width, height in pixels), target, label and score of every prediction for an image."""
    if record["failure"] is not None:
        return
    whole = {"x": 0, "y": 0, "w": record["width"], "h": record["height"], "targets": record["targets"]}
    for box in record["boxes"] or [whole]:
        for target, prediction in box["targets"].items():
            for label, score in _labels(prediction):
                yield [box["x"], box["y"], box["w"], box["h"]], target, label, score


def _labels(prediction: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(prediction["label"], prediction["score"])] if "label" in prediction else list(prediction.get("labels", ()))


def _mega_image(record: Mapping[str, Any], numbers: Mapping[str, str]) -> dict[str, Any]:
    if record["failure"] is not None:
        return {"file": record["image"], "failure": record["failure"], "detections": None}
    width, height = record["width"], record["height"]
    whole = {"x": 0, "y": 0, "w": width, "h": height, "targets": record["targets"], "score": None}
    detections: list[dict[str, Any]] = []
    for box in record["boxes"] or [whole]:
        scores = [prediction["score"] for prediction in box["targets"].values() if "score" in prediction]
        classes = [
            (numbers[f"{target}: {label}"], score)
            for target, prediction in box["targets"].items()
            for label, score in prediction.get("top", prediction.get("labels", ()))
        ]
        detections.append(
            {
                "category": _PLANT,
                "conf": float(min(scores, default=1.0) if box["score"] is None else box["score"]),
                "bbox": [
                    round(part, 4)
                    for part in (box["x"] / width, box["y"] / height, box["w"] / width, box["h"] / height)
                ],
                "classifications": [list(pair) for pair in sorted(classes, key=lambda pair: -pair[1])],
            }
        )
    highest = max((detection["conf"] for detection in detections), default=0.0)
    return {"file": record["image"], "max_detection_conf": highest, "detections": detections}


def _append(file: TextIO, number: int, item: Mapping[str, Any]) -> None:
    file.write(("," if number > 1 else "") + "\n" + _text(item))


def _text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
