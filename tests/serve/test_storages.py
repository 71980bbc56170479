"""State and datasets in other storages than a folder, and a bucket that goes away and comes back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import store
from tests.serve.conftest import make_leaves, sign_in

from plantml.data import versions
from plantml.serve import server
from plantml.storage import object_store


@pytest.fixture
def far(start, tmp_path, photo):
    """`far(url)`: a server whose state and dataset are at a URL."""

    def begin(url):
        leaves = make_leaves(f"{url}/leaves", tmp_path / "source", photo)
        return start(dataset=(leaves,), state=f"{url}/state", database=f"sqlite:///{tmp_path}/serve.db")

    return begin


def send(site, headers, data):
    files = [("files", ("x.jpg", data, "image/jpeg"))]
    return site.post(
        "/v1/datasets/leaves/photos", files=files, data={"labels": '{"category": "bean"}'}, headers=headers
    )


@pytest.mark.parametrize("place", ["memory_url", "s3_url"])
def test_photos_come_in_and_are_reviewed_in_any_storage(place, request, far, photo):
    url = request.getfixturevalue(place)
    with far(url) as site:
        headers = sign_in(site, "boss", "admin")
        sent = send(site, headers, photo(seed=10)).json()["photos"][0]
        assert send(site, headers, photo(seed=10)).json()["photos"][0]["id"] == sent["id"]
        accepted = site.post("/v1/contributions/accept", json={"ids": [sent["id"]]}, headers=headers)
        assert accepted.json()[0]["version"] == 3
        assert site.get(f"/v1/datasets/leaves/photos/{sent['image_id']}", headers=headers).content == photo(seed=10)
        body = {"dataset": "leaves", "image_id": sent["image_id"], "labels": {"category": "tomato"}}
        assert site.post("/v1/review", json=body, headers=headers).json()["version"] == 4
        assert versions.numbers(f"{url}/leaves") == [1, 2, 3, 4]


@pytest.mark.slow  # its client asks again for some seconds before it gives up
def test_a_bucket_that_goes_away_is_a_503_and_comes_back_by_itself(s3_url, far, photo, monkeypatch):
    target = int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])
    [port] = store.free_ports(1)
    command = [sys.executable, "-m", "bench.store", str(target), str(port), "0"]

    def road():
        process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
        store.wait(process, port)
        return process

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name, value in server.FEW_RETRIES.items():
        monkeypatch.setenv(name, value)
    object_store.forget()
    process = road()
    try:
        with far(s3_url) as site:
            headers = sign_in(site, "boss", "admin")
            first = send(site, headers, photo(seed=10)).json()["photos"][0]
            process.kill()
            process.wait()
            for method, path in (("get", "/v1/datasets/leaves"), ("get", "/v1/contributions"), ("get", "/v1/review")):
                answer = getattr(site, method)(path, headers=headers)
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"]
            assert send(site, headers, photo(seed=11)).status_code == 503
            assert site.get("/healthz").status_code == 200
            process = road()
            assert send(site, headers, photo(seed=11)).status_code == 202
            waiting = site.get("/v1/contributions", headers=headers).json()
            assert first["id"] in {each["id"] for each in waiting}
    finally:
        process.kill()
        process.wait()
        object_store.forget()
