"""Pseudo-labels are a file of the run: a resumed training has the same."""

import io
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from plantml import storage
from plantml.targets import Target
from plantml.train import pseudo_labels
from plantml.train.batches import Photos
from plantml.train.run_folder import PSEUDO_LABELS

DISEASE = Target("disease", "class", ("none", "rust"))
SIGNS = Target("signs", "multilabel", ("spots", "holes"))
EMBEDDINGS = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1], [0.9, 0], [1, 1]], np.float32)
IDS = [letter * 64 for letter in "abcdef"]


@pytest.fixture
def photos() -> Photos:
    """Two labelled photos, and four without labels."""
    labels = {
        "disease": np.array([0, 1, -1, -1, -1, -1]),
        "signs": np.array([[1, 0], [1, 1], *[[np.nan, np.nan]] * 4], np.float32),
    }
    return Photos(np.zeros((6, 4, 4, 3), np.uint8), np.arange(6, dtype=np.uint64), labels, np.arange(2))


@pytest.fixture
def run(tmp_path):
    return SimpleNamespace(url=str(tmp_path), write=lambda name, data: storage.write(str(tmp_path / name), data))


def complete(photos, run, make_plan, rows=(2, 3, 4, 5), embed=lambda rows: EMBEDDINGS[rows]):
    plan = make_plan(targets=(DISEASE, SIGNS), pseudo_threshold=0.6)
    data = SimpleNamespace(train=photos, unlabelled=np.array(rows), image_ids=IDS)
    return pseudo_labels.complete(data, plan, run, embed)


def test_certain_photos_join_the_labelled_ones(photos, run, make_plan) -> None:
    learnt, counts = complete(photos, run, make_plan)
    assert learnt.rows.tolist() == [0, 1, 2, 3, 4]
    assert learnt.labels["disease"].tolist() == [0, 1, 0, 1, 0, -1]
    assert np.array_equal(learnt.labels["signs"][2:5], [[1, 0], [1, 1], [1, 0]])
    assert counts == {"disease": 3, "signs": 3}
    assert (photos.labels["disease"][2:] == -1).all()  # what was given is not changed
    table = pl.read_parquet(io.BytesIO(storage.read(storage.join(run.url, PSEUDO_LABELS))))
    assert table.schema == {"image_id": pl.String, "disease": pl.String, "signs": pl.List(pl.String)}


def test_a_resumed_run_takes_the_labels_of_its_file(photos, run, make_plan) -> None:
    first, counts = complete(photos, run, make_plan)

    def fail(_):
        raise AssertionError("embedded again")

    again, counted = complete(photos, run, make_plan, embed=fail)
    assert counted == counts
    assert again.rows.tolist() == first.rows.tolist()
    for name, labels in first.labels.items():
        assert np.array_equal(again.labels[name], labels, equal_nan=True)
    fewer, _ = complete(photos, run, make_plan, rows=(3, 4), embed=fail)  # one cannot be read any more
    assert set(fewer.rows) == set(first.rows) - {2, 5}
