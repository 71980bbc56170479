"""A server that is killed in the middle of uploads and acceptances: what it acknowledged is there."""

import contextlib
import itertools
import json
import os
import random
import socket
import threading
import time

import httpx2 as httpx
import pytest
from tests.serve.conftest import LEAVES

from plantml.data import maintenance, versions
from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.service import database_url
from plantml.serve.users.accounts import Accounts

RUN = "import sys; from plantml.cli.app import main; sys.argv[0] = 'plantml'; main()"


class Load:
    """Clients that send photos and accept them, whatever happens to the server, and note what it acknowledged."""

    def __init__(self, address, headers, photo):
        self.address, self.headers, self.photo = address, headers, photo
        self.acknowledged, self.accepted = {}, set()
        self.ending, self.numbers = threading.Event(), itertools.count()
        self.wrong = []

    def send(self):
        with httpx.Client(base_url=self.address, headers=self.headers, timeout=20) as client:
            while not self.ending.is_set():
                files = [
                    ("files", ("x.jpg", self.photo + str(next(self.numbers)).encode(), "image/jpeg")) for _ in "ab"
                ]
                data = {"labels": json.dumps({"category": "bean"})}
                answer = self._ask(client, "/v1/datasets/leaves/photos", files=files, data=data)
                if answer is not None and answer.status_code == 202:
                    self.acknowledged.update({each["id"]: each["image_id"] for each in answer.json()["photos"]})

    def accept(self):
        with httpx.Client(base_url=self.address, headers=self.headers, timeout=20) as client:
            while not self.ending.wait(0.1):
                ids = [each for each in list(self.acknowledged) if each not in self.accepted][:20]
                answer = self._ask(client, "/v1/contributions/accept", json={"ids": ids}) if ids else None
                if answer is not None and answer.status_code == 200:
                    self.accepted.update(ids)

    def _ask(self, client, path, **what):
        with contextlib.suppress(httpx.TransportError):
            answer = client.post(path, **what)
            if answer.status_code >= 400:
                self.wrong.append(answer.text)
            return answer
        time.sleep(0.02)
        return None


@pytest.fixture
def server(run_python, registry, leaves, tmp_path):
    """`server()`: start a server of the dataset `leaves` in a process of its own, and wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    state = str(tmp_path / "state")
    database = Database(database_url(ServeConfig(state=state)))
    Accounts(database).add("boss", "", ["admin"])
    _, secret = Accounts(database).add_key("boss")
    database.close()
    processes = []

    def begin():
        arguments = ["serve", registry, "--dataset", leaves, "--state", state, "--port", port, "--workers", 0]
        process = run_python(RUN, *arguments)
        processes.append(process)
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                    return process
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    begin.address = f"http://127.0.0.1:{port}"
    begin.headers = {"Authorization": f"Bearer {secret}"}
    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_acknowledged_photo_is_there_after_30_kills(server, leaves, photo):
    kills, rng = 30, random.Random(30)
    load = Load(server.address, server.headers, photo(32, 24))
    clients = [threading.Thread(target=work) for work in (load.send, load.send, load.send, load.accept)]
    process = server()
    for client in clients:
        client.start()
    try:
        for _ in range(kills):
            before, until = len(load.acknowledged), time.monotonic() + 20
            while len(load.acknowledged) < before + 4 and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            os.kill(process.pid, 9)
            process.communicate()
            process = server()
    finally:
        load.ending.set()
        for client in clients:
            client.join()
    assert load.wrong == []
    assert len(load.acknowledged) >= 4 * kills
    with httpx.Client(base_url=server.address, headers=server.headers, timeout=60) as client:
        rest = sorted(set(load.acknowledged) - load.accepted)
        for first in range(0, len(rest), 500):
            answer = client.post("/v1/contributions/accept", json={"ids": rest[first : first + 500]})
            assert answer.status_code == 200, answer.text
    version = versions.load(leaves)
    photos = version.usable()
    assert set(load.acknowledged.values()) <= set(photos["image_id"])
    assert photos["image_id"].n_unique() == photos.height  # none is there twice
    assert photos.height >= len(load.acknowledged) + len(LEAVES)
    assert maintenance.verify(leaves).sound
    assert versions.numbers(leaves) == list(range(1, version.number + 1))
