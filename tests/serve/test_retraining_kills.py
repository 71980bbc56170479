"""A retraining that is asked for over HTTP, whose workers are killed: another worker goes on with the same round."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.serve.conftest import sign_in
from tests.serve.test_train_and_promote import TINY

from plantml import storage
from plantml.data import versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.registry import ledger
from plantml.retrain import rounds
from plantml.serve.work.jobs import lost_attempts, read_log

RUN = "import sys; from plantml.cli.app import main; sys.argv[0] = 'plantml'; main()"
EPOCHS = 400
"""Enough that some are left whenever a worker dies."""


def until(condition, process, seconds=900):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="it looks for processes in /proc")
@pytest.mark.parametrize("where", ["local", "s3"])
def test_killed_workers_leave_a_round_to_the_next_one(
    where, start, tmp_path, write_photos, photo, run_python, request
) -> None:
    root = str(tmp_path / "there") if where == "local" else request.getfixturevalue("s3_url")
    registry, dataset, state = (storage.join(root, name) for name in ("models", "leaves", "state"))
    names = [f"{name}/{each}.jpg" for name in ("bean", "tomato") for each in range(12)]
    source = str(write_photos(tmp_path / "photos", names))
    import_source(source, dataset, list_source(source, rule="category"))
    database = f"sqlite:///{tmp_path}/serve.db"
    with start(registry=registry, dataset=(dataset,), state=state, database=database, poll=0.001) as client:
        ada, jobs = sign_in(client, "ada", "trainer", "promoter", "category"), client.service.jobs
        body = {"dataset": "leaves", "name": "leaf", "config": {**TINY, "epochs": EPOCHS},
                "retrain": {"gates": {"max_drop": 1.0, "sure": 0.0}}}  # fmt: skip
        assert client.post("/v1/trainings", json=body, headers=ada).json()["id"] == 1

        def worker():
            return run_python(RUN, "work", registry, "--state", state, "--once")

        def epochs():
            return [line.text for line in read_log(jobs.get(1).log) if line.text.startswith("epoch ")]

        # Alone: its command sees that it is gone, and saves the training.
        first = worker()
        until(epochs, first)
        first.kill()
        first.communicate()
        assert jobs.get(1).open
        # With its command, which can save nothing.
        learnt, second = len(epochs()), worker()
        until(lambda: len(epochs()) > learnt, second)
        for pid in children(second):
            os.kill(pid, signal.SIGKILL)
        second.kill()
        second.communicate()
        last = worker()
        assert last.wait(1800) == 0, last.communicate()

        job = jobs.get(1)
        assert (job.status, job.result["outcome"], job.round) == ("done", "promoted", 1)
        assert lost_attempts(job) == 2
        assert list(rounds.state(job.work).begun) == [1]
        assert sum(line.startswith(f"epoch 1/{EPOCHS}") for line in epochs()) == 1  # resumed, not begun again
        history = ledger.load(storage.join(registry, "leaf"))
        assert (list(history.entries), dict(history.aliases)) == ([1], {"production": 1, "challenger": 1})
        assert history.entries[1].digest == job.result["digest"]
        assert versions.load(dataset).number == 2  # split once
        files = [("files", ("leaf.jpg", photo(), "image/jpeg"))]
        assert client.post("/v1/predict", files=files, headers=ada).json()["model"] == "leaf@1"
