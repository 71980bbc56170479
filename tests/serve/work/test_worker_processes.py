"""A server's workers are started again when they end, and end with the server."""

import sys
import time
from pathlib import Path

from plantml.serve.work import worker_processes
from plantml.serve.work.worker_processes import WorkerProcesses
from plantml.storage import lease as leases

# Writes its process id, and ends by itself the first time; later when its standard input closes, or by a signal.
CODE = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / str(os.getpid())).touch()
if len(list(folder.iterdir())) > 1:
    os.read(0, 1)
"""


def test_a_worker_is_started_again_and_ends_with_the_server(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(worker_processes, "COMMAND", (sys.executable, "-c", CODE))
    monkeypatch.setattr(worker_processes, "_PAUSE", 0.01)
    messages: list[str] = []
    with WorkerProcesses(1, [str(tmp_path)], messages.append):
        deadline = time.monotonic() + 30
        while len(pids := [int(file.name) for file in Path(tmp_path).iterdir()]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert sum(bool(leases._started(pid)) for pid in pids) == 1
    assert messages == ["A worker ended with exit code 0. Starting it again."]
    assert not any(leases._started(pid) for pid in pids)
