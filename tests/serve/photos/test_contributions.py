"""Photos that callers contribute: checked, kept until a reviewer decides, and then in one version of the dataset."""

import json

import polars as pl
import pytest
from tests.serve.conftest import sign_in

from plantml import storage
from plantml.data import boxes, versions
from plantml.data.boxes import Box
from plantml.serve.users.caller import COMMAND_LINE


@pytest.fixture
def lab(site):
    """Headers of a laboratory that may see all targets, of another one, and of a reviewer."""
    targets = ("category", "health", "disease")
    return (
        sign_in(site, "lab", "contributor", *targets),
        sign_in(site, "other", "contributor", "category"),
        sign_in(site, "judge", "reviewer", *targets),
    )


def send(site, headers, *photos, labels=None, **fields):
    files = [("files", (name, data, "image/jpeg")) for name, data in photos]
    data = {"labels": json.dumps(labels or {}), **fields}
    return site.post("/v1/datasets/leaves/photos", files=files, data=data, headers=headers)


def test_a_reviewer_accepts_no_labels_that_they_cannot_see(site, lab, leaves, photo):
    sender, _, judge = lab
    blind = sign_in(site, "blind", "reviewer", "contributor", "category")
    labels = {"category": "bean", "disease": "rust"}
    sent = send(site, sender, ("x.jpg", photo(seed=10)), labels=labels).json()["photos"][0]["id"]
    own = send(site, blind, ("y.jpg", photo(seed=11)), labels={"category": "bean"}).json()["photos"][0]["id"]
    refused = site.post("/v1/contributions/accept", json={"ids": [own, sent]}, headers=blind)
    assert refused.status_code == 403
    assert "rust" not in refused.text
    assert versions.numbers(leaves) == [1, 2]
    assert site.post("/v1/contributions/accept", json={"ids": [own]}, headers=blind).status_code == 200
    assert site.post("/v1/contributions/accept", json={"ids": [sent]}, headers=judge).status_code == 200


def test_a_contribution_waits_and_becomes_one_version_with_who_sent_what(site, lab, leaves, photo, tmp_path):
    sender, other, judge = lab
    answer = send(site, sender, ("x.jpg", photo(seed=10)), labels={"category": "bean", "disease": "rust"})
    assert answer.status_code == 202, answer.text
    second = send(site, other, ("x.jpg", photo(seed=11)), ("y.jpg", photo(seed=12)), labels={"category": "tomato"})
    ids = [each["id"] for sent in (answer, second) for each in sent.json()["photos"]]
    assert len(set(ids)) == 3
    assert versions.numbers(leaves) == [1, 2]
    waiting = site.get("/v1/contributions?state=waiting", headers=judge).json()
    assert {each["id"] for each in waiting} == set(ids)
    accepted = site.post("/v1/contributions/accept", json={"ids": ids}, headers=judge)
    assert accepted.status_code == 200, accepted.text
    assert accepted.json() == [{"dataset": "leaves", "version": 3, "ids": ids}]
    version = versions.load(leaves)
    assert version.number == 3
    assert version.commit.operation == "contributions"
    assert version.commit.parameters == {"reviewer": "judge", "photos": 3, "contributors": ["lab", "other"]}
    new = version.usable().filter(pl.col("source").str.starts_with("contributions/")).sort("source", "category")
    assert new["source"].to_list() == ["contributions/lab", *["contributions/other"] * 2]
    assert new["meta_contributor"].to_list() == ["lab", "other", "other"]
    assert new["meta_reviewer"].to_list() == ["judge"] * 3
    assert new["meta_contributed"].str.ends_with("Z").all()
    assert new.select("category", "health", "disease").rows() == [
        ("bean", "diseased", "rust"), ("tomato", None, None), ("tomato", None, None),
    ]  # fmt: skip
    assert new["name"].n_unique() == 3
    assert site.get(f"/v1/datasets/leaves/photos/{new['image_id'][0]}", headers=judge).content == photo(seed=10)
    again = site.post("/v1/contributions/accept", json={"ids": ids}, headers=judge)
    assert again.json() == accepted.json()
    assert versions.numbers(leaves) == [1, 2, 3]
    assert list((tmp_path / "state").rglob("*.jpg")) == []  # the dataset has them
    assert site.get(f"/v1/contributions/{ids[0]}/photo", headers=sender).content == photo(seed=10)


