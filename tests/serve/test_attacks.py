"""Requests of somebody who means harm, and what they must not get: each was possible once."""

import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.routing import APIRoute
from tests.contracts import make_contract
from tests.serve.conftest import PASSWORD, listening, sign_in

from plantml import imaging
from plantml.data import versions
from plantml.errors import GateError
from plantml.model.bundle import Bundle
from plantml.model.contract import Withheld
from plantml.model.pipeline import Prediction
from plantml.serve import trainings
from plantml.serve.app import ROUTERS
from plantml.serve.photos import contributions, datasets, review, uploads
from plantml.serve.photos.arrival_checks import LabelError, checked_labels
from plantml.serve.routes import trainings as routes
from plantml.serve.users import accounts, visibility
from plantml.serve.users.caller import Caller
from plantml.serve.users.visibility import visible_record
from plantml.serve.web.json_bodies import JsonRoute
from plantml.targets import Target
from plantml.train.config import TrainConfig

JSON = {"Content-Type": "application/json"}
HUGE = "9" * 30


def page_of(site, name, *roles):
    """Sign a new user in to the page; returns what posts a form there."""
    site.service.accounts.add(name, PASSWORD, roles)
    site.post("/sign-in", data={"name": name, "password": PASSWORD})
    token = re.search(r'name="csrf_token" value="([0-9a-f]+)"', site.get("/account").text).group(1)
    return lambda path, **form: site.post(path, data={"csrf_token": token, **form}, follow_redirects=False)


def test_a_client_that_leaves_in_the_middle_of_a_photo_is_no_bug_of_the_server(client, photo, caplog):
    key = sign_in(client, "ada", "category")["Authorization"]
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nContent-Type: image/jpeg\r\n"
    with listening(client.app) as url, caplog.at_level("INFO", "plantml.serve"):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as there:
            there.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + photo())
            time.sleep(0.2)
        until = time.monotonic() + 10
        while not (ends := [each.fields for each in caplog.records if each.getMessage() == "request"]):
            assert time.monotonic() < until
            time.sleep(0.01)
    assert [each["status"] for each in ends if each["path"] == "/v1/predict"] == [499]
    assert "A request failed" not in caplog.text


def test_an_api_key_makes_no_wider_key_on_the_page(client):
    ada = sign_in(client, "ada", "category", "disease")
    key = client.post("/v1/users/ada/keys", json={"roles": ["category"]}, headers=ada).json()
    narrow = {"Authorization": f"Bearer {key['secret']}"}
    for path, form in (
        ("/account/keys", {"label": "wider"}),
        (f"/account/keys/{key['id']}/revoke", {}),
        ("/account/password", {"old": PASSWORD, "new": PASSWORD[::-1]}),
    ):
        assert client.post(path, data=form, headers=narrow).status_code == 403
    assert client.get("/account", headers=narrow).status_code == 403
    assert len(client.service.accounts.keys("ada")) == 1


@pytest.mark.parametrize("at", ["../other", "x/../../other", "1/../../other", ""])
def test_a_version_leads_to_no_other_folder(site, leaves, at):
    shutil.copytree(leaves, f"{leaves}/../other")
    boss, ref = sign_in(site, "boss", "admin"), f"leaves@{at}"
    form = page_of(site, "ada", "admin")
    image_id = versions.load(leaves).rows["image_id"][0]
    answers = [
        site.post("/v1/trainings", json={"dataset": ref, "name": "leaf"}, headers=boss),
        site.get("/review/next", params={"dataset": ref}),
        site.get("/review/photo", params={"dataset": ref, "image_id": image_id}),
        form("/review", dataset=ref, image_id=image_id, seen="1"),
    ]
    assert {answer.status_code for answer in answers} <= {404, 422}
    assert not any(image_id in answer.text for answer in answers[1:])


def test_a_condition_tells_nothing_of_hidden_labels(site):
    trainer, boss = sign_in(site, "tom", "trainer", "category"), sign_in(site, "boss", "admin")
    wanted = {"dataset": "leaves", "name": "leaf", "config": {"where": 'disease == "rust" and name == "b.jpg"'}}
    assert site.post("/v1/trainings", json=wanted, headers=trainer).status_code == 403
    assert site.post("/v1/trainings", json=wanted, headers=boss).status_code == 202
    for where in ("-" * 100_000 + "1", "\0"):
        wanted["config"] = {"where": where}
        assert site.post("/v1/trainings", json=wanted, headers=boss).status_code in {400, 422}


