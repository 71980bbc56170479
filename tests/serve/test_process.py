"""One `plantml serve` as a process: its address, and its end."""

import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.service import database_url
from plantml.serve.users.accounts import Accounts


@pytest.fixture
def serving(tmp_path):
    """`serving(registry, *options)`: the process of a server, its address, and headers of an administrator."""
    processes = []

    def start(registry, *options):
        state = str(tmp_path / "state")
        database = Database(database_url(ServeConfig(state=state)))
        accounts = Accounts(database)
        accounts.add("boss", "", ["admin"])
        _, key = accounts.add_key("boss", "test", None, None)
        database.close()
        process = subprocess.Popen(
            [sys.executable, "-m", "plantml", "serve", registry, "--state", state, "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        lines = []
        for line in process.stderr:
            lines.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never waits for us
                return process, address[0], {"Authorization": f"Bearer {key}"}
        pytest.fail("".join(lines))

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.slow
def test_a_signal_lets_requests_end_and_takes_no_more(serving, registry, photo):
    process, address, headers = serving(registry, "--threads", "1", "--batch", "1", "--workers", "0")
    large = photo(1600, 1200)
    with httpx2.Client(base_url=address, headers=headers, timeout=60) as client:
        assert client.get("/readyz").json()["model"] == "leaf@1"
        answers = []

        def ask():
            files = [("files", (f"{n}.jpg", large, "image/jpeg")) for n in range(32)]
            answers.append(httpx2.post(f"{address}/v1/predict", files=files, headers=headers, timeout=60))

        asking = threading.Thread(target=ask)
        asking.start()
        while "plantml_queue_photos 0.0" in client.get("/metrics").text and asking.is_alive():
            pass
        process.send_signal(signal.SIGTERM)
        asking.join()
    assert process.wait(60) == 143
    assert answers[0].status_code == 200
    assert len(answers[0].json()["records"]) == 32
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{address}/healthz")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_requests(serving, registry, photo):
    process, address, headers = serving(registry, "--threads", "2", "--workers", "0")
    photos = [photo(seed=seed) for seed in range(8)]

    def ask(client, number):
        files = [("files", (f"{number}.jpg", photos[number % 8], "image/jpeg"))]
        return client.post("/v1/predict", files=files).status_code

    def ask_often(count):
        with httpx2.Client(base_url=address, headers=headers, timeout=60) as client:
            return {ask(client, number) for number in range(count)}

    def used():
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    sizes = []
    for count in (2000, 8000):
        with ThreadPoolExecutor(4) as threads:
            assert set().union(*threads.map(ask_often, [count // 4] * 4)) == {200}
        sizes.append(used())
    assert sizes[1] < sizes[0] + 20, sizes
