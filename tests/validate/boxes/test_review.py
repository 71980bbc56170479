"""Which photos to annotate next, for models that find boxes."""

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from plantml.data import boxes, versions
from plantml.validate.boxes import report, review

LEFT, RIGHT, FAR = (2, 2, 10, 10), (18, 2, 10, 10), (18, 18, 8, 8)


@pytest.fixture(autouse=True)
def no_charts(monkeypatch):
    monkeypatch.setattr(report, "pictures", lambda _: {})  # take seconds


def tasks(folder):
    return json.loads((folder / "review" / "tasks.json").read_text())


def test_doubt_is_the_number_of_mistakes_to_expect(finder):
    contract = finder([[]]).bundle.contract
    outputs = {
        "score": np.array([[0.9], [0.6], [0.2]], np.float32),
        "target.health": np.array([[1, 0], [0.5, 0.5], [1, 0]], np.float32),
    }
    # One may be false, the next false or of the other class, and the last one missed.
    assert review.doubt(contract, outputs) == pytest.approx(0.1 + 0.7 + 0.2, abs=1e-6)
    assert review.doubt(contract, {name: values[:0] for name, values in outputs.items()}) == 0


def test_photos_without_annotation_come_first_the_most_doubtful_before(draw, finder, judged, tmp_path):
    answers = [[(*LEFT, 0.9, 0)], [(*LEFT, 0.95, 0)], [(*LEFT, 0.6, 1), (*RIGHT, 0.4, 0)], [(*LEFT, 0.7, 0)]]
    data = draw([[(*LEFT, "healthy")], None, None, None], split=["test", None, "test", None])
    result = judged(data, finder(answers), review=2, out=str(tmp_path))
    assert result.review == 2
    first, second = tasks(tmp_path)
    assert [each["data"]["name"] for each in (first, second)] == ["00002.jpg", "00003.jpg"]
    assert first["data"]["why"] == "doubtful"
    assert first["data"]["how"] > second["data"]["how"]
    (drawn,) = first["predictions"][0]["result"]  # the other one is too weak
    assert drawn["value"]["rectanglelabels"] == ["diseased"]
    assert drawn["score"] == 0.6
    assert drawn["value"]["width"] == pytest.approx(10 / 32 * 100)
    labels = [each.get("value") for each in ET.parse(tmp_path / "review" / "interface.xml").iter("Label")]
    assert labels == ["healthy", "diseased"]


def test_where_all_are_annotated_each_group_is_looked_at_once(draw, finder, judged, tmp_path):
    answers = [[(*LEFT, 0.6 + number / 20, 0)] for number in range(4)]
    data = draw([[(*LEFT, "healthy")]] * 4, group=["a", "a", "b", "b"])
    assert judged(data, finder(answers), review=9, out=str(tmp_path)).review == 2
    assert [each["data"]["name"] for each in tasks(tmp_path)] == ["00000.jpg", "00002.jpg"]


def test_corrected_boxes_come_back(draw, finder, judged, tmp_path, cli):
    answers = [[(*LEFT, 0.9, 0)], [(*LEFT, 0.9, 0), (*FAR, 0.7, 1)]]
    judged(draw([[(*LEFT, "healthy")], None]), finder(answers), review=1, out=str(tmp_path / "out"))
    content = tasks(tmp_path / "out")
    for task in content:  # as Label Studio exports them after somebody has looked
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    (tmp_path / "out" / "review" / "tasks.json").write_text(json.dumps(content))
    result = cli("dataset", "import", tmp_path / "out" / "review" / "tasks.json", tmp_path / "corrected")
    assert result.code == 0, result.err
    (drawn,) = versions.load(str(tmp_path / "corrected")).usable()["boxes"].to_list()
    sides = [(box.x, box.y, box.w, box.h) for box in boxes.from_rows(drawn)]
    assert sides == [pytest.approx(LEFT), pytest.approx(FAR)]


def test_slices_say_where_boxes_are_found_worst(draw, finder, judged):
    sites = ["field"] * 10 + ["house"] * 10
    answers = [[(*LEFT, 0.9, 0)]] * 10 + [[(*FAR, 0.9, 0)]] * 5 + [[(*LEFT, 0.9, 1)]] * 5
    result = judged(draw([[(*LEFT, "healthy")]] * 20, meta_site=sites), finder(answers))
    by = {(each.by, each.value, each.target): each for each in result.slices}
    worst = by["site", "house", "boxes"]
    assert (worst.score, worst.number, worst.rest, worst.photos) == ("f1", 0.5, 1, 10)
    assert worst.interval.low < 0.5 < worst.interval.high
    assert by["site", "house", "health"].number == 0
    assert result.slices[0].value == "house"


def test_a_slice_with_nothing_to_find_has_no_score(draw, finder, judged):
    result = judged(
        draw([[(*LEFT, "healthy")]] * 3 + [[]] * 3, meta_site=["field"] * 3 + ["shed"] * 3),
        finder([[(*LEFT, 0.9, 0)]] * 3 + [[]] * 3),
    )
    assert [(each.value, each.rest) for each in result.slices if each.target == "boxes"] == [("field", None)]
