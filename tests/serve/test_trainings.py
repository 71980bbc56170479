"""Trainings over HTTP: asked for once, followed to the end, and shown by role."""

import json
import re

import pytest
from tests.serve.conftest import PASSWORD, sign_in

from plantml import storage
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.serve import trainings
from plantml.serve.routes import trainings as routes
from plantml.serve.work.jobs import write_line
from plantml.storage.segments import Segments


@pytest.fixture
def served(start, tmp_path, write_photos):
    """A client of a server with the dataset `leaves`, of the target `category`."""
    source = str(
        write_photos(tmp_path / "photos", [f"{name}/{n}.jpg" for name in ("bean", "tomato") for n in range(4)])
    )
    import_source(source, f"{tmp_path}/leaves", list_source(source, rule="category"))
    with start(dataset=(f"{tmp_path}/leaves",)) as client:
        yield client


BODY = {"dataset": "leaves", "name": "leaf", "preset": "quick", "budget": "20m", "config": {"epochs": 3}}


def test_a_training_waits_is_listed_and_is_cancelled(served) -> None:
    ada = sign_in(served, "ada", "trainer")
    answer = served.post("/v1/trainings", json=BODY, headers=ada)
    assert answer.status_code == 202, answer.text
    training = answer.json()
    assert (training["id"], training["status"], training["budget"], training["by"]) == (1, "waiting", 1200.0, "ada")
    assert served.post("/v1/trainings", json=BODY, headers=ada).json()["id"] == 1
    pinned = served.post("/v1/trainings", json={**BODY, "dataset": "leaves@1"}, headers=ada).json()
    assert (pinned["id"], pinned["dataset"]) == (2, "leaves@1")
    assert [each["id"] for each in served.get("/v1/trainings", headers=ada).json()] == [2, 1]
    for _ in range(2):
        assert served.post("/v1/trainings/1/cancel", headers=ada).json()["status"] == "cancelled"
    assert served.get("/v1/trainings/1", headers=ada).json()["status"] == "cancelled"
    assert served.get("/v1/trainings/3", headers=ada).status_code == 404
    assert served.get("/v1/trainings", headers=sign_in(served, "bob", "category")).status_code == 403


REFUSED = [
    ({"dataset": "roses"}, 404, "roses"),
    ({"dataset": "leaves@9"}, 422, "9"),
    ({"budget": "soon"}, 422, "90s, 20m"),
    ({"preset": "perfect"}, 422, "balanced"),
    ({"name": "../leaf"}, 422, "pattern"),
    ({"test_share": 0.9}, 422, "0.5"),
    ({"config": {"epocs": 3}}, 422, "Did you mean epochs?"),
    ({"config": {"epochs": 0}}, 422, "epochs (from config)"),
    ({"config": {"folds": 5}}, 422, "the worker decides it"),
    ({"config": {"budget": 5}}, 422, "a field of its own"),
    ({"config": {"backbone": "hf-hub:x/y"}}, 422, "timm"),
    ({"config": {"where": "nonsense =="}}, 400, "cannot be read"),
    ({"config": {"warm_start": "../../x@1"}}, 404, "NAME@ALIAS"),
    ({"config": {"warm_start": "leaf@9"}}, 422, "version 9"),
    ({"version": 9}, 422, "version 9"),
    ({"name": "rose", "version": 1}, 404, "rose"),
    ({"speed": 3}, 422, "speed"),
    ({"retrain": {"min_nwe": 3}}, 422, "Did you mean min_new?"),
    ({"retrain": {"feeds": [{"source": "file:///etc"}]}}, 422, "the server decides it"),
    ({"retrain": {"on_result": "touch /tmp/x"}}, 422, "the server decides it"),
    ({"retrain": {"gates": {"min": ["macro_f1"]}}}, 400, "macro_f1"),
    ({"retrain": {}, "version": 1}, 422, "takes no version"),
    ({"retrain": {}, "dataset": "leaves@1"}, 422, "takes no version"),
    ({"config": {"targets": ["a" * 20_000]}}, 413, "too large"),
    ({"retrain": {}, "config": {"warm_start": "leaf@1"}}, 400, "start: warm"),
]


def test_a_request_that_cannot_be_done_says_why(served) -> None:
    ada = sign_in(served, "ada", "trainer", "promoter", "category")
    for change, status, text in REFUSED:
        answer = served.post("/v1/trainings", json={**BODY, **change}, headers=ada)
        assert (answer.status_code, text in answer.text) == (status, True), (change, answer.text)
    assert not served.service.jobs.list()


def test_a_retraining_needs_the_role_promoter_as_it_promotes(served) -> None:
    body = {**BODY, "retrain": {"min_new": 5, "gates": {"min": ["category.f1[bean]=0.5"]}}}
    assert served.post("/v1/trainings", json=body, headers=sign_in(served, "eve", "trainer")).status_code == 403
    ada, bob = sign_in(served, "ada", "trainer", "promoter", "category"), sign_in(served, "bob", "trainer", "promoter")
    refused = served.post("/v1/trainings", json=body, headers=bob)
    assert (refused.status_code, "gates" in refused.text) == (403, True)  # whether they pass tells of a score
    training = served.post("/v1/trainings", json=body, headers=ada).json()
    assert (training["status"], training["retrain"]) == ("waiting", body["retrain"])
    result = {"model": "leaf", "version": 0, "digest": "", "scores": {}, "validation": "",
              "outcome": "nothing to do", "reasons": ["4 of bean are required"]}  # fmt: skip
    served.service.jobs.finish(1, result)
    shown = served.get("/v1/trainings/1", headers=ada).json()["result"]
    assert (shown["model"], shown["outcome"], shown["reasons"]) == (None, "nothing to do", result["reasons"])
    blind = served.get("/v1/trainings/1", headers=bob).json()
    assert (blind["result"]["reasons"], blind["retrain"]) == ([], {"min_new": 5})