def test_what_is_sent_again_is_there_once(site, lab, photo):
    sender, _, judge = lab
    first = send(site, sender, ("x.jpg", photo(seed=10)), labels={"category": "bean"}).json()
    assert (
        send(site, sender, ("renamed.jpg", photo(seed=10)), labels={"category": "bean"}).json()["photos"][0]["id"]
        == first["photos"][0]["id"]
    )
    assert len(site.get("/v1/contributions", headers=judge).json()) == 1
    site.post("/v1/contributions/accept", json={"ids": [first["photos"][0]["id"]]}, headers=judge)
    later = send(site, sender, ("x.jpg", photo(seed=10)), labels={"category": "bean"}).json()["photos"][0]
    assert (later["state"], later["id"]) == ("accepted", first["photos"][0]["id"])


def test_other_labels_of_the_same_sender_replace_those_that_wait(site, lab, photo):
    sender, _, judge = lab
    for category in ("bean", "tomato"):
        send(site, sender, ("x.jpg", photo(seed=10)), labels={"category": category})
    both = site.get("/v1/contributions", headers=judge).json()
    assert [(each["state"], each["labels"]["category"]) for each in both] == [
        ("waiting", "tomato"), ("replaced", "bean"),
    ]  # fmt: skip
    refused = site.post("/v1/contributions/accept", json={"ids": [both[1]["id"]]}, headers=judge)
    assert refused.status_code == 409
    assert "replaced" in refused.json()["detail"]


def test_copies_and_contradictions_are_flagged(site, lab, leaves, photo):
    sender, other, judge = lab
    known = photo(80, 60, seed=2)  # a bean with rust
    same = send(site, sender, ("b.jpg", known), labels={"disease": "rust"}).json()["photos"][0]
    assert (same["state"], same["id"]) == ("duplicate", None)
    assert same["why"] == "the dataset has the same photo"
    against = send(site, sender, ("b.jpg", known), labels={"disease": "blight"}).json()["photos"][0]
    assert [flag["code"] for flag in against["flags"]] == ["exact-duplicate", "conflict"]
    near = send(site, other, ("n.jpg", photo(80, 60, seed=4, quality=60)), labels={"category": "bean"}).json()[
        "photos"
    ][0]
    assert [flag["code"] for flag in near["flags"]] == ["near-duplicate"]
    site.post("/v1/contributions/accept", json={"ids": [against["id"]]}, headers=judge)
    rows = versions.load(leaves).rows.filter(pl.col("image_id") == against["image_id"])
    assert rows.select("name", "disease", "health").rows() == [("bean_rust/b.jpg", "blight", "diseased")]


def test_what_others_say_of_the_same_photo_is_flagged(site, lab, photo):
    send(site, lab[0], ("x.jpg", photo(seed=10)), labels={"category": "bean", "disease": "rust"})
    again = send(site, lab[1], ("y.jpg", photo(seed=10)), labels={"category": "tomato"}).json()["photos"][0]
    assert [flag["code"] for flag in again["flags"]] == ["exact-duplicate", "conflict"]
    assert "rust" not in str(again)


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ({"category": "beans"}, "unknown-class"),
        ({"colour": "green"}, "unknown-target"),
        ({"category": 7}, "bad-label"),
        ({"category": ["bean"]}, "bad-label"),
        ({"category": "a\nb"}, "bad-label"),
        ({"image_id": "x"}, "unknown-target"),
    ],
)
def test_labels_that_the_dataset_cannot_have_are_refused(site, lab, photo, labels, code):
    answer = send(site, lab[0], ("x.jpg", photo(seed=10)), labels=labels)
    assert answer.status_code == 422
    assert code in answer.json()["detail"]
    assert site.get("/v1/contributions", headers=lab[2]).json() == []


def test_a_new_class_needs_to_be_said(site, lab, leaves, photo):
    sender, _, judge = lab
    labels = {"category": "cress"}
    assert "new_class=true" in send(site, sender, ("x.jpg", photo(seed=10)), labels=labels).json()["detail"]
    sent = send(site, sender, ("x.jpg", photo(seed=10)), labels=labels, new_class="true").json()["photos"][0]
    assert [flag["code"] for flag in sent["flags"]] == ["new-class"]
    site.post("/v1/contributions/accept", json={"ids": [sent["id"]]}, headers=judge)
    assert versions.load(leaves).target("category").classes == ("bean", "tomato", "cress")


def test_a_target_that_the_sender_may_not_see_cannot_be_labelled_or_learnt(site, lab, photo):
    answer = send(site, lab[1], ("x.jpg", photo(80, 60, seed=2)), labels={"disease": "rust"})
    assert answer.status_code == 422
    assert "blight" not in answer.text
    assert "disease" not in answer.json()["detail"].partition("it has")[2]


