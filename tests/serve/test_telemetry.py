"""Metrics, the access log, and readiness."""

import asyncio
import json
import logging
import re

from prometheus_client.parser import text_string_to_metric_families
from tests.serve.conftest import sign_in
from tests.serve.models.test_inference import Gate, sized, until

from plantml.errors import StorageError
from plantml.registry import ledger
from plantml.serve.app import create_app
from plantml.serve.database import Database
from plantml.serve.telemetry import _JsonLines


def read(client):
    """Values of the metrics by name and labels."""
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def files(*contents):
    return [("files", (f"{number}.jpg", data, "image/jpeg")) for number, data in enumerate(contents)]


def test_requests_photos_failures_and_models_are_counted(client, photo):
    headers = sign_in(client, "boss", "admin")
    client.post("/v1/predict", files=files(photo(), b"no photo"), headers=headers)
    client.post("/v1/predict")
    client.get("/v1/predictions?limit=3", headers=headers)
    client.get("/nothing")
    values = read(client)
    assert values["plantml_requests_total", "POST", "/v1/predict", "200"] == 1
    assert values["plantml_requests_total", "POST", "/v1/predict", "401"] == 1
    assert values["plantml_requests_total", "GET", "/v1/predictions", "200"] == 1
    assert values["plantml_request_seconds_count", "/v1/predict"] == 2
    assert values["plantml_photos_total",] == 2
    assert values["plantml_failures_total", "not-an-image"] == 1
    assert values["plantml_queue_photos",] == 0
    assert values["plantml_queue_wait_seconds_count",] == 2
    (model,) = [key for key in values if key[0] == "plantml_model_info"]
    assert model[2:] == ("leaf", "1")
    assert len(model[1]) == 64
    assert not any("nothing" in str(part) for key in values for part in key)  # a stranger adds no series


def test_refusals_are_counted(client, photo):
    headers = sign_in(client, "boss", "admin")
    client.service.queue.capacity = 0
    assert client.post("/v1/predict", files=files(photo()), headers=headers).status_code == 503
    assert read(client)["plantml_shed_total", "full"] == 1


def test_two_servers_count_for_themselves(start, photo):
    with start() as one:
        headers = sign_in(one, "boss", "admin")
        one.post("/v1/predict", files=files(photo()), headers=headers)
        with start() as other:
            assert ("plantml_requests_total", "POST", "/v1/predict", "200") not in read(other)


def test_the_log_has_a_line_of_json_per_request_without_secrets(client, photo, caplog):
    headers = sign_in(client, "boss", "admin")
    with caplog.at_level(logging.INFO, "plantml.serve"):
        answer = client.post(
            "/v1/predict?model=leaf@2&token=hush", files=files(photo()), headers=headers | {"X-Request-ID": "abc-1"}
        )
        other = client.get("/v1/me", headers={"Authorization": "Bearer hush", "X-Request-ID": "bad id"})
    lines = [json.loads(_JsonLines().format(record)) for record in caplog.records if record.message == "request"]
    assert answer.headers["X-Request-ID"] == "abc-1"
    assert other.headers["X-Request-ID"] not in {"", "bad id"}
    assert lines[0] | {"time": 0, "seconds": 0} == {
        "time": 0, "level": "info", "event": "request", "request": "abc-1", "client": "testclient", "user": "boss",
        "method": "POST", "path": "/v1/predict", "status": 200, "seconds": 0, "bytes": len(answer.content),
    }  # fmt: skip
    assert (lines[1]["status"], lines[1]["user"]) == (401, None)
    assert "hush" not in json.dumps(lines)


def test_a_bug_is_a_problem_and_a_traceback_in_the_log(client, caplog, monkeypatch):
    monkeypatch.setattr(client.service.database, "check", lambda: 1 / 0)
    answer = client.get("/readyz")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == 1
    line = next(json.loads(_JsonLines().format(each)) for each in caplog.records if each.exc_info)
    assert "ZeroDivisionError" in line["traceback"]
    assert line["request"] == answer.headers["X-Request-ID"]


def test_ready_when_database_registry_and_model_are(client, monkeypatch, caplog):
    assert client.get("/readyz").json() == {"status": "ok", "model": "leaf@1"}

    def away(*_):
        raise StorageError("s3://secret/place failed", "at db.internal", "Ask secret.")

    for owner, name in ((ledger.History, "ledger"), (Database, "check")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, away)
            patch.setattr(client.service.models, "_names", away)
            answer = client.get("/readyz")
            assert answer.status_code == 503
            assert answer.headers["Retry-After"]
            assert answer.json()["hint"]
            assert not {"secret", "internal"} & set(re.findall("[a-z]+", answer.text))  # they are for the log
            assert "s3://secret/place" in caplog.text
            assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200


def test_ready_without_a_model_and_not_with_a_wrong_one(start, tmp_path):
    with start(str(tmp_path / "no-registry-yet")) as client:
        assert client.get("/readyz").json() == {"status": "ok", "model": ""}
    with start(model="none") as client:
        assert client.get("/readyz").status_code == 503


def test_a_client_who_leaves_is_not_computed(start, photo, caplog):
    with start(threads=1) as client:
        key = sign_in(client, "boss", "admin")["Authorization"].encode()
        request = client.build_request("POST", "/v1/predict", files=files(photo(), photo()))
        request.read()
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/predict",
            "raw_path": b"/v1/predict", "query_string": b"", "root_path": "", "scheme": "http", "server": ("here", 80),
            "client": ("test", 1), "state": {},
            "headers": [
                (b"host", b"localhost"), (b"authorization", key),
                (b"content-type", request.headers["content-type"].encode()),
            ],
        }  # fmt: skip
        gate, queue = Gate(), client.service.queue

        async def walk():
            busy = asyncio.ensure_future(queue.compute(gate.double, sized(1), 10))
            await until(gate.begun.is_set)
            messages = [{"type": "http.request", "body": request.content, "more_body": False}]

            async def receive():
                if messages:
                    return messages.pop()
                await until(lambda: len(queue) == 2)
                return {"type": "http.disconnect"}

            async def send(_):
                pass

            await create_app(client.service)(scope, receive, send)
            assert len(queue) == 0
            gate.open.set()
            await busy

        with caplog.at_level(logging.INFO, "plantml.serve"):
            asyncio.run(walk())
    assert [each.fields["status"] for each in caplog.records if each.message == "request"] == [499]