def test_a_refused_promotion_names_no_gate_of_a_hidden_target(site, monkeypatch):
    def refuse(*_, **__):
        raise GateError("leaf@2 is not promoted", "1 of 3 gates failed, such as disease.recall[rust] >= 0.9", "Stop.")

    monkeypatch.setattr("plantml.serve.model_history.registries.promote", refuse)
    narrow, wide = (
        sign_in(site, "pia", "promoter", "category"),
        sign_in(site, "pat", "promoter", "category", "health", "disease"),
    )
    answers = [
        site.post("/v1/models/leaf/promote", json={"version": 2, "alias": "beta"}, headers=headers)
        for headers in (narrow, wide)
    ]
    assert [answer.status_code for answer in answers] == [409, 409]
    assert ["rust" in answer.text for answer in answers] == [False, True]


@pytest.mark.parametrize("act", ["admin", "contributor", "trainer", "reviewer", "promoter"])
def test_an_act_is_no_role_for_a_target_of_that_name(act):
    caller, boss = Caller(1, "ada", frozenset({act}), "token"), Caller(2, "boss", frozenset({"admin"}), "token")
    assert caller.may_see(act) == (act == "admin")
    assert boss.may_see(act)
    for each in (caller, boss):
        with pytest.raises(LabelError, match="unknown-target"):
            checked_labels({act: "x"}, [], each, new_class=True)


@pytest.mark.parametrize("name", ["image_id", "split", "meta_camera", "status"])
def test_a_new_target_takes_no_column_of_the_dataset(name):
    boss = Caller(2, "boss", frozenset({"admin"}), "token")
    with pytest.raises(LabelError, match="unknown-target"):
        checked_labels({name: "x"}, [], boss, new_class=True)


@pytest.mark.parametrize("label", [10**400, float("nan"), float("inf"), True, "1"])
def test_what_is_no_number_is_no_label(label):
    boss = Caller(2, "boss", frozenset({"admin"}), "token")
    with pytest.raises(LabelError, match="bad-label"):
        checked_labels({"severity": label}, [Target("severity", "value")], boss, new_class=False)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/contributions/accept", r'{"ids": ["\ud800"]}'),
        ("/v1/users", r'{"name": "eve", "roles": [], "password": "a password \ud800"}'),
        ("/v1/trainings", r'{"dataset": "leaves", "name": "leaf", "config": {"where": "\ud800"}}'),
        ("/v1/trainings", '{"dataset": "leaves", "name": "leaf", "config": {"a": ' + "[" * 100_000),
        ("/v1/models/leaf/promote", r'{"version": 2, "alias": "beta", "why": "\ud800"}'),
        ("/v1/review", '{"dataset": "leaves", "image_id": "' + "0" * 64 + '", "version": 1' + "0" * 5000 + "}"),
    ],
)
def test_json_that_no_answer_could_hold_is_refused(site, path, body):
    answer = site.post(path, content=body, headers={**sign_in(site, "boss", "admin"), **JSON})
    assert answer.status_code == 422
    assert answer.json()["title"] == "The request is malformed"


@pytest.mark.parametrize("charset", ["unicode_escape", "punycode", "undefined", '"utf-16"'])
def test_a_form_is_utf8(site, charset):
    body = b'--B\r\nContent-Disposition: form-data; name="files"; filename="\\ud800.jpg"\r\n\r\nx\r\n--B--\r\n'
    kind = {"Content-Type": f"multipart/form-data; boundary=B; charset={charset}"}
    headers = {**sign_in(site, "boss", "admin"), **kind}
    assert site.post("/v1/predict", content=body, headers=headers).status_code == 415
    headers["Content-Type"] = "multipart/form-data; boundary=B; charset=UTF-8"
    assert site.post("/v1/predict", content=body, headers=headers).status_code == 200


def test_forms_of_the_page_refuse_what_their_fields_could_not_send(site, leaves):
    form = page_of(site, "boss", "admin")
    for days in ("nan", "inf", "1e308", "abc", "-5", "99999"):
        assert form("/account/keys", label="x", days=days).status_code == 422
    assert form("/account/keys", label="a\0b", days="").status_code == 422
    assert form("/account/keys", label="x", days="").status_code == 200
    assert form(f"/account/keys/{HUGE}/revoke").status_code == 422
    assert form(f"/users/boss/keys/{HUGE}/revoke").status_code == 422
    for path in (f"/history?before={HUGE}", f"/audit?before={HUGE}", "/audit?user=%00"):
        assert site.get(path).status_code == 422
    image_id = versions.load(leaves).rows["image_id"][0]
    for seen in ("", "abc", "-1", HUGE):
        assert form("/review", dataset="leaves", image_id=image_id, seen=seen).status_code == 422
    box = '{"x": 1, "y": 1, "w": 5, "h": 5, "labels": {}, %s}'
    for wrong in ('"index": -1', '"index": "a"', '"w": NaN', '"x": 1e999', f'"x": 1{"0" * 400}', '"labels": 1'):
        assert (
            form("/review", dataset="leaves", image_id=image_id, seen="2", boxes=f"[{box % wrong}]").status_code == 422
        )
    assert form("/review", dataset="leaves", image_id=image_id, seen="2", boxes="[" * 100_000).status_code == 422
    right = '[{"x": 1, "y": 1, "w": 5, "h": 5, "labels": {"category": null}}]'
    assert form("/review", dataset="leaves", image_id=image_id, seen="2", boxes=right).status_code == 200


