"""What reviewers see next, by role, and what their decisions make of a dataset."""

import threading
import time

import polars as pl
import pytest
from tests.serve.conftest import sign_in
from tests.serve.detectors import write_detector

from plantml.data import boxes, versions
from plantml.data.boxes import Box
from plantml.data.editing import relabel
from plantml.data.importers import ImportListing, Item
from plantml.errors import StorageError
from plantml.registry import operations, publishing
from plantml.validate import predictions


@pytest.fixture
def judge(site):
    return sign_in(site, "judge", "reviewer", "category", "health", "disease")


def queue(site, headers, **query):
    """The queue, once the model has predicted all photos."""
    for _ in range(200):
        answer = site.get("/v1/review", params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        if answer.json()["state"] == "ready":
            return answer.json()
        time.sleep(0.02)
    raise AssertionError("it never became ready")


def decide(site, headers, image_id, **decision):
    body = {"dataset": "leaves", "image_id": image_id, **decision}
    return site.post("/v1/review", json=body, headers=headers)


def row_of(leaves, image_id):
    return versions.load(leaves).rows.filter(pl.col("image_id") == image_id).row(0, named=True)


def test_photos_without_labels_come_first_then_those_that_the_model_doubts(site, judge):
    answer = queue(site, judge)
    assert (answer["dataset"], answer["version"], answer["model"]) == ("leaves", 2, "leaf@1")
    assert (answer["done"], answer["total"]) == (6, 6)
    names = [photo["name"] for photo in answer["photos"]]
    assert set(names[:2]) == {"u5.jpg", "u6.jpg"}
    assert len(set(names)) == 6
    doubted = answer["photos"][2:]
    assert {photo["why"] for photo in doubted} == {"unlikely"}
    assert [photo["score"] for photo in doubted] == sorted(photo["score"] for photo in doubted)
    assert doubted[0]["labels"]["category"] in {"bean", "tomato"}
    assert set(doubted[0]["prediction"]["targets"]) == {"category", "health", "disease"}
    assert len(queue(site, judge, limit=3)["photos"]) == 3


def test_a_correction_is_a_version_with_who_and_why_and_the_photo_does_not_come_again(site, judge, leaves):
    photo = queue(site, judge)["photos"][-1]
    answer = decide(site, judge, photo["image_id"], labels={"disease": "blight"}, version=2, why="It wilts.")
    assert (answer.status_code, answer.json()) == (200, {"dataset": "leaves", "version": 3})
    row = row_of(leaves, photo["image_id"])
    assert (row["disease"], row["health"], row["meta_reviewer"]) == ("blight", "diseased", "judge")
    assert row["meta_reviewed"].endswith("Z")
    commit = versions.load(leaves).commit
    assert commit.operation == "review"
    assert commit.parameters == {"reviewer": "judge", "image_id": photo["image_id"], "why": "It wilts."}
    assert photo["name"] not in {each["name"] for each in queue(site, judge)["photos"]}
    again = decide(site, judge, photo["image_id"], labels={"disease": "blight"})
    assert again.json()["version"] == 3


def test_accepting_takes_the_prediction_for_what_is_missing(site, judge, leaves):
    photo = queue(site, judge)["photos"][0]
    assert photo["labels"] == {}
    assert decide(site, judge, photo["image_id"], accept=True).status_code == 422
    answer = decide(site, judge, photo["image_id"], accept=True, model="leaf@1")
    assert answer.status_code == 200, answer.text
    row = row_of(leaves, photo["image_id"])
    predicted = {name: each["label"] for name, each in photo["prediction"]["targets"].items()}
    assert {name: row[name] for name in ("category", "disease")} == {
        name: predicted[name] for name in ("category", "disease")
    }
    known = queue(site, judge)["photos"][-1]
    before = row_of(leaves, known["image_id"])
    assert decide(site, judge, known["image_id"], accept=True).json()["version"] == 4
    after = row_of(leaves, known["image_id"])
    assert after["meta_reviewer"] == "judge"
    assert {name: after[name] for name in ("category", "disease")} == {
        name: before[name] for name in ("category", "disease")
    }


def test_a_photo_that_somebody_else_has_changed_is_a_conflict(site, judge):
    photos = queue(site, judge)["photos"]
    other = sign_in(site, "other", "reviewer", "category", "disease")
    assert decide(site, other, photos[0]["image_id"], labels={"category": "bean"}, version=2).status_code == 200
    late = decide(site, judge, photos[0]["image_id"], labels={"category": "tomato"}, version=2)
    assert late.status_code == 409
    assert "changed" in late.json()["title"]


def test_two_reviewers_at_once_lose_nothing(site, judge, leaves):
    ids = [photo["image_id"] for photo in queue(site, judge)["photos"]]
    answers = []
    threads = [
        threading.Thread(
            target=lambda each=each: answers.append(decide(site, judge, each, labels={"category": "bean"}))
        )
        for each in ids
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert versions.load(leaves).rows["category"].to_list() == ["bean"] * 6
    assert versions.load(leaves).rows["meta_reviewer"].to_list() == ["judge"] * 6


def test_boxes_are_moved_added_and_deleted_and_hidden_labels_stay(site, leaves):
    image_id = versions.load(leaves).rows["image_id"][0]
    name = versions.load(leaves).rows["name"][0]
    drawn = [Box(1, 2, 10, 10, {"category": "bean", "disease": "rust"}), Box(30, 20, 5, 5, {"category": "bean"})]
    relabel(leaves, ImportListing((Item(name, "", boxes=drawn),), (), "", {}))
    narrow = sign_in(site, "narrow", "reviewer", "category")
    seen = next(each for each in queue(site, narrow)["photos"] if each["image_id"] == image_id)
    assert seen["boxes"] == [
        {"index": 0, "x": 1, "y": 2, "w": 10, "h": 10, "labels": {"category": "bean"}},
        {"index": 1, "x": 30, "y": 20, "w": 5, "h": 5, "labels": {"category": "bean"}},
    ]
    moved = {"index": 0, "x": -5, "y": 3, "w": 10, "h": 1000, "labels": {"category": "tomato"}}
    added = {"x": 60, "y": 40, "w": 10, "h": 10, "labels": {"category": "bean"}}
    answer = decide(site, narrow, image_id, boxes=[moved, added], version=3)
    assert answer.status_code == 200, answer.text
    row = row_of(leaves, image_id)
    assert boxes.from_rows(row["boxes"]) == (
        Box(0, 3, 5, 57, {"category": "tomato", "disease": "rust"}), Box(60, 40, 10, 10, {"category": "bean"}),
    )  # fmt: skip
    assert decide(site, narrow, image_id, boxes=[]).status_code == 200
    assert row_of(leaves, image_id)["boxes"] == []


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"labels": {"category": "bear"}},
        {"labels": {"colour": "green"}},
        {"boxes": [{"x": 1, "y": 1, "w": 0, "h": 5}]},
        {"boxes": [{"x": 500, "y": 1, "w": 5, "h": 5}]},
        {"boxes": [{"x": 1, "y": 1, "w": 5, "h": 5, "index": 0}]},
        {"boxes": [{"x": 1, "y": 1, "w": 5, "h": 5, "index": 7}], "version": 2},
        {"boxes": [{"x": 1, "y": 1, "w": 5, "h": 5, "labels": {"category": "bear"}}]},
        {"boxes": [{"x": 1, "y": 1, "w": 5, "h": 5, "extra": 1}]},
        {"labels": {"category": "bean"}, "extra": 1},
        {"image_id": "x"},
    ],
)
def test_what_cannot_be_decided_changes_nothing(site, judge, leaves, decision):
    image_id = versions.load(leaves).rows["image_id"][0]
    answer = site.post("/v1/review", json={"dataset": "leaves", "image_id": image_id, **decision}, headers=judge)
    assert answer.status_code == 422, answer.text
    assert versions.numbers(leaves) == [1, 2]


