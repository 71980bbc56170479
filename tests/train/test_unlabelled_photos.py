"""Which photos a training may learn from without their labels."""

import pytest

from plantml.data import versions
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.targets import Target
from plantml.train import unlabelled_photos
from plantml.train.unlabelled_photos import add_rows, select_unlabelled

DISEASE = Target("disease", "class", ("none", "rust"))
TARGETS = (DISEASE, Target("category", "class", ("bean",)))
HASHES = {"entropy": 7.0, "contrast": 0.2}


def commit(url, rows) -> str:
    return versions.commit(Version(str(url), 0, rows, TARGETS), "import", {}, 0).ref


def photo(name, phash, **record):
    return {"image_id": name * 64, "phash": phash, **HASHES, **record}


@pytest.fixture
def labelled(make_rows):
    """A training, a validation and a test photo with labels, and a training photo whose category alone is known."""
    records = [
        photo("a", 1 << 40, split="train", disease="rust"),
        photo("b", 0x5A5A_0F0F_3333_9C9C, split="val", disease="none"),
        photo("c", 0x1234_5678_9ABC_DEF1, split="test", disease="none"),
        photo("d", 0x0F1E_2D3C_4B5A_6978, split="train", category="bean"),
    ]
    return Version("leaves", 1, make_rows(records, TARGETS), TARGETS)


def test_what_is_labelled_or_judged_and_copies_of_it_are_left_out(make_rows, labelled, tmp_path) -> None:
    records = [
        photo("a", 1 << 40),  # labelled
        photo("b", 0x5A5A_0F0F_3333_9C9C),  # judged
        photo("d", 0x0F1E_2D3C_4B5A_6978),  # in the labelled dataset, without a label
        photo("e", 0x5A5A_0F0F_3333_9C9D),  # one bit from a validation photo
        photo("f", 0x7777_1111_EEEE_2222, disease="rust"),  # has a label of its own
        photo("f", 0x7777_1111_EEEE_2222),  # again
        photo("g", 0x3141_5926_5358_9793, status="excluded"),
    ]
    others = select_unlabelled(commit(tmp_path / "season", make_rows(records, TARGETS)), labelled, ["disease"])
    assert others.rows["image_id"].str.slice(0, 1).to_list() == ["d", "f"]
    assert others.left_out == {unlabelled_photos.LABELLED: 2, unlabelled_photos.NEAR: 1}


def test_a_dataset_without_other_photos_is_an_error(make_rows, labelled, tmp_path) -> None:
    with pytest.raises(InputError, match="no photo to learn from without labels") as caught:
        select_unlabelled(commit(tmp_path / "season", make_rows([photo("a", 1)], TARGETS)), labelled, ["disease"])
    assert "1 labelled" in caught.value.why


def test_labels_of_the_other_dataset_are_not_taken_along(make_rows, labelled, tmp_path) -> None:
    records = [photo("d", 3), photo("f", 0x7777_1111_EEEE_2222, disease="rust")]
    others = select_unlabelled(commit(tmp_path / "season", make_rows(records, TARGETS)), labelled, ["disease"])
    count, rows = add_rows(labelled.usable("train"), others)
    assert count == 1
    assert rows["disease"].to_list() == ["rust", None, None]
    assert rows["path"][1].startswith(str(tmp_path))
