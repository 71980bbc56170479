"""Validation of models that find boxes: every number can be told from the answers that are written down."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tests.detect.conftest import DETECTOR, Spots

import plantml
from plantml import settings
from plantml.concurrency import Stop
from plantml.data import versions
from plantml.detect import session
from plantml.errors import InputError, UsageError
from plantml.model.bundle import Bundle
from plantml.model.contract import Withheld
from plantml.registry import references
from plantml.targets import Target
from plantml.validate import report as photo_report
from plantml.validate import results
from plantml.validate.boxes import report
from plantml.validate.config import ValidateConfig
from plantml.validate.predictions import Machine
from plantml.validate.validate import predict

LEFT, RIGHT, FAR = (2, 2, 10, 10), (18, 2, 10, 10), (18, 18, 8, 8)
TRUTH = [
    [(*LEFT, "healthy"), (*RIGHT, "diseased")],
    [(*LEFT, "diseased")],
    [],
]
ANSWERS = [
    [(*LEFT, 0.9, 0), (*RIGHT, 0.7, 0), (*FAR, 0.1, 0)],  # the right one has the wrong class; the far one is too weak
    [(*FAR, 0.6, 1)],  # one false, one missed
    [],
]


@pytest.fixture
def one(draw, finder, judged):
    """The result of these answers."""
    return judged(draw(TRUTH), finder(ANSWERS))


def test_boxes_are_matched_and_counted_whatever_their_class(one):
    scores = one.scores
    assert scores["boxes.precision"] == pytest.approx(2 / 3)
    assert scores["boxes.recall"] == pytest.approx(2 / 3)
    assert (scores["boxes.count_bias"], scores["boxes.count_mae"], scores["boxes.count_exact"]) == (0, 0, 1)
    # Two of three boxes are found by the best two answers: precision 1 at 67 of 101 recalls.
    assert scores["boxes.ap50"] == pytest.approx(67 / 101)
    assert scores["boxes.ap_small"] == scores["boxes.ap"]
    assert one.detections["boxes"].confusion.tolist() == [[2, 1], [1, 0]]


def test_classes_have_scores_of_their_own(one):
    assert one.detections["health"].confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert one.scores["boxes.health.recall"] == pytest.approx(1 / 3)
    rows = one.detections["health"].per_class
    assert rows["healthy"]["ap50"] == pytest.approx(1)
    assert rows["diseased"]["ap50"] == 0
    assert rows["diseased"]["count_bias"] == pytest.approx(-1 / 3)
    # Of the two matched boxes one has the right class.
    assert one.scores["health.accuracy"] == 0.5
    assert one.reports[0].per_class["healthy"]["recall"] == 1


def test_photos_without_annotation_are_left_out_and_counted(draw, finder, judged):
    result = judged(draw([*TRUTH, None]), finder([*ANSWERS, [(*LEFT, 0.9, 0)]]))
    assert (result.photos, result.unannotated) == (3, 1)
    assert result.scores["boxes.precision"] == pytest.approx(2 / 3)


def test_a_dataset_without_annotated_photos_is_an_error(draw, finder, judged):
    with pytest.raises(InputError, match="annotated with boxes"):
        judged(draw([None, None]), finder([[], []]))


def test_an_unknown_class_is_named_renamed_or_left_out(draw, finder, judged, tmp_path):
    data = draw([[(*LEFT, "sick")], [(*LEFT, "healthy")]])
    model = finder([[(*LEFT, 0.9, 1)], [(*LEFT, 0.9, 0)]])
    with pytest.raises(InputError, match="sick"):
        judged(data, model)
    names = tmp_path / "names.csv"
    names.write_text("from,to\nsick,diseased\n")
    assert judged(data, model, map=str(names)).scores["health.accuracy"] == 1
    result = judged(data, model, shared_classes=True)
    assert result.left_out == {"health": 1}
    assert result.scores["boxes.recall"] == 1
    assert result.scores["boxes.health.precision"] == result.scores["boxes.health.recall"] == 1
    assert result.detections["health"].per_class["healthy"]["support"] == 1


def test_unlabelled_boxes_are_found_all_the_same(draw, finder, judged):
    result = judged(draw([[(*LEFT, None)], []]), finder([[(*LEFT, 0.9, 1)], []]))
    assert result.scores["boxes.f1"] == 1
    assert list(result.detections) == ["boxes"]
    assert result.reports == []


class Cells:
    """A finder whose class 2 is an empty cell."""

    name = "cells"

    def __init__(self, finder):
        self._finder = finder

    def run(self, batch, columns=None):
        outputs = self._finder.run(batch)
        health, empty = outputs["target.health"][..., :2], outputs["target.health"][..., 2:]
        return outputs | {"target.health": health, "target.viability": np.concatenate([1 - empty, empty], axis=-1)}


def test_an_empty_cell_is_neither_right_nor_wrong_about_what_does_not_apply(draw, finder, judged):
    answers = [[(*LEFT, 0.9, 0), (*RIGHT, 0.9, 2)], [(*LEFT, 0.9, 2)]]
    plain = finder(answers, classes=("healthy", "diseased", "missing"))
    targets = (Target("health", "class", ("healthy", "diseased")), Target("viability", "class", ("viable", "missing")))
    rule = Withheld(targets=("health",), where="viability", label="missing")
    of_cells = plain.bundle.contract.model_copy(update={"targets": targets, "withheld": (rule,)})
    pipeline = replace(plain, bundle=replace(plain.bundle, contract=of_cells), runtime=Cells(plain.runtime))
    # The right one is an empty cell; the plant of the second photo is taken for one.
    result = judged(draw([[(*LEFT, "healthy"), (*RIGHT, None)], [(*LEFT, "healthy")]]), pipeline)
    assert result.scores["boxes.f1"] == 1
    health = result.detections["health"]
    assert health.confusion.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert health.per_class["healthy"]["count_bias"] == pytest.approx(-1 / 2)
    assert [(report.target, report.photos) for report in result.reports] == [("health", 1)]


def test_answers_come_from_the_cache(draw, finder, judged):
    data, model = draw(TRUTH), finder(ANSWERS)
    first, again = judged(data, model), judged(data, model)
    assert (first.new, again.new) == (3, 0)
    assert results.as_json(first) == results.as_json(again)
    assert model.runtime.seen == 3


def test_intervals_are_over_groups_of_photos(draw, finder, judged):
    data = draw(TRUTH * 4, group=[f"plant {number // 2}" for number in range(12)])
    result = judged(data, finder(ANSWERS * 4), min=("boxes.ap50=0.5", "boxes.health.f1[diseased]=0.1"))
    assert result.groups == 6
    for name, value in result.scores.items():
        low, high = result.intervals[name]
        assert low <= high
        if not name.endswith("ece"):
            assert low - 1e-6 <= value <= high + 1e-6
    assert [gate.passed for gate in result.gates] == [True, False]


def test_two_models_are_compared_on_the_same_photos(draw, finder, judged):
    perfect = [[(*sides, 0.9, int(label == "diseased")) for *sides, label in photo] for photo in TRUTH]
    data = draw(TRUTH * 6)
    result = judged(data, finder(ANSWERS * 6), finder(perfect * 6, "other"), against="other", max_drop=0.05)
    comparison = result.comparison
    assert comparison.differences[0].name == "boxes.macro_ap"
    assert comparison.differences[0].value == pytest.approx(result.scores["boxes.health.ap"])
    assert "boxes.count_bias" not in {each.name for each in comparison.differences}  # has no better side
    assert comparison.verdict.startswith("Keep the other model")
    assert sorted(comparison.changed) == [at for at in range(18) if at % 3 == 0]  # equal counts, but of other classes
    assert {gate.name: gate.passed for gate in comparison.gates} == {
        "boxes.ap": False, "boxes.f1": False,
        "boxes.health.f1[healthy]": False, "boxes.health.f1[diseased]": False,
    }  # fmt: skip


def test_another_model_may_have_its_classes_in_another_order(draw, finder, judged):
    other = [[(*sides, score, 1 - label) for *sides, score, label in photo] for photo in ANSWERS]
    data = draw(TRUTH)
    result = judged(data, finder(ANSWERS), finder(other, "other", classes=("diseased", "healthy")), max_drop=0.0)
    assert result.comparison.changed == {}
    assert all(each.difference == 0 for each in result.comparison.differences)
    assert result.passed


def test_a_model_does_not_drop_below_itself(draw, finder, judged):
    data, model = draw(TRUTH), finder(ANSWERS)
    result = judged(data, model, model, against="itself", max_drop=0.0)
    assert result.passed
    assert result.comparison.changed == {}


def test_one_row_per_box(draw, finder, judged, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "pictures", lambda _: {})  # takes seconds
    data = draw([*TRUTH, None, [(*LEFT, "healthy")]])
    (tmp_path / "boxes" / versions.load(data).rows["path"][4]).write_bytes(b"no photo")
    result = judged(data, finder([*ANSWERS, [], []]), out=str(tmp_path / "out"))
    table = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert table["outcome"].to_list() == ["matched", "matched", "false", "missed", None]
    assert table["score"].to_list() == [0.9, 0.7, 0.6, None, None]
    assert table["decision"].to_list() == ["accept", "review", "review", None, None]
    assert table["health_true"].to_list() == ["healthy", "diseased", None, "diseased", None]
    assert table["health_predicted"].to_list() == ["healthy", "healthy", "diseased", None, None]
    assert table.row(1)[table.columns.index("x") :][:4] == RIGHT
    assert table["iou"].to_list() == [1, 1, None, None, None]
    assert table["name"].to_list() == ["00000.jpg", "00000.jpg", "00001.jpg", "00001.jpg", "00004.jpg"]
    assert table["failure"].is_not_null().to_list() == [False] * 4 + [True]
    assert [name for name, _ in result.failed] == ["00004.jpg"]
    machine = Machine(settings.Machine(cache_dir=tmp_path / "cache"), Stop())
    predicted, files = predict(data, finder([*ANSWERS, [], []]), ValidateConfig(), machine, "predicting")
    assert len(predicted.items) == 4
    assert files == {
        name: (tmp_path / "out" / name).read_bytes() for name in ("predictions.parquet", "predictions.csv")
    }
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["unannotated"] == 1
    assert content["boxes"]["health"]["per_class"]["healthy"]["support"] == 1


def test_nothing_to_find_and_nothing_found(draw, finder, judged, tmp_path):
    result = judged(draw([[], []]), finder([[], []]), report=str(tmp_path / "r.html"))
    assert result.scores["boxes.count_exact"] == 1
    assert "boxes.ap" not in result.scores


def test_the_report_shows_the_photos_with_most_errors(draw, finder, judged, tmp_path):
    page = tmp_path / "report.html"
    judged(draw(TRUTH), finder(ANSWERS), report=str(page), out=str(tmp_path / "out"))
    assert {file.name for file in (tmp_path / "out").glob("*.png")} == {
        "confusion_boxes.png", "confusion_health.png", "counting_boxes.png", "precision_recall_boxes.png",
        "reliability_boxes.png",
    }  # fmt: skip
    text = page.read_text()
    assert text.index("00001.jpg") < text.index("00000.jpg")
    assert "1 false, 1 missed" in text
    assert "1 found, 1 with the wrong class" in text
    assert "1 × healthy for diseased" in text
    assert "00002.jpg" not in text
    assert text.count("data:image/jpeg") == 2
    for score in ("boxes.ap", "boxes.count_mae"):
        assert photo_report._WORDS[score] in text


def test_robustness_is_for_whole_photos(draw, finder, judged):
    with pytest.raises(UsageError, match="--robustness"):
        judged(draw(TRUTH), finder(ANSWERS), robustness=True)


def test_models_of_different_tasks_are_not_compared(draw, finder, painted, judged):
    with pytest.raises(UsageError, match="cannot be compared"):
        judged(draw(TRUTH), finder(ANSWERS), painted())


def test_a_model_of_tiles_finds_the_same_boxes_everywhere(draw, cli, tmp_path, monkeypatch):
    (tmp_path / "model").write_bytes(b"")
    contract = DETECTOR.model_copy(update={"detection": DETECTOR.detection.model_copy(update={"tile": 16})})
    bundle = Bundle(str(tmp_path / "model"), contract, "d" * 64, {})
    for module in (references, session):
        monkeypatch.setattr(module, "open_model", lambda *_, **__: (bundle, Spots()))
    monkeypatch.setattr(references, "find", lambda *_: bundle)
    monkeypatch.setattr(report, "pictures", lambda _: {})  # takes seconds
    data = draw(TRUTH)

    def detected(*options):
        result = cli("detect", data, "--model", "m", "--overlap", "0.2", *options)
        return [json.loads(line) for line in result.out.splitlines()]

    records, whole = detected(), detected("--tile", "0")
    assert detected("--tile", "16") == records != whole
    paths = [record["image"] for record in records]
    assert plantml.load("m").predict(paths).records == records
    assert plantml.load("m", tile=0).predict(paths).records == whole
    for number, (options, wanted) in enumerate([((), records), (("--tile", "0"), whole)]):
        out = tmp_path / f"out{number}"
        result = cli("validate", data, "--model", "m", "--out", out, *options)
        assert result.code == 0, result.err
        rows = pl.read_parquet(out / "predictions.parquet").filter(pl.col("score").is_not_null())
        ours = rows.sort("name", "x", "y", "w", "h").select("image_id", "x", "y", "w", "h", "score").rows()
        theirs = sorted(
            (record["image_id"], *(box[side] for side in "xywh"), box["score"])
            for record in wanted
            for box in record["boxes"]
        )
        assert len(ours) > 20
        assert sorted(ours) == [pytest.approx(each) for each in theirs]


def test_tiles_are_for_models_that_find_boxes(paint, painted, judged):
    with pytest.raises(UsageError, match="--tile"):
        judged(paint([("rust", "rust", {})]), painted(), tile=64)
