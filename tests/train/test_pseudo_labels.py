"""Pseudo-labels are a file of the run: a resumed training has the same."""

import io
import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import timm
import torch

from plantml import storage
from plantml.data import versions
from plantml.errors import Exit
from plantml.targets import Target
from plantml.train import pseudo_labels
from plantml.train.batches.loader import Photos
from plantml.train.run_folder import PSEUDO_LABELS
from plantml.train.step_learner import StepLearner

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


@pytest.fixture
def few(cli, tmp_path):
    """A dataset of one crop, in which few training photos have a label of health and disease; and one with all."""
    photos, data = tmp_path / "photos", tmp_path / "data"
    classes = ("--classes", "bean___healthy,bean___rust")
    assert cli("dataset", "synth", photos, "--images", 40, "--size", 64, *classes).code == Exit.DONE
    assert cli("dataset", "import", photos / "labels.csv", data, "--group-column", "plant").code == Exit.DONE
    assert cli("dataset", "split", data).code == Exit.DONE
    full = versions.load(str(data))

    def take_labels(head):
        rows = head.rows.with_row_index("row")
        others = rows.filter(split="train")["row"][10:]
        without = pl.when(pl.col("row").is_in(others.implode())).then(None)
        names = ["health", "disease"]
        return rows.with_columns(without.otherwise(name).alias(name) for name in names).drop("row"), head.targets, None

    return versions.change(str(data), "relabel", {}, take_labels).version, full


@pytest.mark.usefixtures("unexported", "unmeasured")
def test_an_epoch_has_all_photos_that_got_a_label(cli, few, tmp_path, monkeypatch) -> None:
    labelled, full = few
    torch.save(timm.create_model("test_efficientnet", num_classes=0).state_dict(), tmp_path / "weights.pt")
    learners, fit = [], StepLearner.fit
    monkeypatch.setattr(StepLearner, "fit", lambda learner, *more: (learners.append(learner), fit(learner, *more))[1])
    result = cli(
        "train", labelled.ref, "--out", tmp_path / "run", "--size", 32, "--epochs", 1, "--batch-size", 4,
        "--backbone", "test_efficientnet", "--weights", tmp_path / "weights.pt", "--set", "mode=finetune",
        "--unlabelled", full.ref, "--set", "pseudo_threshold=0.01", "--json",
    )  # fmt: skip
    assert result.code == Exit.DONE, result.err
    train = labelled.usable("train").height
    counts = json.loads((tmp_path / "run" / "metrics.json").read_text())["pseudo_labels"]
    assert counts["disease"] == train - 10
    [learner] = learners
    assert len(learner.photos.rows) == train
    assert learner.plan.epoch_photos == train  # of the same dataset, each counts once
    assert f"epoch_photos: {train}\n" in (tmp_path / "run" / "plan.yaml").read_text()
    contract = json.loads((tmp_path / "run" / "bundle" / "model.json").read_text())["contract"]
    assert contract["unlabelled"] == {"url": str(full.url), "version": full.number, "fingerprint": full.fingerprint}