def test_one_bad_file_leaves_the_others(site, lab, photo):
    labels = [{"category": "bean"}, {"category": "tomato"}]
    sent = send(site, lab[0], ("x.jpg", photo(seed=10)), ("y.jpg", b"<svg/>"), labels=labels).json()["photos"]
    assert [(each["file"], each["state"], each["code"]) for each in sent] == [
        ("x.jpg", "waiting", ""), ("y.jpg", "refused", "unsupported"),
    ]  # fmt: skip


@pytest.mark.parametrize("labels", ["[]", "7", "[{}, {}]", "{", '[["a"]]'])
def test_malformed_labels_are_a_422(site, lab, photo, labels):
    files = [("files", ("x.jpg", photo(seed=10), "image/jpeg"))]
    answer = site.post("/v1/datasets/leaves/photos", files=files, data={"labels": labels}, headers=lab[0])
    assert answer.status_code == 422
    assert "labels" in answer.json()["title"] + answer.json()["detail"]


def test_a_rejection_has_a_reason_and_stays(site, lab, leaves, photo):
    sender, other, judge = lab
    id_ = send(site, sender, ("x.jpg", photo(seed=10))).json()["photos"][0]["id"]
    body = {"ids": [id_], "why": "Not a leaf."}
    for _ in range(2):
        answer = site.post("/v1/contributions/reject", json=body, headers=judge)
        assert answer.status_code == 200, answer.text
    (mine,) = site.get("/v1/contributions", headers=sender).json()
    assert (mine["state"], mine["why"], mine["reviewer"]) == ("rejected", "Not a leaf.", "judge")
    assert site.get("/v1/contributions", headers=other).json() == []
    assert site.post("/v1/contributions/accept", json={"ids": [id_]}, headers=judge).status_code == 409
    assert send(site, sender, ("x.jpg", photo(seed=10))).json()["photos"][0]["state"] == "rejected"
    assert versions.numbers(leaves) == [1, 2]
    unknown = site.post("/v1/contributions/accept", json={"ids": ["nothing"]}, headers=judge)
    assert unknown.status_code == 404


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data + b"x"])
def test_a_damaged_contribution_stops_nothing_else(site, lab, leaves, photo, tmp_path, damage):
    sender, _, judge = lab
    sent = send(site, sender, ("x.jpg", photo(seed=10)), ("y.jpg", photo(seed=11))).json()["photos"]
    good, bad = (each["id"] for each in sent)
    (file,) = (tmp_path / "state").rglob(f"{sent[1]['image_id']}.jpg")
    file.write_bytes(damage(file.read_bytes()))
    both = site.post("/v1/contributions/accept", json={"ids": [good, bad]}, headers=judge)
    assert both.status_code == 422
    assert versions.numbers(leaves) == [1, 2]
    assert site.get(f"/v1/contributions/{bad}/photo", headers=judge).status_code in {422, 503}
    rejected = site.post("/v1/contributions/reject", json={"ids": [bad], "why": "Damaged."}, headers=judge)
    assert rejected.status_code == 200, rejected.text
    assert site.post("/v1/contributions/accept", json={"ids": [good]}, headers=judge).json()[0]["version"] == 3


def test_who_may_see_the_photo_of_a_contribution(site, lab, photo):
    sender, other, judge = lab
    data = photo(400, 300, seed=10)
    id_ = send(site, sender, ("x.jpg", data)).json()["photos"][0]["id"]
    url = f"/v1/contributions/{id_}/photo"
    assert site.get(url, headers=sender).content == data
    assert site.get(f"{url}?size=64", headers=judge).content[:2] == b"\xff\xd8"
    assert site.get(url, headers=other).status_code == 403


def test_labels_of_other_targets_stay_hidden_from_a_reviewer(site, lab, photo):
    send(site, lab[0], ("x.jpg", photo(80, 60, seed=2)), labels={"category": "bean", "disease": "blight"})
    narrow = sign_in(site, "narrow", "reviewer", "category")
    answer = site.get("/v1/contributions", headers=narrow)
    assert answer.json()[0]["labels"] == {"category": "bean"}
    assert "blight" not in answer.text
    assert "rust" not in answer.text


