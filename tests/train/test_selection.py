"""What a training says of its data before it begins."""

from dataclasses import replace

import pytest

from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.targets import Target
from plantml.train import selection
from plantml.train.config import TrainConfig


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"split": "train", "group": "a"}, {"split": "test", "group": "b"}], ""),
        ([{"split": "train", "image_id": "x"}, {"split": "val", "image_id": "x"}], "1 photo of train"),
        ([{"split": "train", "group": "a"}, {"split": "test", "group": "a"}], "1 group of train"),
        ([{"split": "train", "image_id": "x"}, {"split": "val", "image_id": "x", "status": "excluded"}], ""),
        ([{"split": "train"}, {"split": None}], ""),
    ],
)
def test_photos_and_groups_in_two_splits_are_named_as_a_leak(make_rows, rows, expected):
    leak = selection.leaks(Version("leaves", 1, make_rows(rows), ()))
    assert leak.startswith(f"Leak: {expected}") if expected else not leak
    assert not expected or "plantml dataset split leaves --resplit" in leak


LEAF, PLANT = Box(1, 1, 9, 9, {"category": "bean"}), Box(2, 2, 9, 9, {"category": "bean", "health": "dead"})
MAIZE = Box(3, 3, 9, 9, {"category": "maize"})


def drawn(make_rows, *photos, labels=None):
    """A version of training photos with boxes, and perhaps with labels of their own."""
    targets = (Target("disease", "class", ("none", "rust")),) if labels else ()
    rows = [
        {"split": "train", "boxes": None if photo is None else [box.as_row() for box in photo]}
        | ({"disease": label} if label else {})
        for photo, label in zip(photos, labels or [None] * len(photos), strict=True)
    ]
    return Version("trays", 1, make_rows(rows, targets), targets)


@pytest.mark.parametrize(
    ("photos", "labels", "task"),
    [
        (([LEAF], [MAIZE]), None, "boxes"),
        (([LEAF], []), None, "boxes"),
        (([LEAF], [PLANT, replace(PLANT, labels={"health": "healthy"})]), None, "tray"),
        (([replace(LEAF, labels={"severity": 0.5})], []), None, "tray"),
        (([LEAF], [MAIZE]), ["rust", "none"], "image"),
        ((None, None), ["rust", "none"], "image"),
    ],
)
def test_the_data_choose_the_task_and_the_reason_is_given(make_rows, photos, labels, task):
    version = drawn(make_rows, *photos, labels=labels)
    chosen = selection.select(version, TrainConfig())
    assert chosen.task == task
    assert chosen.why
    assert selection.select(chosen, TrainConfig()) is chosen
    if task != "image":
        assert selection.select(version, TrainConfig(task="boxes")).task == "boxes"


def test_photos_without_annotation_are_no_empty_photos(make_rows):
    chosen = selection.select(drawn(make_rows, [LEAF], [], None), TrainConfig(task="boxes"))
    assert chosen.rows.height == 2
    assert [target.name for target in chosen.targets] == ["category"]


def test_boxes_without_area_are_not_learnt(make_rows):
    flat = [Box(5, 640, 44, height, {"category": "bean"}) for height in (-1, 0)]
    chosen = selection.select(drawn(make_rows, [LEAF, *flat], flat), TrainConfig(task="boxes"))
    assert chosen.rows["boxes"].list.len().to_list() == [1, 0]


def test_boxes_cannot_be_learnt_where_there_are_none(make_rows):
    with pytest.raises(InputError, match="has no boxes in its train split"):
        selection.select(drawn(make_rows, None, [], labels=["rust", "none"]), TrainConfig(task="tray"))
