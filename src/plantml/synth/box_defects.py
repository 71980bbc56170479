"""Faulty boxes that are planted on purpose in photos of many plants: missing, extra, shifted and mislabelled ones."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from plantml.data.boxes import Box
from plantml.synth.defects import another_class
from plantml.synth.spec import SynthSpec, stand_of
from plantml.synth.stand import StandPhoto

_TRIES = 40
"""Random places that are tried for a box."""


@dataclass(frozen=True)
class _Case:
    """A box that is to be made faulty."""

    spec: SynthSpec
    photo: StandPhoto
    box: Box
    rng: np.random.Generator

    def is_inside(self, box: Box) -> bool:
        height, width = self.photo.plants.shape
        return box.x >= 0 and box.y >= 0 and box.x + box.w <= width and box.y + box.h <= height


def spoil_boxes(spec: SynthSpec, index: int, photo: StandPhoto) -> tuple[list[Box], list[tuple[str, str]]]:
    """The boxes of photo number `index` as delivered, and kind and detail of each defect.

    A share of `spec.defects` of the boxes is faulty, on average over all photos.
    """
    rng = np.random.default_rng((*stand_of(spec, index).photo_key, 1))
    count = int(spec.defects * len(photo.boxes) + rng.random())
    chosen = {int(number) for number in rng.permutation(len(photo.boxes))[:count]}
    boxes: list[Box] = []
    defects: list[tuple[str, str]] = []
    for number, box in enumerate(photo.boxes):
        if number not in chosen:
            boxes.append(box)
            continue
        kinds = [kind for kind in BOX_DEFECTS if kind != "box-mislabelled" or _can_be_mislabelled(spec, box)]
        kind = kinds[int(rng.integers(len(kinds)))]
        delivered, detail = _DEFECTS[kind](_Case(spec, photo, box, rng))
        boxes += delivered
        defects.append((kind, detail))
    return boxes, defects


def _can_be_mislabelled(spec: SynthSpec, box: Box) -> bool:
    return "category" in box.labels and len(spec.classes) > 1


def _missing(case: _Case) -> tuple[list[Box], str]:
    """Left out. The detail says where it should be."""
    return [], _place(case.box)


def _extra(case: _Case) -> tuple[list[Box], str]:
    """Another box of about its size, where nothing grows. The detail says where."""
    height, width = case.photo.plants.shape
    best, least = case.box, math.inf
    for _ in range(_TRIES):
        w, h = (max(2, round(side * case.rng.uniform(0.5, 1.0))) for side in (case.box.w, case.box.h))
        x, y = int(case.rng.integers(max(1, width - w))), int(case.rng.integers(max(1, height - h)))
        candidate = replace(case.box, x=x, y=y, w=w, h=h)
        plant = float(np.mean(case.photo.plants[y : y + h, x : x + w] > 0))
        covered = plant + max(_shared(candidate, box) for box in case.photo.boxes)
        if covered < least:
            best, least = candidate, covered
    return [case.box, best], _place(best)


def _shifted(case: _Case) -> tuple[list[Box], str]:
    """Displaced by 0.4 to 0.8 of its size. The detail says where it is, and by how many pixels it was moved."""
    box, (height, width) = case.box, case.photo.plants.shape
    by = case.rng.uniform(0.4, 0.8)
    # Towards the middle there is always room.
    towards_middle = math.atan2(height / 2 - box.y - box.h / 2, width / 2 - box.x - box.w / 2)
    for angle in (*case.rng.uniform(0, 2 * math.pi, _TRIES), towards_middle):
        dx, dy = round(by * box.w * math.cos(angle)), round(by * box.h * math.sin(angle))
        moved = replace(box, x=box.x + dx, y=box.y + dy)
        if case.is_inside(moved):
            break
    return [moved], f"{_place(moved)} dx={dx} dy={dy}"


def _mislabelled(case: _Case) -> tuple[list[Box], str]:
    """With another class, mostly another disease of the same plant. The detail says where, and names its own class."""
    labels = case.box.labels
    own = f"{labels['category']}___{'healthy' if labels['disease'] == 'none' else labels['disease']}"
    claimed = another_class(case.spec, own, case.rng)
    severity = 0.0 if claimed.look == "healthy" else labels["severity"] or round(case.rng.uniform(0.01, 0.3), 4)
    wrong = {
        **labels,
        "category": claimed.category,
        "health": claimed.health,
        "disease": claimed.disease,
        "severity": severity,
    }
    return [replace(case.box, labels=wrong)], f"{_place(case.box)} class={own} severity={labels['severity']:.4f}"


_DEFECTS: Mapping[str, Callable[[_Case], tuple[list[Box], str]]] = {
    "box-missing": _missing,
    "box-extra": _extra,
    "box-shifted": _shifted,
    "box-mislabelled": _mislabelled,
}
BOX_DEFECTS = tuple(_DEFECTS)
"""All kinds of faulty boxes."""


def _place(box: Box) -> str:
    return f"x={box.x} y={box.y} w={box.w} h={box.h}"


def _shared(one: Box, other: Box) -> float:
    """Intersection of two boxes as a share of the smaller one."""
    w = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    h = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    return max(w, 0) * max(h, 0) / min(one.w * one.h, other.w * other.h)
