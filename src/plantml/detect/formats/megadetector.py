"""The batch results of MegaDetector.

They cannot hold a prediction for a whole image, so that is written as one box around the image.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plantml.about import __version__
from plantml.detect.formats.json_lists import append
from plantml.detect.output_row import OutputRow, to_line
from plantml.model.contract import Contract

VERSION = "1.4"
"""Version of MegaDetector's format: https://lila.science/megadetector-output-format."""

_PLANT = "1"


def write(path: Path, rows: Iterable[OutputRow], contract: Contract) -> None:
    """MegaDetector's batch results, format 1.4.

    There is one detection category, `plant`, and one classification category for each class of each target,
    called `target: class`. A detection's `conf` is the score of the box, or the lowest score of all class targets.
    """
    names = [f"{target.name}: {name}" for target in contract.targets for name in target.classes]
    numbers = {name: str(number) for number, name in enumerate(names)}
    is_detector = contract.detection is not None
    info = {"format_version": VERSION, "detector": "plantml", "classifier": f"plantml {__version__}"}
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"info":{to_line(info)},"detection_categories":{{"{_PLANT}":"plant"}},')
        file.write(
            f'"classification_categories":{to_line({number: name for name, number in numbers.items()})},"images":['
        )
        for number, row in enumerate(rows, start=1):
            append(file, number, _mega_image(row.unicode_record(), numbers, is_detector=is_detector))
        file.write("]}\n")


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
