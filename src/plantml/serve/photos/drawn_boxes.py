"""Boxes that people draw: read, clipped to their photo, and with labels that the dataset can have."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from plantml.data import boxes as dataset_boxes
from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.parsing import parse_json
from plantml.serve.photos.arrival_checks import Flag, LabelError, checked_labels
from plantml.serve.users.caller import Caller
from plantml.serve.users.visibility import visible_labels
from plantml.serve.web.problems import RequestError, reasons
from plantml.targets import Target

MOST = 2000
"""Boxes of a photo."""

_Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Length = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class DrawnBox(BaseModel):
    """A box as somebody drew it, in pixels of the upright photo."""

    model_config = ConfigDict(extra="forbid")

    x: _Coordinate
    y: _Coordinate
    w: _Length
    h: _Length
    labels: dict[str, str | float] = {}

    def as_box(self) -> Box:
        """The box as datasets have it."""
        return Box(self.x, self.y, self.w, self.h, self.labels)


class RedrawnBox(DrawnBox):
    """A box as a reviewer drew it."""

    index: int | None = Field(None, ge=0, description="Index of the box that it replaces; needs `version`.")


def _without_empty_labels(box: Any) -> Any:
    if not (isinstance(box, dict) and isinstance(box.get("labels"), dict)):
        return box
    return {**box, "labels": {name: label for name, label in box["labels"].items() if label not in (None, "")}}


_OF_PAGE = TypeAdapter(list[Annotated[RedrawnBox, BeforeValidator(_without_empty_labels)]])
_OF_FILES = TypeAdapter(list[Annotated[list[DrawnBox], Field(max_length=MOST)] | None])


def read(text: str) -> list[RedrawnBox]:
    """The boxes of a photo from the page's editor, where an empty label is none. Raises `RequestError` 422."""
    boxes: list[RedrawnBox] = _read(_OF_PAGE, text)
    return boxes


def read_files(text: str, count: int) -> list[list[Box] | None]:
    """The boxes of each of so many files: JSON lists, null where nobody drew any. Raises `RequestError` 422."""
    by_file = _read(_OF_FILES, text)
    if len(by_file) != count:
        raise RequestError(
            422, "The boxes do not fit the files", f"{len(by_file)} lists of {count}", "Send one per file."
        )
    return [None if boxes is None else [box.as_box() for box in boxes] for boxes in by_file]


def _read(adapter: TypeAdapter[Any], text: str) -> Any:
    content = parse_json(text, "The boxes", hint="See /docs for their fields.")
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        why = reasons(error.errors()[:1])
        raise RequestError(422, "The boxes cannot be read", why, "See /docs for their fields.") from error


def clipped(box: Box, width: int, height: int) -> Box:
    """The part of a box that lies in its photo. Raises `LabelError` if there is none."""
    left, top = max(0.0, box.x), max(0.0, box.y)
    right, bottom = min(float(width), box.x + box.w), min(float(height), box.y + box.h)
    if right <= left or bottom <= top:
        raise LabelError("empty-box", "a box has no area inside the photo")
    return Box(left, top, right - left, bottom - top, box.labels)


def targets(version: Version) -> list[Target]:
    """What a box of a dataset may be labelled with: the classes of its boxes and those of its photos."""
    drawn = version.rows["boxes"].drop_nulls().explode().drop_nulls().to_list()
    of_boxes = dataset_boxes.targets_of(drawn, version.targets)
    known = {target.name: target for target in (*of_boxes, *version.targets)}
    for target in of_boxes:
        both = (*known[target.name].classes, *target.classes)
        known[target.name] = replace(target, classes=tuple(dict.fromkeys(both)))
    return list(known.values())


def checked(
    boxes: Sequence[Box], size: tuple[int, int], version: Version, caller: Caller, *, new_class: bool
) -> tuple[tuple[Box, ...], list[Flag]]:
    """Boxes of a new photo as a dataset stores them, and flags for classes that it does not have.

    Args:
        boxes: as the caller drew them.
        size: width and height of the upright photo, pixels.
        version: of the dataset.
        caller: who drew them.
        new_class: allow classes that the dataset does not have.

    Raises:
        LabelError: there are too many, one is outside, or a label is not possible.
    """
    if len(boxes) > MOST:
        raise LabelError("too-many-boxes", f"a photo has at most {MOST} boxes")
    known, flags, kept = targets(version), dict[Flag, None](), []
    for box in boxes:
        labels, news = checked_labels(box.labels, known, caller, new_class=new_class)
        kept.append(replace(clipped(box, *size), labels=labels))
        flags |= dict.fromkeys(news)
    return tuple(kept), list(flags)


def visible(boxes: Sequence[Box], caller: Caller) -> list[DrawnBox]:
    """Boxes with the labels that a caller may see."""
    return [DrawnBox(x=box.x, y=box.y, w=box.w, h=box.h, labels=visible_labels(box.labels, caller)) for box in boxes]


def of_event(boxes: Sequence[Mapping[str, Any]] | None) -> tuple[Box, ...] | None:
    """Boxes as an event has them; `None` where nobody drew any."""
    return None if boxes is None else tuple(Box(**box) for box in boxes)