def test_a_redirect_of_htmx_holds_any_path(client):
    answer = client.get("/users/€%0d%0aX-Evil:1", headers={"HX-Request": "true"}, follow_redirects=False)
    assert answer.headers["hx-redirect"] == "/sign-in?next=/users/%E2%82%ACX-Evil%3A1"
    assert "x-evil" not in answer.headers


def test_who_may_not_see_a_label_finds_it_neither_in_the_id_nor_in_the_name(site, photo, monkeypatch):
    sender, reviewer = sign_in(site, "ada", "contributor", "category", "disease"), sign_in(site, "rae", "reviewer")
    files, labels = [("files", ("bean_rust.jpg", photo(80, 60, seed=9)))], '{"category": "bean", "disease": "rust"}'
    sent = site.post("/v1/datasets/leaves/photos", files=files, data={"labels": labels}, headers=sender).json()
    (seen,) = site.get("/v1/contributions", headers=reviewer).json()
    (own,) = site.get("/v1/contributions", headers=sender).json()
    assert (seen["file"], seen["labels"], own["file"]) == ("", {}, "bean_rust.jpg")
    page_of(site, "rob", "reviewer")
    assert "rust" not in site.get("/contributions").text
    monkeypatch.setattr(site.service.contributions, "_key", b"another")
    other = [("files", ("bean_rust.jpg", photo(80, 60, seed=9)))]
    again = site.post("/v1/datasets/leaves/photos", files=other, data={"labels": labels}, headers=sender).json()
    assert again["photos"][0]["id"] != sent["photos"][0]["id"]


def test_where_too_many_photos_wait_no_byte_is_stored(site, photo, monkeypatch):
    monkeypatch.setattr(contributions, "MAX_WAITING", 0)
    headers, stored = sign_in(site, "ada", "contributor", "category"), []
    monkeypatch.setattr(site.service.contributions, "_store", lambda *_: stored.append(1))
    files = [("files", ("a.jpg", photo(80, 60, seed=9)))]
    assert site.post("/v1/datasets/leaves/photos", files=files, headers=headers).status_code == 503
    assert not stored


def test_a_version_that_is_not_there_takes_the_place_of_no_open_model(start):
    with start(open_models=1) as client:
        headers = sign_in(client, "boss", "admin")
        opened = client.service.models.get()
        assert client.get("/v2/models/leaf/versions/999", headers=headers).status_code == 404
        assert client.service.models.opened() == [opened]


def test_metrics_have_no_method_that_a_client_made_up(client):
    client.request("EVIL", "/v1/me")
    assert "EVIL" not in client.get("/metrics").text


def test_a_header_length_of_thousands_of_digits_is_malformed(client):
    headers = {**sign_in(client, "boss", "admin"), "Inference-Header-Content-Length": "0" * 19 + "1" + "0" * 5000}
    assert client.post("/v2/models/leaf/infer", content=b"x", headers=headers).status_code == 400


def test_a_user_has_only_so_many_keys_and_a_name_that_no_other_looks_like(client, monkeypatch):
    monkeypatch.setattr(accounts, "_MOST_KEYS", 1)
    boss = sign_in(client, "boss", "admin")
    keys = [client.post("/v1/users/boss/keys", json={}, headers=boss) for _ in range(2)]
    assert [key.status_code for key in keys] == [201, 409]
    client.delete(f"/v1/users/boss/keys/{keys[0].json()['id']}", headers=boss)
    assert client.post("/v1/users/boss/keys", json={}, headers=boss).status_code == 201
    assert client.post("/v1/users", json={"name": "BOSS", "roles": []}, headers=boss).status_code == 409


def test_large_photos_are_decoded_one_at_a_time_whoever_asks(site, photo, monkeypatch):
    monkeypatch.setattr(uploads, "_LARGE", 100)
    largest, lock, open_ones = [], threading.Lock(), []
    decode = imaging.thumbnail

    def watched(data, side):
        with lock:
            open_ones.append(1)
            largest.append(len(open_ones))
        time.sleep(0.02)
        with lock:
            open_ones.pop()
        return decode(data, side)

    monkeypatch.setattr(imaging, "thumbnail", watched)
    data = photo(80, 60, seed=9)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: datasets.thumbnail(data, 16), range(4)))
    assert largest == [1, 1, 1, 1]


