"""Records in the formats of other programs: COCO, and the batch results of MegaDetector.

Neither has a place for an answer about a whole picture, so it is written as one box around all of it.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from plantml.about import __version__
from plantml.model import records
from plantml.model.contract import Contract

MEGADETECTOR = "1.4"
"""Version of MegaDetector's format: https://lila.science/megadetector-output-format."""

_PLANT = "1"


def coco(path: Path, lines: Iterable[str], contract: Contract) -> None:
    """COCO's `instances` with a `score` on each annotation, as its tools take results.

    A category is a class of a target; its `supercategory` is the target. An image has an annotation for the
    label of each class target and for each label of each multilabel one; values are in the image's `values`.
    What failed is an image of size 0 with its `failure`.
    """
    numbers, number = {}, 0
    categories: list[dict[str, Any]] = []
    for target in contract.targets:
        for name in target.classes:
            numbers[target.name, name] = len(categories) + 1
            categories.append({"id": len(categories) + 1, "name": name, "supercategory": target.name})
    info = {"description": "plantml detect", "version": __version__}
    with path.open("w", encoding="utf-8", newline="\n") as file, tempfile.TemporaryFile("w+", encoding="utf-8") as rest:
        file.write(f'{{"info":{_text(info)},"licenses":[],"categories":{_text(categories)},"images":[')
        for image_id, line in enumerate(lines, start=1):
            record = records.parse(line)
            _next(file, image_id, _coco_image(image_id, record))
            for box, name, label, score in _answers(record):
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
                _next(rest, number, annotation)
        file.write('],"annotations":[')
        rest.seek(0)
        while chunk := rest.read(1 << 20):
            file.write(chunk)
        file.write("]}\n")


def megadetector(path: Path, lines: Iterable[str], contract: Contract) -> None:
    """MegaDetector's batch results, format 1.4.

    There is one detection category, `plant`, and one classification category for each class of each target,
    called `target: class`. A detection's `conf` is the score of the model's least sure class target.
    """
    names = [f"{target.name}: {name}" for target in contract.targets for name in target.classes]
    numbers = {name: str(number) for number, name in enumerate(names)}
    info = {"format_version": MEGADETECTOR, "detector": "plantml", "classifier": f"plantml {__version__}"}
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"info":{_text(info)},"detection_categories":{{"{_PLANT}":"plant"}},')
        file.write(
            f'"classification_categories":{_text({number: name for name, number in numbers.items()})},"images":['
        )
        for place, line in enumerate(lines, start=1):
            _next(file, place, _mega_image(records.parse(line), numbers))
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
    values = {name: answer["value"] for name, answer in record["targets"].items() if "value" in answer}
    return image | {"decision": record["decision"]} | ({"values": values} if values else {})


def _answers(record: Mapping[str, Any]) -> Iterator[tuple[list[float], str, str, float]]:
    """Box (left, top, width, height in pixels), target, label and score of all that was said of a picture."""
    if record["failure"] is not None:
        return
    whole = {"x": 0, "y": 0, "w": record["width"], "h": record["height"], "targets": record["targets"]}
    for box in record["boxes"] or [whole]:
        for target, answer in box["targets"].items():
            for label, score in _labels(answer):
                yield [box["x"], box["y"], box["w"], box["h"]], target, label, score


def _labels(answer: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(answer["label"], answer["score"])] if "label" in answer else list(answer.get("labels", ()))


def _mega_image(record: Mapping[str, Any], numbers: Mapping[str, str]) -> dict[str, Any]:
    if record["failure"] is not None:
        return {"file": record["image"], "failure": record["failure"], "detections": None}
    width, height = record["width"], record["height"]
    whole = {"x": 0, "y": 0, "w": width, "h": height, "targets": record["targets"], "score": None}
    detections: list[dict[str, Any]] = []
    for box in record["boxes"] or [whole]:
        scores = [answer["score"] for answer in box["targets"].values() if "score" in answer]
        classes = [
            (numbers[f"{target}: {label}"], score)
            for target, answer in box["targets"].items()
            for label, score in answer.get("top", answer.get("labels", ()))
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
    most = max((one["conf"] for one in detections), default=0.0)
    return {"file": record["image"], "max_detection_conf": most, "detections": detections}


def _next(file: TextIO, number: int, item: Mapping[str, Any]) -> None:
    file.write(("," if number > 1 else "") + "\n" + _text(item))


def _text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