def test_the_page_offers_a_retraining_to_who_may_promote(served) -> None:
    for name, roles in (("ada", ["trainer", "promoter"]), ("bob", ["trainer"])):
        served.service.accounts.add(name, PASSWORD, roles)
        served.post("/sign-in", data={"name": name, "password": PASSWORD})
        page = served.get("/trainings").text
        assert ('name="retrain"' in page) == ("promoter" in roles)
        form = {"csrf_token": re.search(r'name="csrf_token" value="([0-9a-f]+)"', page)[1], "retrain": "true"}
        answer = served.post("/trainings", data={**form, "dataset": "leaves", "name": "leaf"}, follow_redirects=False)
        assert answer.status_code == (303 if "promoter" in roles else 403)
    assert [job.request["retrain"] for job in served.service.jobs.list()] == [{}]
    result = {"model": "leaf", "version": 0, "digest": "", "scores": {}, "validation": "",
              "outcome": "nothing to do", "reasons": ["nothing is new"]}  # fmt: skip
    served.service.jobs.finish(1, result)
    assert "nothing is new" in served.get("/trainings/1").text


def test_too_many_are_refused(served, monkeypatch) -> None:
    monkeypatch.setattr(trainings, "MOST", 1)
    ada = sign_in(served, "ada", "trainer")
    served.post("/v1/trainings", json=BODY, headers=ada)
    answer = served.post("/v1/trainings", json={**BODY, "name": "other"}, headers=ada)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)


def test_progress_and_results_show_what_the_roles_allow(served) -> None:
    boss, ada = sign_in(served, "boss", "admin"), sign_in(served, "ada", "trainer", "category")
    served.post("/v1/trainings", json=BODY, headers=ada)
    jobs = served.service.jobs
    jobs.prepare(1, 1)
    jobs.enter(1, "train")
    job = jobs.get(1)
    plan = "epochs: 4\nseconds: 100.0\ntargets: [{name: category}, {name: disease}]\n"
    storage.write(f"{job.run}/plan.yaml", plan.encode())
    storage.write(f"{job.run}/history.csv", b"epoch,score\n0,0.25\n")
    path = "/v1/trainings/1"
    progress = {"epoch": 1, "epochs": 4, "score": 0.25, "seconds_left": 75.0}
    assert served.get(path, headers=boss).json()["progress"] == progress
    assert served.get(path, headers=ada).json()["progress"] == {**progress, "score": None}
    scores = {"macro_f1": 0.9, "category.macro_f1": 0.8, "disease.f1[rust]": 0.7}
    jobs.finish(1, {"model": "leaf", "version": 3, "digest": "ab", "targets": ["category", "disease"],
                    "scores": scores, "validation": "x"})  # fmt: skip
    assert served.get(path, headers=boss).json()["result"] == {
        "model": "leaf@3", "digest": "ab", "scores": scores, "validated": True, "outcome": None, "reasons": [],
    }  # fmt: skip
    assert served.get(path, headers=ada).json()["result"]["scores"] == {"category.macro_f1": 0.8}
    assert "disease" not in served.get(path, headers=ada).text
    assert served.get(f"{path}/log", headers=ada).status_code == 403


def events(text):
    """The events of a stream as (kind, id, data)."""
    blocks = [
        dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n") if "data:" in block
    ]
    return [(block["event"], block.get("id"), json.loads(block["data"])) for block in blocks]


def test_a_log_is_followed_to_its_end_and_again_from_any_event(served, monkeypatch) -> None:
    monkeypatch.setattr(routes, "_POLL", 0.01)
    ada = sign_in(served, "ada", "trainer", "category")
    served.post("/v1/trainings", json=BODY, headers=ada)
    job = served.service.jobs.get(1)
    log = Segments(job.log, rows=2)
    for number in range(5):
        write_line(log, f"line {number}")
    log.flush()
    served.service.jobs.fail(1, {"what": "It failed", "why": "", "next": "", "exit_code": 3})
    answer = served.get("/v1/trainings/1/log", headers=ada)
    assert answer.headers["content-type"].startswith("text/event-stream")
    sent = events(answer.text)
    assert [data["text"] for kind, _, data in sent if kind == "line"] == [f"line {number}" for number in range(5)]
    assert sent[-1] == ("end", None, {"status": "failed"})
    again = events(served.get("/v1/trainings/1/log", headers={**ada, "Last-Event-ID": sent[2][1]}).text)
    assert again == sent[3:]
    assert served.get("/v1/trainings/1/log", headers={**ada, "Last-Event-ID": "x"}).status_code == 422
    assert served.get("/v1/trainings/1", headers=ada).json()["failure"]["what"] == "It failed"


def test_the_cause_of_a_failure_is_for_those_who_may_see_its_classes(served) -> None:
    ada, eve = sign_in(served, "ada", "trainer", "category"), sign_in(served, "eve", "trainer", "health")
    served.post("/v1/trainings", json=BODY, headers=ada)
    failure = {"what": "tomato is rare", "why": "tomato: 1 photo", "next": "Add photos of tomato.", "exit_code": 3}
    served.service.jobs.fail(1, failure)
    assert served.get("/v1/trainings/1", headers=ada).json()["failure"] == failure
    for answer in (served.get("/v1/trainings/1", headers=eve), served.get("/v1/trainings", headers=eve)):
        assert '"exit_code":3' in answer.text
        assert "tomato" not in answer.text
