"""COCO.

It cannot hold a prediction for a whole image, so that is written as one box around the image.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plantml.about import __version__
from plantml.detect.formats.box_classes import BoxClasses
from plantml.detect.formats.json_lists import append
from plantml.detect.output_row import OutputRow, to_line
from plantml.model.contract import Contract
from plantml.model.records import labels_of


def write(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
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
        file.write(f'{{"info":{to_line(info)},"licenses":[]')
        if classes is None:
            file.write(f',"categories":{to_line(_categories(categories))}')
        file.write(',"images":[')
        for image_id, row in enumerate(rows, start=1):
            record = row.unicode_record()
            append(file, image_id, _coco_image(image_id, record))
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
                append(annotations, number, annotation)
        file.write('],"annotations":[')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file, 1 << 20)
        file.write("]")
        if classes is not None:  # known only now
            file.write(f',"categories":{to_line(_categories([("", name) for name in classes.names]))}')
        file.write("}\n")


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
