"""Pseudo-boxes are a file of the run: a resumed training has the same."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from plantml import storage
from plantml.concurrency import Stop
from plantml.data import boxes
from plantml.data.boxes import Box
from plantml.data.manifest import BOX
from plantml.imaging import Fit
from plantml.model.contract import Withheld
from plantml.targets import Target
from plantml.train.boxes import pseudo_boxes
from plantml.train.boxes.photos import BoxPhotos
from plantml.train.boxes.pseudo_boxes import OtherPhotos
from plantml.train.probe import EmbeddingJob
from plantml.train.run_folder import PSEUDO_LABELS

CATEGORY = Target("category", "class", ("bean", "maize"))
IDS = [letter * 64 for letter in "abc"]
FOUND = pl.DataFrame(
    {
        "image_id": IDS,
        "boxes": [
            [Box(10, 20, 40, 40, {"category": "maize"}).as_row(), Box(60, 60, 20, 20).as_row()],
            [Box(0, 0, 10, 10).as_row()],
            [],
        ],
        "scores": [[0.9, 0.3], [0.5], []],
    },
    schema={"image_id": pl.String, "boxes": pl.List(BOX), "scores": pl.List(pl.Float64)},
)


@pytest.fixture
def run(tmp_path):
    return SimpleNamespace(url=str(tmp_path), write=lambda name, data: storage.write(str(tmp_path / name), data))


@pytest.fixture
def photos() -> BoxPhotos:
    """One annotated photo of 100 x 100 pixels, seen at 50 x 50, and three others."""
    none = np.empty((0, 4), np.float32)
    drawn = [np.array([[5, 5, 10, 10]], np.float32), none, none, none]
    labels = [{"category": np.zeros(len(each), np.int64)} for each in drawn]
    return BoxPhotos(
        np.zeros((4, 50, 50, 3), np.uint8), np.arange(4, dtype=np.uint64), np.arange(1), drawn, labels, [(100, 100)] * 4
    )


def complete(photos, run, make_plan, find=lambda: FOUND):
    plan = make_plan(targets=(CATEGORY,), input=Fit(44, 44), pseudo_threshold=0.6)
    others = OtherPhotos(np.zeros((3, 44, 44, 3), np.uint8), np.arange(1, 4), IDS, [(100, 100)] * 3, Fit(50, 50))
    return pseudo_boxes.complete(photos, others, plan, run, find)


def test_photos_with_a_certain_box_join_the_annotated_ones(photos, run, make_plan) -> None:
    learnt, counts = complete(photos, run, make_plan)
    assert learnt.rows.tolist() == [0, 1]
    assert learnt.boxes[1].tolist() == [[5, 10, 20, 20], [30, 30, 10, 10]]
    assert learnt.labels[1]["category"].tolist() == [1, -1]
    assert learnt.doubts(1).tolist() == [False, True]
    assert learnt.doubts(0).tolist() == [False]
    assert counts == {"photos": 1, "boxes": 1}
    assert photos.rows.tolist() == [0]  # what was given is not changed


def test_a_resumed_run_takes_the_boxes_of_its_file(photos, run, make_plan) -> None:
    first, counts = complete(photos, run, make_plan)

    def fail():
        raise AssertionError("predicted again")

    again, counted = complete(photos, run, make_plan, fail)
    assert counted == counts
    assert again.rows.tolist() == first.rows.tolist()
    assert all((one == other).all() for one, other in zip(again.boxes, first.boxes, strict=True))
    table = pl.read_parquet(io.BytesIO(storage.read(storage.join(run.url, PSEUDO_LABELS))))
    assert table.equals(FOUND)


class Teacher(torch.nn.Module):
    """Finds three boxes in each photo: a bean, an oat and an empty cell, which looks like a bean, too."""

    def __init__(self) -> None:
        super().__init__()
        crops = Target("category", "class", ("bean", "oat"))
        self.net = SimpleNamespace(targets=(crops, Target("viability", "class", ("missing", "viable"))))
        self.output_names = ["boxes", "score", "target.category", "target.viability"]

    def forward(self, photos):
        found = (
            [[10.0, 10.0, 8.0, 8.0]] * 3,
            [0.9, 0.8, 0.7],
            [[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]],
            [[0.1, 0.9], [0.5, 0.5], [0.9, 0.1]],
        )
        return tuple(torch.tensor([each] * len(photos)) for each in found)


def test_a_teacher_labels_what_it_knows_and_what_applies(make_plan, tmp_path) -> None:
    viability = Target("viability", "class", ("missing", "viable"))
    health = Target("health", "class", ("diseased", "healthy"))  # which the teacher has never seen
    rule = Withheld(targets=("category", "health"), where="viability", label="missing")
    plan = make_plan(targets=(CATEGORY, health, viability), input=Fit(44, 44), pseudo_threshold=0.6, withheld=(rule,))
    others = OtherPhotos(np.zeros((1, 44, 44, 3), np.uint8), np.arange(1), IDS[:1], [(100, 100)], Fit(50, 50))
    job = EmbeddingJob("cpu", Path(tmp_path), 1.0, lambda: None, Stop())
    table = pseudo_boxes.find_boxes(Teacher(), others, plan, job)
    found = boxes.from_rows(table["boxes"][0])
    assert [box.labels for box in found] == [{"category": "bean", "viability": "viable"}, {}, {"viability": "missing"}]
    assert table["scores"][0].to_list() == pytest.approx([0.9, 0.8, 0.7])