def test_unknown_photos_and_datasets_are_a_404(site, judge):
    assert decide(site, judge, "0" * 64, labels={"category": "bean"}).status_code == 404
    assert site.get("/v1/review?dataset=other", headers=judge).status_code == 404
    assert site.get("/v1/review?model=other", headers=judge).status_code == 404


def test_a_reviewer_sees_the_targets_of_their_roles_only(site):
    narrow = sign_in(site, "narrow", "reviewer", "category")
    queue(site, narrow)
    answer = site.get("/v1/review", headers=narrow)
    for hidden in ("health", "disease", "rust", "blight"):
        assert hidden not in answer.text


def test_a_photo_that_lacks_a_label_comes_again_to_who_may_give_it(site, judge):
    narrow = sign_in(site, "narrow", "reviewer", "category")
    photo = queue(site, narrow)["photos"][0]
    decide(site, narrow, photo["image_id"], labels={"category": "bean"})
    assert photo["image_id"] not in {each["image_id"] for each in queue(site, narrow)["photos"]}
    again = next(each for each in queue(site, judge)["photos"] if each["image_id"] == photo["image_id"])
    assert again["labels"] == {"category": "bean"}
    decide(site, judge, photo["image_id"], accept=True)  # the disease cannot be told
    assert photo["image_id"] not in {each["image_id"] for each in queue(site, judge)["photos"]}


