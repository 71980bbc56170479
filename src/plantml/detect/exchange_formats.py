"""Records in the formats of other programs: COCO, and the batch results of MegaDetector.

Neither can hold a prediction for a whole image, so that is written as one box around the image.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from plantml.about import __version__
from plantml.model.contract import Contract
from plantml.model.records import labels_of

if TYPE_CHECKING:
    from plantml.detect.writers import OutputRow

MEGADETECTOR = "1.4"
"""Version of MegaDetector's format: https://lila.science/megadetector-output-format."""

_PLANT = "1"


class BoxClasses:
    """Numbers for the classes of boxes, from 0. Other programs give a box one class, so labels are joined.

    With one target they are its classes in order; else the combinations that occur, such as `tomato___rust`.

    Args:
        contract: of a model that finds boxes.

    Attributes:
        names: by number.
    """

    def __init__(self, contract: Contract) -> None:
        self._targets = [target for target in contract.targets if target.kind == "class"]
        self.names = list(self._targets[0].classes) if len(self._targets) == 1 else []
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def number(self, box: Mapping[str, Any]) -> int:
        """The number of a box's class."""
        name = self.name(box)
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def name(self, box: Mapping[str, Any]) -> str:
        """The name of a box's class; `object` without targets."""
        from plantml.data.exporters.naming import OBJECT, class_name  # loads polars

        answers = box["targets"]
        labels = {each.name: answers[each.name]["label"] for each in self._targets if each.name in answers}
        return next(iter(labels.values())) if len(labels) == 1 else class_name(labels, OBJECT)


def coco(path: Path, rows: "Iterable[OutputRow]", contract: Contract) -> None:
    """COCO's `instances` with a `score` on each annotation, as its tools take results.

    Of a model of whole images, a category is a class of a target; its `supercategory` is the target. An image has an
    annotation for the label of each class target and for each label of each multilabel one; values are in the image's
    `values`. Of a model that finds boxes, each box is an annotation, and its category is its class.
    A failure is an image of size 0 with its `failure`.
    """
    classes = BoxClasses(contract) if contract.detection else None
    categories = [(target.name, name) for target in contract.targets for name in target.classes]
    numbers = {category: number for number, category in enumerate(categories, start=1)}
    number = 0
    info = {"description": "plantml detect", "version": __version__}
    with (
        path.open("w", encoding="utf-8", newline="\n") as file,
        tempfile.TemporaryFile("w+", encoding="utf-8") as annotations,
    ):
        file.write(f'{{"info":{_text(info)},"licenses":[]')
        if classes is None:
            file.write(f',"categories":{_text(_categories(categories))}')
        file.write(',"images":[')
        for image_id, row in enumerate(rows, start=1):
            record = row.unicode_record()
            _append(file, image_id, _coco_image(image_id, record))
            for box, category, score in _boxes(record, classes) if classes else _labels(record, numbers):
                number += 1
                annotation = {
                    "id": number,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "score": score,
                }
                _append(annotations, number, annotation)
        file.write('],"annotations":[')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file, 1 << 20)
        file.write("]")
        if classes is not None:  # known only now
            file.write(f',"categories":{_text(_categories([("", name) for name in classes.names]))}')
        file.write("}\n")


def megadetector(path: Path, rows: "Iterable[OutputRow]", contract: Contract) -> None:
    """MegaDetector's batch results, format 1.4.

    There is one detection category, `plant`, and one classification category for each class of each target,
    called `target: class`. A detection's `conf` is the score of the box, or the lowest score of all class targets.
    """
    names = [f"{target.name}: {name}" for target in contract.targets for name in target.classes]
    numbers = {name: str(number) for number, name in enumerate(names)}
    is_detector = contract.detection is not None
    info = {"format_version": MEGADETECTOR, "detector": "plantml", "classifier": f"plantml {__version__}"}
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"info":{_text(info)},"detection_categories":{{"{_PLANT}":"plant"}},')
        file.write(
            f'"classification_categories":{_text({number: name for name, number in numbers.items()})},"images":['
        )
        for number, row in enumerate(rows, start=1):
            _append(file, number, _mega_image(row.unicode_record(), numbers, is_detector=is_detector))
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


def _categories(categories: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"id": number, "name": name, "supercategory": target}
        for number, (target, name) in enumerate(categories, start=1)
    ]


Annotation = tuple[list[float], int, float]
"""Left, top, width and height in pixels; number of the category; score."""


def _boxes(record: Mapping[str, Any], classes: BoxClasses) -> Iterator[Annotation]:
    for box in record["boxes"]:
        yield [box["x"], box["y"], box["w"], box["h"]], classes.number(box) + 1, box["score"]


def _labels(record: Mapping[str, Any], numbers: Mapping[tuple[str, str], int]) -> Iterator[Annotation]:
    """An annotation around the whole photo for each of its labels."""
    for target, prediction in (record["targets"] or {}).items():
        for label, score in labels_of(prediction):
            yield [0, 0, record["width"], record["height"]], numbers[target, label], score


def _mega_image(record: Mapping[str, Any], numbers: Mapping[str, str], *, is_detector: bool) -> dict[str, Any]:
    if record["failure"] is not None:
        return {"file": record["image"], "failure": record["failure"], "detections": None}
    width, height = record["width"], record["height"]
    whole = {"x": 0, "y": 0, "w": width, "h": height, "targets": record["targets"], "score": None}
    boxes = record["boxes"] if is_detector else [whole]
    detections: list[dict[str, Any]] = []
    for box in boxes:
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
                "bbox": _fractions(box, width, height),
                "classifications": [list(pair) for pair in sorted(classes, key=lambda pair: -pair[1])],
            }
        )
    highest = max((detection["conf"] for detection in detections), default=0.0)
    return {"file": record["image"], "max_detection_conf": highest, "detections": detections}


def _fractions(box: Mapping[str, Any], width: int, height: int) -> list[float]:
    """Left, top, width and height as shares of the photo, with four decimals as is usual; never beyond its edges."""
    left, right = round(box["x"] / width, 4), round(min(1, (box["x"] + box["w"]) / width), 4)
    top, bottom = round(box["y"] / height, 4), round(min(1, (box["y"] + box["h"]) / height), 4)
    return [left, top, round(right - left, 4), round(bottom - top, 4)]


def write_list(file: TextIO, items: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON list, item by item."""
    file.write("[")
    for number, item in enumerate(items, start=1):
        _append(file, number, item)
    file.write("]")


def _append(file: TextIO, number: int, item: Mapping[str, Any]) -> None:
    file.write(("," if number > 1 else "") + "\n" + _text(item))


def _text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
