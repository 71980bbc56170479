"""Targets and labels of boxes."""

import polars as pl
import pytest

from plantml.data import boxes
from plantml.data.boxes import Box
from plantml.errors import InputError
from plantml.targets import Target


def rows(*photos):
    return [None if photo is None else [box.as_row() for box in photo] for photo in photos]


def flat(*photos):
    return [row for photo in rows(*photos) if photo for row in photo]


A = Box(1, 2, 30, 40, {"health": "healthy", "severity": 0.25})
B = Box(5, 6, 7, 8, {"health": "diseased"})


def test_labels_become_targets_in_a_known_order():
    health = Target("health", "class", ("healthy", "dead", "diseased"))
    known = [health, Target("severity", "value", unit="fraction")]
    assert boxes.targets_of(flat([A, B]), known) == (
        Target("health", "class", ("healthy", "diseased")),
        Target("severity", "value", unit="fraction"),
    )
    assert boxes.targets_of(flat([A, B]))[0].classes == ("diseased", "healthy")
    assert boxes.targets_of([None, Box(0, 0, 1, 1).as_row()]) == ()


def test_classes_and_numbers_of_one_name_are_an_error():
    with pytest.raises(InputError, match="classes and numbers as health"):
        boxes.targets_of(flat([A, Box(0, 0, 1, 1, {"health": 3.0})]))


def test_a_frame_has_a_row_per_box_and_a_column_per_target():
    targets = boxes.targets_of(flat([A, B]))
    frame = boxes.frame(pl.DataFrame({"boxes": rows([A], None, [], [B])}), targets)
    assert frame.to_dicts() == [
        {"x": 1, "y": 2, "w": 30, "h": 40, "health": "healthy", "severity": 0.25},
        {"x": 5, "y": 6, "w": 7, "h": 8, "health": "diseased", "severity": None},
    ]


def test_only_classes_are_names_for_other_formats():
    assert A.classes == {"health": "healthy"}
    assert boxes.from_rows([A.as_row()]) == (A,)