def test_without_a_model_photos_without_labels_still_come(start, leaves, tmp_path):
    with start(registry=str(tmp_path / "empty"), dataset=(leaves,)) as site:
        headers = sign_in(site, "judge", "admin")
        answer = queue(site, headers)
        assert answer["model"] is None
        assert [photo["name"] for photo in answer["photos"]] == ["u5.jpg", "u6.jpg"]
        assert {photo["why"] for photo in answer["photos"]} == {"unlabelled"}


def test_waiting_contributions_come_with_the_queue(site, judge, photo):
    sender = sign_in(site, "lab", "contributor")
    files = [("files", ("x.jpg", photo(seed=10), "image/jpeg"))]
    site.post("/v1/datasets/leaves/photos", files=files, headers=sender)
    assert [each["file"] for each in queue(site, judge)["contributions"]] == ["x.jpg"]


def test_a_storage_that_goes_away_is_told_once_and_comes_back(site, judge, monkeypatch):
    predict = predictions.predict

    def away(*_):
        raise StorageError("The bucket is away", "it does not answer", "Try again.")

    monkeypatch.setattr(predictions, "predict", away)
    statuses = set()
    for _ in range(100):
        statuses.add(site.get("/v1/review", headers=judge).status_code)
        if 503 in statuses:
            break
        time.sleep(0.01)
    assert 503 in statuses
    monkeypatch.setattr(predictions, "predict", predict)
    for _ in range(100):
        if site.get("/v1/review", headers=judge).status_code == 200:
            break
        time.sleep(0.01)
    assert queue(site, judge)["done"] == 6


def test_boxes_of_a_detector_are_accepted_as_they_were_shown(start, leaves, tmp_path):
    models = str(tmp_path / "models")
    publishing.add(write_detector(str(tmp_path / "fruit")), f"{models}/fruit")
    operations.promote(f"{models}/fruit", 1, operations.GUARDED, why="the first", force=True)
    with start(registry=models, dataset=(leaves,)) as site:
        headers = sign_in(site, "judge", "reviewer", "fruit")
        photo = queue(site, headers)["photos"][0]
        assert photo["boxes"] is None
        shown = photo["predicted_boxes"]
        assert len(shown) == 2
        assert {tuple(box["labels"]) for box in shown} == {("fruit",)}
        answer = decide(site, headers, photo["image_id"], accept=True, model="fruit@1", new_class=True)
        assert answer.status_code == 200, answer.text
        drawn = boxes.from_rows(row_of(leaves, photo["image_id"])["boxes"])
        assert [(box.x, box.y, box.w, box.h, box.labels) for box in drawn] == [
            (box["x"], box["y"], box["w"], box["h"], box["labels"]) for box in shown
        ]
        assert photo["image_id"] not in {each["image_id"] for each in queue(site, headers)["photos"]}