def test_a_server_that_dies_between_the_version_and_its_note_goes_on(site, lab, leaves, photo, monkeypatch):
    sender, _, judge = lab
    id_ = send(site, sender, ("x.jpg", photo(seed=10)), labels={"category": "bean"}).json()["photos"][0]["id"]
    contributions = site.service.contributions
    append = contributions._append

    def die(dataset, decide):
        event = append(dataset, decide)
        if event is not None and event.content["act"] == "claim":
            monkeypatch.setattr(contributions, "_append", dead)
        return event

    def dead(*_):
        raise SystemExit

    monkeypatch.setattr(contributions, "_append", die)
    with pytest.raises(SystemExit):
        contributions.accept([id_], COMMAND_LINE)
    monkeypatch.undo()
    assert versions.numbers(leaves) == [1, 2, 3]
    assert site.get("/v1/contributions", headers=judge).json()[0]["state"] == "accepting"
    assert site.post("/v1/contributions/reject", json={"ids": [id_], "why": "late"}, headers=judge).status_code == 409
    monkeypatch.setattr(storage, "now_utc", lambda: "2100-01-01T00:00:00Z")
    answer = site.post("/v1/contributions/accept", json={"ids": [id_]}, headers=judge)
    assert answer.json()[0]["version"] == 3
    assert versions.numbers(leaves) == [1, 2, 3]


BOX = {"x": 1, "y": 2, "w": 10, "h": 10, "labels": {"disease": "rust", "health": "diseased"}}


def test_boxes_come_along_and_replace_those_of_the_dataset(site, lab, leaves, photo):
    sender, _, judge = lab
    outside = {"x": 60, "y": 40, "w": 1000, "h": 1000, "labels": {}}
    data = [("x.jpg", photo(seed=10)), ("y.jpg", photo(seed=11)), ("z.jpg", photo(seed=12))]
    answer = send(site, sender, *data, labels={"category": "bean"}, boxes=json.dumps([[BOX, outside], [], None]))
    assert answer.status_code == 202, answer.text
    ids = [each["id"] for each in answer.json()["photos"]]
    first, second, third = (
        next(each for each in site.get("/v1/contributions", headers=judge).json() if each["id"] == sent) for sent in ids
    )
    clipped = {**outside, "w": first["width"] - 60, "h": first["height"] - 40}
    assert (first["boxes"], second["boxes"], third["boxes"]) == ([BOX, clipped], [], None)
    assert (
        send(site, sender, *data, labels={"category": "bean"}, boxes=json.dumps([[BOX, outside], [], None])).json()[
            "photos"
        ]
        == answer.json()["photos"]
    )  # the same again
    # Labels of boxes are labels: who may not see them cannot accept them.
    blind = sign_in(site, "blind", "reviewer", "category")
    (seen,) = (each for each in site.get("/v1/contributions", headers=blind).json() if each["id"] == ids[0])
    assert (seen["boxes"][0]["labels"], seen["file"]) == ({}, "")
    assert site.post("/v1/contributions/accept", json={"ids": ids[:1]}, headers=blind).status_code == 403
    assert site.post("/v1/contributions/accept", json={"ids": ids}, headers=judge).status_code == 200
    rows = {row["meta_contributed"] and row["image_id"]: row for row in versions.load(leaves).rows.to_dicts()}
    drawn = [boxes.from_rows(rows[each["image_id"]]["boxes"]) for each in answer.json()["photos"]]
    assert drawn == [(Box(**BOX), Box(**clipped)), (), None]
    assert rows[answer.json()["photos"][1]["image_id"]]["meta_reviewer"] == "judge"
    # The dataset has them, and then other ones of the same photo.
    again = send(site, sender, data[0], labels={"category": "bean"}, boxes=json.dumps([[BOX, outside]])).json()
    assert again["photos"][0]["state"] == "accepted"
    moved = send(site, sender, data[0], boxes=json.dumps([[{**BOX, "x": 5}]])).json()["photos"][0]
    assert moved["state"] == "waiting"
    assert site.post("/v1/contributions/accept", json={"ids": [moved["id"]]}, headers=judge).status_code == 200
    row = versions.load(leaves).rows.filter(pl.col("image_id") == moved["image_id"]).to_dicts()[0]
    assert boxes.from_rows(row["boxes"]) == (Box(**{**BOX, "x": 5}),)
    assert row["category"] == "bean"


@pytest.mark.parametrize(
    "text",
    [
        "x", "{}", "[]", "[[], []]", "[[1]]", '[[{"x": 1}]]', '[[{"x": 1, "y": 1, "w": 0, "h": 5}]]',
        '[[{"x": 1, "y": 1, "w": NaN, "h": 5}]]', '[[{"x": 9999, "y": 1, "w": 5, "h": 5}]]',
        '[[{"x": 1, "y": 1, "w": 5, "h": 5, "labels": {"disease": "rusty"}}]]',
        '[[{"x": 1, "y": 1, "w": 5, "h": 5, "labels": {"colour": "red"}}]]',
    ],
)  # fmt: skip
def test_boxes_that_make_no_sense_are_refused(site, lab, photo, text):
    answer = send(site, lab[0], ("x.jpg", photo(seed=10)), boxes=text)
    assert answer.status_code == 422, answer.text
    assert answer.json()["hint"]
