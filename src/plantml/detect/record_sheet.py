"""A contact sheet of records: photos with what was said of them."""

from collections.abc import Iterable, Mapping
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
        [
            Tile(partial(storage.read, record["image"]), _lines(record), COLOURS[record["decision"]])
            for record in islice(records, limit)
        ]
    )


def _lines(record: Mapping[str, Any]) -> list[str]:
    name = storage.basename(record["image"])
    if record["failure"] is not None:
        return [name, record["failure"]]
    said = [answer_text(target, answer) for target, answer in record["targets"].items()]
    return [name, *said] if record["decision"] == "accept" else [name, *said, f"-> {record['decision']}"]


def answer_text(target: str, answer: Mapping[str, Any]) -> str:
    """What was said of one target, in few words."""
    if "label" in answer:
        return f"{answer['label']} {answer['score']:.2f}"
    if "labels" in answer:
        return ", ".join(f"{label} {score:.2f}" for label, score in answer["labels"]) or f"no {target}"
    return f"{target} {answer['value']:.3g} {answer['unit']}".strip()
