"""What a training says of its data before it begins."""

import pytest

from plantml.data.manifest import Version
from plantml.train import selection


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
