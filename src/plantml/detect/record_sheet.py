"""A contact sheet of records: photos with their predictions."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

from plantml import storage
from plantml.imaging import contact_sheet
from plantml.imaging.contact_sheet import Tile

COLOURS = {"accept": "#2e7d32", "review": "#ef6c00", "unknown": "#6a1b9a", None: "#c62828"}


def draw(records: Iterable[Mapping[str, Any]], limit: int = 48) -> bytes:
    """A PNG of the first `limit` records: each photo, a bar in its decision's colour, its labels."""
    return contact_sheet.draw(
        [tile(record, partial(storage.read, record["image"])) for record in islice(records, limit)]
    )


def tile(record: Mapping[str, Any], read: Callable[[], bytes]) -> Tile:
    """The tile of one record, whose photo's bytes `read` gives."""
    return Tile(read, _lines(record), COLOURS[record["decision"]])


def _lines(record: Mapping[str, Any]) -> list[str]:
    name = storage.basename(record["image"])
    if record["failure"] is not None:
        return [name, record["failure"]]
    lines = [name, *(prediction_text(target, prediction) for target, prediction in record["targets"].items())]
    if "counts" in record:
        lines.append(counts_text(record["counts"]))
    return lines if record["decision"] == "accept" or "heat_map" in record else [*lines, f"-> {record['decision']}"]


def counts_text(counts: Mapping[str, Any]) -> str:
    """Counts of boxes in words: `48 boxes: 41 viable, 5 weak, 2 missing`; further targets after semicolons."""
    targets = [labels for name, labels in counts.items() if name != "boxes"]
    parts = [", ".join(f"{number} {name}" for name, number in labels.items() if number) for labels in targets]
    text = f"{counts['boxes']} {'box' if counts['boxes'] == 1 else 'boxes'}"
    return ": ".join(filter(None, [text, "; ".join(filter(None, parts))]))


def prediction_text(target: str, prediction: Mapping[str, Any]) -> str:
    """The prediction for one target in a few words."""
    if "label" in prediction:
        return f"{prediction['label']} {prediction['score']:.2f}"
    if "labels" in prediction:
        return ", ".join(f"{label} {score:.2f}" for label, score in prediction["labels"]) or f"no {target}"
    return f"{target} {prediction['value']:.3g} {prediction['unit']}".strip()