def test_a_role_that_was_lost_takes_names_of_similar_photos_from_the_history():
    photo = {"name": "bean_rust.jpg", "url": "", "labels": {"category": "bean", "disease": "rust"}}
    record = {"targets": {"category": {}}, "boxes": [], "decision": "accept", "similar": [photo]}
    caller = Caller(1, "ada", frozenset({"category"}), "token")
    assert "rust" not in str(visible_record(record, caller))


def test_a_target_that_a_box_is_without_does_not_tell_a_hidden_one_that_it_depends_on():
    plant, empty = (
        {"category": {"label": "bean"}, "viability": {"label": "viable"}},
        {"viability": {"label": "missing"}},
    )
    boxes = [{"targets": targets, "decision": "accept"} for targets in (plant, empty)]
    counts = {"boxes": 2, "category": {"bean": 1}, "viability": {"viable": 1, "missing": 1}}
    record = {"targets": {}, "boxes": boxes, "decision": "accept", "counts": counts}
    shown = visible_record(record, Caller(1, "ada", frozenset({"category"}), "token"))
    assert [box["targets"] for box in shown["boxes"]] == [{}, {}]
    assert shown["counts"] == {"boxes": 2}


@pytest.mark.parametrize(
    ("roles", "labels"),
    [
        ({"category", "viability"}, [{"category": "pea", "viability": "viable"}, {"viability": "missing"}]),
        ({"category"}, [{}, {}]),
    ],
)
def test_a_reviewer_accepts_no_species_of_an_empty_cell_nor_is_told_of_one(roles, labels):
    targets = (Target("category", "class", ("bean", "pea")), Target("viability", "class", ("viable", "missing")))
    detection = {"boxes": 4, "slope": 1, "offset": 0, "threshold": 0.5, "accept": 0.8}
    rule = Withheld(targets=("category",), where="viability", label="missing")
    contract = make_contract(*targets, detection=detection, withheld=(rule,))
    outputs = {
        "boxes": np.ones((2, 4)),
        "score": np.full((2, 1), 0.9),
        "target.category": np.array([[0.1, 0.9], [np.nan, np.nan]]),
        "target.viability": np.array([[0.9, 0.1], [0.2, 0.8]]),
    }
    model = SimpleNamespace(pipeline=SimpleNamespace(bundle=Bundle("", contract, "d" * 64, {})))
    prediction = Prediction(None, outputs, None)
    boxes = review._predicted_boxes(model, prediction, Caller(1, "ada", frozenset(roles), "token"))
    assert [box["labels"] for box in boxes] == labels


def test_a_caller_who_may_not_see_what_decides_gets_a_prediction_for_every_box():
    targets = (Target("category", "class", ("bean", "pea")), Target("viability", "class", ("viable", "missing")))
    rule = Withheld(targets=("category",), where="viability", label="missing")
    bundle = Bundle("", make_contract(*targets, withheld=(rule,)), "d" * 64, {})
    assert visibility._narrowed(bundle, {"category"}).contract.withheld is None
    assert visibility._narrowed(bundle, {"viability"}).contract.withheld is None


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("weights", "/etc/passwd"),
        ("weights", "http://169.254.169.254/"),
        ("weights", "hf-hub:someone/else"),
        ("unlabelled", "/etc"),
    ],
)
def test_a_training_opens_nothing_that_a_caller_names(site, setting, url):
    wanted = {"dataset": "leaves", "name": "leaf", "config": {setting: url}}
    assert site.post("/v1/trainings", json=wanted, headers=sign_in(site, "boss", "admin")).status_code == 422


def test_every_setting_with_free_text_is_one_that_was_thought_of():
    """A new setting may name a file or URL: either a worker decides it, or it is checked and goes here."""
    texts = {
        name for name, field in TrainConfig.model_fields.items() if "str" in re.findall(r"\w+", str(field.annotation))
    }
    assert texts - trainings._OF_THE_WORKER == {"where", "warm_start", "targets", "backbone", "covariates"}


def test_every_json_body_is_read_by_the_strict_route():
    """Those without parameters of FastAPI's read their bodies themselves."""
    lax = {
        route.path
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        and route.include_in_schema
        and route.body_field
        and not isinstance(route, JsonRoute)
    }
    assert not lax


def test_only_so_many_logs_are_followed_and_none_for_ever(site, monkeypatch):
    boss = sign_in(site, "boss", "admin")
    assert site.post("/v1/trainings", json={"dataset": "leaves", "name": "leaf"}, headers=boss).status_code == 202
    monkeypatch.setattr(routes, "_readers", threading.Semaphore(1))
    monkeypatch.setattr(routes, "_LONGEST", 0.0)
    for _ in range(2):  # a reader that ends makes room
        assert site.get("/v1/trainings/1/log", headers=boss).text == "retry: 2000\n\n"
    monkeypatch.setattr(routes, "_readers", threading.Semaphore(0))
    assert site.get("/v1/trainings/1/log", headers=boss).text == "retry: 30000\n\n"
