"""What is checked when a labelled photo arrives: are its labels possible, is the photo new, and do labels agree?"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import polars as pl

from plantml.data import duplicates, manifest
from plantml.data.boxes import Box
from plantml.data.labels import with_health
from plantml.data.manifest import Version
from plantml.data.near_duplicates import DISTANCE, VARIANTS, variant
from plantml.data.scan import Scan
from plantml.errors import InputError
from plantml.serve.users.caller import ACTS, Caller
from plantml.targets import Target, is_target

EXACT, NEAR, CONFLICT, NEW_CLASS = "exact-duplicate", "near-duplicate", "conflict", "new-class"
_LONGEST_CLASS, _MOST_LABELS = 100, 100
_RESERVED = {*manifest.SYSTEM, *ACTS}
"""What a new target cannot be called: columns of a dataset, and roles that allow an act."""
Labels = Mapping[str, Any]


class LabelError(InputError):
    """Labels that the dataset cannot have; `what` is a short code."""


@dataclass(frozen=True)
class Flag:
    """What a reviewer should know of a photo.

    Attributes:
        code: `exact-duplicate`, `near-duplicate`, `conflict` or `new-class`.
        why: a sentence.
        target: whose labels it tells of; empty for none.
        image_id: of the other photo; empty for none.
    """

    code: str
    why: str
    target: str = ""
    image_id: str = ""

    def as_json(self) -> dict[str, str]:
        """The flag as JSON types."""
        return asdict(self)


def checked_labels(
    labels: Labels, targets: Sequence[Target], caller: Caller, *, new_class: bool
) -> tuple[dict[str, Any], list[Flag]]:
    """Labels as a dataset stores them, and a flag for each class that it does not have.

    Args:
        labels: by target, as the caller sent them.
        targets: of the dataset.
        caller: sees, and so can label, the targets that are their roles.
        new_class: allow classes, and targets with classes, that the dataset does not have.

    Raises:
        LabelError: a target or class is unknown, or a label is of the wrong kind.
    """
    visible = {target.name: target for target in targets if caller.may_see(target.name)}
    checked: dict[str, Any] = {}
    flags: list[Flag] = []
    for name, label in labels.items():
        if label is None or label in ("", []):
            continue
        target = visible.get(name)
        if target is None and new_class and _may_add(name, caller):
            target = Target(name, "class")
        if target is None:
            known = ", ".join(visible) or "none"
            raise LabelError("unknown-target", f"the dataset has no target {name[:100]!r} for you; it has {known}")
        checked[name] = _checked(target, label)
        for each in _classes(checked[name]):
            if each not in target.classes:
                if not new_class:
                    raise LabelError("unknown-class", _unknown(target, each))
                flags.append(Flag(NEW_CLASS, f"{name} has no class {each} yet", target=name))
    health, disease = ({target.name: target for target in targets}.get(name) for name in ("health", "disease"))
    if health and disease and health.kind == disease.kind == "class" and "disease" in checked:
        checked = with_health(checked)
    return checked, flags


def _may_add(target: str, caller: Caller) -> bool:
    """Whether a label may bring a new target: one with a name that datasets and roles leave free."""
    return is_target(target, _RESERVED) and not target.startswith("meta_") and caller.may_see(target)


def flags_of(photo: Scan, labels: Labels, version: Version) -> list[Flag]:
    """What is known of a photo in a version: copies of it, and labels that contradict those of its copies.

    Copies are named by their id: a file's name often is a label, which not everybody may see.
    """
    same = version.rows.filter(pl.col("image_id") == photo.image_id)
    if same.is_empty():
        return _near(photo, version)
    flags = [Flag(EXACT, "the dataset has the same photo", image_id=photo.image_id)]
    for name, label in labels.items():
        others = [other for other in same[name].to_list() if other is not None] if name in same.columns else []
        flags += [
            Flag(CONFLICT, f"{name} is {other} in the dataset", target=name) for other in others if other != label
        ][:1]
    return flags


def adds_nothing(photo: Scan, labels: Labels, boxes: Sequence[Box] | None, version: Version) -> bool:
    """True if a version has these bytes with all these labels, and with these boxes if any were drawn."""
    same = version.usable().filter(pl.col("image_id") == photo.image_id)
    if boxes is not None and any(drawn != [box.as_row() for box in boxes] for drawn in same["boxes"].to_list()):
        return False
    return not same.is_empty() and all(
        name in same.columns and all(known == label for known in same[name].to_list()) for name, label in labels.items()
    )


def _near(photo: Scan, version: Version) -> list[Flag]:
    if photo.phash is None or photo.quality is None:
        return []
    if photo.quality.entropy < duplicates.PLAIN_ENTROPY or photo.quality.contrast < duplicates.PLAIN_CONTRAST:
        return []  # its hash means nothing
    rows = version.rows.filter(pl.col("phash").is_not_null(), ~duplicates.plain(version.rows).fill_null(value=True))
    hashes = rows["phash"].to_numpy()
    if not len(hashes):
        return []
    turned = [variant(np.array([photo.phash], np.uint64), name) for name in VARIANTS]
    distances = np.min([np.bitwise_count(hashes ^ each) for each in turned], axis=0)
    nearest = int(distances.argmin())
    if distances[nearest] > DISTANCE:
        return []
    return [Flag(NEAR, "the dataset has a photo much like it", image_id=rows["image_id"][nearest])]


def _checked(target: Target, label: Any) -> Any:
    match target.kind:
        case "value" if type(label) in {int, float} and abs(label) <= sys.float_info.max:  # false for NaN, too
            return float(label)
        case "class" if isinstance(label, str) and _is_class(label):
            return label.strip()
        case "multilabel" if (
            isinstance(label, list)
            and len(label) <= _MOST_LABELS
            and all(isinstance(one, str) and _is_class(one) for one in label)
        ):
            return list(dict.fromkeys(one.strip() for one in label))
    expected = {
        "value": "a number",
        "class": "the name of a class",
        "multilabel": f"a list of at most {_MOST_LABELS} classes",
    }[target.kind]
    raise LabelError("bad-label", f"{target.name} is {expected}")


def _is_class(text: str) -> bool:
    return bool(text.strip()) and len(text) <= _LONGEST_CLASS and text.isprintable()


def _classes(label: Any) -> Sequence[str]:
    return [label] if isinstance(label, str) else label if isinstance(label, list) else []


def _unknown(target: Target, name: str) -> str:
    near = get_close_matches(name, target.classes, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    return (
        f"{target.name} has no class {name}; it has {', '.join(target.classes[:50])}.{meant} Else send new_class=true."
    )
