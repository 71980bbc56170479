import pytest

from plantml.model.contract import Origin


@pytest.fixture
def leaky(paint):
    """Four training photos; of eight test photos two are copies, one is of a training plant."""
    train = [("rust", "rust", {"split": "train", "group": "plant1"})] + [("none", "none", {"split": "train"})] * 3
    test = [
        ("rust", "rust", {"copy_of": 0}),
        ("none", "none", {"copy_of": 1}),
        ("blight", "blight", {"group": "plant1"}),
    ]
    return paint(train + test + [("rust", "none", {})] * 2 + [("rust", "rust", {})] * 3)


def test_copies_and_photos_of_a_training_plant_are_left_out(leaky, painted, judged):
    result = judged(leaky, painted())
    assert (result.leaks.photos, result.leaks.leaked, result.leaks.trained) == (8, 3, 4)
    assert result.leaks.raw["disease.accuracy"] == result.scores["disease.accuracy"] == 6 / 8
    assert result.leaks.clean["disease.accuracy"] == 3 / 5
    assert result.leaks.intervals["disease.accuracy"].low < 3 / 5


def test_nothing_leaked_is_said(paint, painted, judged):
    data = paint([("rust", "rust", {"split": "train"}), ("rust", "rust", {}), ("none", "none", {})])
    result = judged(data, painted())
    assert (result.leaks.leaked, result.leaks.clean) == (0, {})


def test_what_the_model_learnt_from_counts_wherever_it_is(paint, painted, judged, leaky):
    other = paint([("rust", "rust", {}), ("none", "none", {})], "other")
    assert judged(other, painted()).leaks is None
    model = painted(dataset=Origin(url=leaky, version=1, fingerprint=""))
    assert judged(other, model).leaks.trained == 4


def test_what_another_dataset_would_train_on_is_no_leak(paint, painted, judged, leaky):
    other = paint([("rust", "rust", {"split": "train"}), ("none", "none", {})], "other")
    model = painted(dataset=Origin(url=leaky, version=1, fingerprint=""))
    leaks = judged(other, model, split="all").leaks
    assert (leaks.trained, leaks.leaked) == (4, 0)


def test_a_training_set_that_is_gone_is_no_error(paint, painted, judged, tmp_path):
    data = paint([("rust", "rust", {}), ("none", "none", {})])
    model = painted(dataset=Origin(url=str(tmp_path / "gone"), version=3, fingerprint=""))
    assert judged(data, model).leaks is None


def test_no_photo_left_has_no_clean_score(paint, painted, judged):
    data = paint([("rust", "rust", {"split": "train"}), ("rust", "rust", {"copy_of": 0})])
    result = judged(data, painted())
    assert (result.leaks.leaked, result.leaks.clean) == (1, {})


def test_a_dataset_that_is_named_by_a_relative_path_is_the_same(leaky, painted, judged, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert judged("data", painted()).leaks.leaked == judged(leaky, painted()).leaks.leaked == 3


def test_photos_that_were_learnt_from_without_labels_leak_too(paint, painted, judged, leaky):
    """Those that judged the training were not learnt from, though they are in the same dataset."""
    season = paint([("rust", "rust", {}), ("none", "none", {}), ("rust", "rust", {"split": "val"})], "season")
    own = Origin(url=season, version=1, fingerprint="")
    labelled = Origin(url=leaky, version=1, fingerprint="")
    leaks = judged(season, painted(dataset=labelled, unlabelled=own), split="all").leaks
    assert (leaks.photos, leaks.leaked, leaks.trained) == (3, 3, 4 + 3)
    assert judged(season, painted(dataset=labelled), split="all").leaks.leaked == 0
    leaks = judged(leaky, painted(dataset=labelled, unlabelled=labelled)).leaks
    assert (leaks.leaked, leaks.trained) == (3, 4 + 2)  # as without; a copy of a test photo was not learnt from
