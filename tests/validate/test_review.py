import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from plantml.data import versions
from plantml.errors import UsageError
from plantml.validate import review

PHOTO = [("rust", "rust", {})]


def tasks(folder):
    return json.loads((folder / "review" / "tasks.json").read_text())


def test_photos_without_labels_come_first(paint, painted, judged, tmp_path):
    data = paint([("rust", "rust", {})] * 4 + [("", "blight", {"split": ""})] * 3)
    outcome = judged(data, painted(), review=5, out=str(tmp_path / "out"))
    assert outcome.review == 3
    written = tasks(tmp_path / "out")
    assert {task["data"]["name"] for task in written} == {"004.png", "005.png", "006.png"}
    assert {task["data"]["why"] for task in written} <= {"uncertain", "novel"}
    for task in written:
        (prediction,) = task["predictions"]
        predicted = {result["from_name"]: result["value"]["choices"] for result in prediction["result"]}
        assert predicted == {"health": ["diseased"], "disease": ["blight"]}
        assert 0 <= prediction["score"] <= 1
        file = tmp_path / "out" / "review" / task["data"]["image"].partition("?d=")[2]
        assert file.is_file()


def test_where_all_are_labelled_the_judged_ones_are_looked_at_again(paint, painted, judged, tmp_path):
    photos = [("rust", name, {}) for name in ("rust", "none", "blight")] * 4
    result = judged(paint(photos), painted(), review=4, out=str(tmp_path / "out"))
    assert result.review == 4
    assert len({task["data"]["name"] for task in tasks(tmp_path / "out")}) == 4


def test_one_photo_of_a_plant_is_enough(paint, painted, judged, tmp_path):
    photos = [("rust", "rust", {"group": f"plant{number // 3}"}) for number in range(9)]
    assert judged(paint(photos), painted(), review=9, out=str(tmp_path / "out")).review == 3


def test_labels_that_were_put_right_come_back(paint, painted, judged, tmp_path, cli):
    """What a person does in Label Studio: each prediction becomes an annotation, one is changed."""
    data = paint([("rust", "rust", {})] * 2 + [("", "blight", {}), ("", "none", {})])
    judged(data, painted(), review=4, out=str(tmp_path / "out"))
    home = tmp_path / "out" / "review"
    content = tasks(tmp_path / "out")
    for task in content:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
        for result in task["annotations"][0]["result"]:
            if task["data"]["name"] == "002.png" and result["from_name"] == "disease":
                result["value"]["choices"] = ["rust"]
    (home / "tasks.json").write_text(json.dumps(content))
    result = cli("dataset", "import", home / "tasks.json", tmp_path / "labelled")
    assert result.code == 0, result.err
    rows = versions.load(str(tmp_path / "labelled")).usable()
    assert dict(rows.select("image_id", "disease").iter_rows()) == {
        image_id: {"002.png": "rust", "003.png": "none"}[name]
        for name, image_id in versions.load(data).usable().select("name", "image_id").iter_rows()
        if name in {"002.png", "003.png"}
    }


def test_the_interface_has_every_class_to_choose(paint, painted, judged, tmp_path):
    judged(paint([("rust", "rust", {})] * 3), painted(), review=2, out=str(tmp_path / "out"))
    view = ET.parse(tmp_path / "out" / "review" / "interface.xml").getroot()
    choices = {each.get("name"): [choice.get("value") for choice in each] for each in view.iter("Choices")}
    assert choices == {"health": ["healthy", "diseased"], "disease": ["none", "rust", "blight"]}


def test_without_a_folder_there_is_nowhere_to_write(paint, painted, judged):
    with pytest.raises(UsageError, match="--review"):
        judged(paint([("rust", "rust", {})] * 2), painted(), review=2)


UNIT = np.eye(6, dtype=np.float32)


def chosen(uncertainty, distance, count, *, vectors=UNIT, groups=(0, 1, 2, 3, 4, 5)):
    return review.most_valuable(vectors, np.array(uncertainty), np.array(distance), np.array(groups), count)


def test_uncertainty_and_distance_decide_together():
    assert chosen([0.9, 0.5, 0.1, 0, 0, 0], [0.1, 0.5, 0.8, 0, 0, 0], 3) == [1, 0, 2]


def test_a_photo_like_one_that_was_chosen_is_worth_less():
    vectors = UNIT[[0, 0, 1, 2, 3, 4]]  # the first two are alike
    assert chosen([0.9, 0.8, 0.5, 0, 0, 0], [0.5] * 6, 3, vectors=vectors)[:2] == [0, 2]


def test_of_a_group_one_is_chosen():
    assert chosen([0.9, 0.8, 0.5, 0.4, 0, 0], [0.5] * 6, 9, groups=(7, 7, 7, 3, 3, 3)) == [0, 3]


def test_a_model_that_is_certain_of_all_gets_what_is_far():
    assert chosen([0] * 6, [0.1, 0.3, 0.2, 0.6, 0.5, 0.4], 3) == [3, 4, 5]


def test_photos_from_the_cache_are_chosen_as_new_ones_are(paint, painted, judged, tmp_path):
    data, model = paint([("rust", name, {"split": ""}) for name in ("rust", "none", "blight")] * 2 + PHOTO), painted()
    for name in ("new", "cached"):
        judged(data, model, review=4, out=str(tmp_path / name))
    assert tasks(tmp_path / "new") == tasks(tmp_path / "cached")
