"""Validate names, labels and boxes of all imports by one rule, whatever the format.

Names, labels and groups are valid UTF-8 without control characters; a box has four numbers below `MAX_PIXELS`.
A photo that breaks the rule is imported as excluded, with the reason.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from plantml.data.boxes import Box
from plantml.data.importers import ImportListing, Item
from plantml.data.labels import plain_text
from plantml.data.manifest import SPLITS, SYSTEM
from plantml.errors import InputError
from plantml.targets import Kind, Target, check_name

MAX_PIXELS = 10**9
"""No valid box or photo is this large."""

MAX_NAME, MAX_PART = 4096, 255
"""Limits of a photo's name, and of each part of a path, in bytes: those of file systems."""

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters, lone surrogates and what XML cannot contain: not allowed in names and labels."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")

BAD_NAME, BAD_ANNOTATION = "bad-name", "bad-annotation"
"""Reason codes of photos that are excluded at import."""

_MAX_SHOWN = 80


def vetted(listing: ImportListing) -> ImportListing:
    """The listing with every invalid photo excluded.

    Raises:
        InputError: a photo is named twice.
    """
    kinds = {target.name: target.kind for target in listing.targets}
    items = tuple(_vetted(item, kinds) for item in listing.items)
    name, number = Counter(item.name for item in items).most_common(1)[0] if items else ("", 1)
    if number > 1:
        raise InputError(f"{name} is named {number} times", "a photo has one row", "Name it once.")
    classes = tuple(dict.fromkeys(plain_text(name) for name in listing.classes if not text_fault(name)))
    return replace(listing, items=items, classes=classes)


def name_of(value: Any) -> str:
    """A name from an annotation file; a number becomes its text.

    Raises:
        ValueError: it is neither text nor a number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"a name is text, not {_abbreviated(value)}")


def targets_of(content: Any) -> tuple[Target, ...]:
    """Targets as plantml writes them into JSON.

    Raises:
        InputError: a target has an invalid name.
        KeyError, TypeError, ValueError: the content is malformed.
    """
    targets = tuple(Target(**{**each, "classes": tuple(each["classes"])}) for each in content)
    for target in targets:
        check_name(name_of(target.name), SYSTEM)
        faults = [fault for name in target.classes if (fault := text_fault(name))]
        if target.kind not in get_args(Kind) or not isinstance(target.unit, str):
            faults.append(
                f"no target has the kind {_abbreviated(target.kind)} and the unit {_abbreviated(target.unit)}"
            )
        if faults or len(set(target.classes)) < len(target.classes):
            raise ValueError(f"target {target.name}: {faults[0] if faults else 'a class is there twice'}")
    return targets


def text_fault(text: Any) -> str:
    """What is wrong with a name or a label; empty if nothing is."""
    if not isinstance(text, str):
        return f"{_abbreviated(text)} is not text"
    return f"{_abbreviated(text)} contains a character that is not allowed" if UNPRINTABLE.search(text) else ""


def name_fault(name: str) -> str:
    """What is wrong with the name of a photo; empty if nothing is."""
    if not name.strip():
        return "it is empty"
    if fault := text_fault(name):
        return fault
    length = len(name.encode())
    if length <= MAX_PART:
        return ""
    longest = max(len(part.encode()) for part in name.split("/"))
    if length > MAX_NAME or (longest > MAX_PART and "://" not in name):
        return f"it is too long for a file name: {_abbreviated(name)}"
    return ""


def _vetted(item: Item, kinds: Mapping[str, Kind]) -> Item:
    if fault := name_fault(item.name):
        name = _escaped(item.name)[:MAX_PART] or "(no name)"
        return Item(name, "", status="excluded", reason=f"{BAD_NAME}: {fault}")
    fault = next(_faults(item, kinds), "")
    if not fault:
        labels = _plain_labels(item.labels, kinds)
        return item if labels == item.labels else replace(item, labels=labels)
    split = item.split if item.split in SPLITS else None
    meta = {key: text.encode("utf-8", "backslashreplace").decode() for key, text in item.meta.items()}
    reason = f"{BAD_ANNOTATION}: {fault}"
    return replace(item, labels={}, boxes=None, group=None, split=split, meta=meta, status="excluded", reason=reason)


def _plain_labels(labels: Mapping[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Labels as `plain_text`; an empty one is none."""
    plain = dict(labels)
    for name, label in labels.items():
        if kinds.get(name) == "class":
            plain[name] = plain_text(label) or None
        elif kinds.get(name) == "multilabel":
            plain[name] = [text for each in label if (text := plain_text(each))]
    return plain


def _faults(item: Item, kinds: Mapping[str, Kind]) -> Iterator[str]:
    if fault := next(filter(None, map(_meta_fault, item.meta.values())), ""):
        yield fault
    for name, label in item.labels.items():
        if name in kinds and (fault := _label_fault(label, kinds[name])):
            yield f"the label of {name}: {fault}"
    for box in item.boxes or ():
        if fault := _box_fault(box):
            yield fault
    if item.group is not None and (fault := text_fault(item.group)):
        yield f"the group: {fault}"
    if item.split is not None and item.split not in SPLITS:
        yield f"{_abbreviated(item.split)} is not a split"


def _meta_fault(text: str) -> str:
    # A remark may have several lines, so here only what no file can hold is wrong.
    return "" if text.isascii() or not _SURROGATE.search(text) else text_fault(text)


def _label_fault(label: Any, kind: Kind) -> str:
    if kind == "class":
        return text_fault(label)
    if kind == "multilabel":
        if not isinstance(label, list | tuple):
            return f"{_abbreviated(label)} is not a list of labels"
        return next((fault for each in label if (fault := text_fault(each))), "")
    return (
        ""
        if _is_number(label) and abs(label) <= sys.float_info.max
        else f"{_abbreviated(label)} is not a finite number"
    )


def _box_fault(box: Box) -> str:
    sides = (box.x, box.y, box.w, box.h)
    if not all(_is_number(side) and abs(side) < MAX_PIXELS for side in sides):
        return f"a box at {', '.join(map(_abbreviated, sides))}; a box has four numbers below {MAX_PIXELS:,}"
    labels: Any = box.labels  # which a bundle may hold as anything
    if not isinstance(labels, Mapping):
        return f"a box with the labels {_abbreviated(labels)}"
    faults = (
        text_fault(name) or ("" if _is_number(label) and math.isfinite(label) else text_fault(label))
        for name, label in labels.items()
    )
    return next((f"a label of a box: {fault}" for fault in faults if fault), "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _abbreviated(value: Any) -> str:
    try:
        text = ascii(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _escaped(text: str) -> str:
    return UNPRINTABLE.sub(lambda match: ascii(match.group())[1:-1], text)
