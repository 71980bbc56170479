"""A server of one model for benchmarks, and clients that cost little beside it."""

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import httptools
import uvloop

from plantml.model import bundle as bundles
from plantml.registry import operations, publishing
from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.service import database_url
from plantml.serve.users.accounts import Accounts

_BOUNDARY = "plantml-bench"


@dataclass(frozen=True)
class Server:
    """A `plantml serve` that is ready, or a server of others.

    Attributes:
        port: on this machine.
        key: API key of a user with all roles.
        process: its id.
        seconds: from the start of the process until it was ready.
        path: that takes photos.
    """

    port: int
    key: str
    process: int
    seconds: float
    path: str = "/v1/predict"

    def connect(self) -> http.client.HTTPConnection:
        """A connection that stays open."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def predict(self, connection: http.client.HTTPConnection, body: bytes) -> None:
        """Ask for a prediction. Raises `RuntimeError` for any other status than 200."""
        connection.request("POST", self.path, body, self._headers())
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"{response.status}: {content[:500]!r}")

    def head(self, size: int) -> bytes:
        """What comes before a body of so many bytes."""
        headers = {"Host": f"127.0.0.1:{self.port}", **self._headers(), "Content-Length": str(size)}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


@contextlib.contextmanager
def registered(bundle: str, scratch: str) -> Iterator[tuple[str, str, str]]:
    """URL of a registry with a bundle in production, of a state folder with a user, and the user's key."""
    with TemporaryDirectory(dir=scratch) as folder:
        registry, state = f"{folder}/models", f"{folder}/state"
        publishing.add(bundle, f"{registry}/leaf")
        operations.promote(f"{registry}/leaf", 1, operations.GUARDED, why="bench", force=True)
        database = Database(database_url(ServeConfig(state=state)))
        accounts = Accounts(database)
        accounts.add("bench", "", ["admin"])
        key = accounts.add_key("bench")[1]
        database.close()
        yield registry, state, key


@contextlib.contextmanager
def serving(bundle: str, scratch: str) -> Iterator[Server]:
    """A server of a bundle, with the settings that a user gets."""
    with registered(bundle, scratch) as (registry, state, key), start(registry, state, key) as server:
        yield server


@contextlib.contextmanager
def start(registry: str, state: str, key: str) -> Iterator[Server]:
    """A server, from its start until it is ready."""
    command = [sys.executable, "-m", "plantml", "serve", registry, "--state", state, "--port", "0", "--workers", "0"]
    started = time.perf_counter()
    with Path(state, "log").open("w+") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            port = _port(process, Path(state, "log"))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/readyz")
            if connection.getresponse().status != http.client.OK:
                raise RuntimeError("the server is not ready")
            yield Server(port, key, process.pid, time.perf_counter() - started)
        finally:
            process.terminate()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    while process.poll() is None:
        text = log.read_text()
        if " on http://127.0.0.1:" in text:
            return int(text.partition(" on http://127.0.0.1:")[2].partition(";")[0])
        time.sleep(0.002)
    raise RuntimeError(f"the server ended: {log.read_text()}")


@contextlib.contextmanager
def peer(name: str, python: str, model: str, scratch: str) -> Iterator[Server]:
    """LitServe or BentoML with the network of a bundle, when it answers; see `bench/serve_peers.py`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    command = {
        "litserve": [python, str(here / "serve_peers_lit.py"), str(port)],
        "bentoml": [
            str(Path(python).with_name("bentoml")), "serve", "serve_peers_bento:Plants", "--working-dir", str(here),
            "--host", "127.0.0.1", "--port", str(port),
        ],
    }[name]  # fmt: skip
    environment = {**os.environ, "PLANTS_MODEL": f"{model}/{bundles.ONNX}", "BENTOML_DO_NOT_TRACK": "True"}
    started = time.perf_counter()
    log = Path(scratch, f"{name}.log")
    with (
        log.open("w+") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment, process_group=0) as process,
    ):
        try:
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", {"litserve": "/health", "bentoml": "/readyz"}[name])
                    if connection.getresponse().status == http.client.OK:
                        break
                if process.poll() is not None or time.perf_counter() - started > 180:
                    raise RuntimeError(f"{name} did not start: {log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield Server(port, "", process.pid, time.perf_counter() - started, "/predict")
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # it started others


def family(process: int) -> list[int]:
    """A process, on Linux, and those that it started, with theirs."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it just ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    members = [process]
    for member in members:
        members += [child for child, parent in parents.items() if parent == member]
    return members


def bodies(folder: str, field: str = "files") -> list[bytes]:
    """A request for each photo of a folder, as the file of a form's field."""
    made = []
    for path in sorted(Path(folder).iterdir()):
        named = f'name="{field}"; filename="{path.name}"'
        head = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {named}\r\nContent-Type: image/jpeg\r\n\r\n"
        made.append(head.encode() + path.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode())
    return made


def ask_all(server: Server, requests: Sequence[bytes], clients: int) -> int:
    """Send all requests once, by so many clients at the same time, each with one photo at a time.

    One thread serves them all, with the event loop and the parser that uvicorn uses: they take little of the cores
    that they share with the server. Raises `RuntimeError` for any other status than 200.
    """
    heads = [server.head(len(body)) for body in requests]

    async def all_clients() -> None:
        loop, clients_done = asyncio.get_running_loop(), []
        for number in range(clients):
            client = _Client(zip(heads[number::clients], requests[number::clients], strict=True), loop.create_future())
            await loop.create_connection(lambda client=client: client, "127.0.0.1", server.port)
            clients_done.append(client.done)
        await asyncio.gather(*clients_done)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_clients())
    return len(requests)


class _Client(asyncio.Protocol):
    """A connection that stays open, with one request on its way.

    Args:
        requests: heads and bodies.
        done: resolved after the last answer.
    """

    def __init__(self, requests: Iterator[tuple[bytes, bytes]], done: asyncio.Future[None]) -> None:
        self.done = done
        self._requests, self._content = requests, bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are of no class of asyncio
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._content += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != http.client.OK:
            self._end(RuntimeError(f"{status}: {bytes(self._content[:500])!r}"))
            return
        self._content.clear()
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(RuntimeError(f"the server closed a connection: {error}"))

    def _ask(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        if request is None:
            self._end()
        else:
            self._transport.writelines(request)

    def _end(self, error: Exception | None = None) -> None:
        assert self._transport is not None
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
        self._transport.close()


def latencies(server: Server, requests: Sequence[bytes], rate: float, count: int) -> list[float]:
    """Seconds from when a request was due until its answer was read, of `count` requests at an even rate."""
    start_at = time.perf_counter()

    def one(place: int, body: bytes) -> float:
        due = start_at + place / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        connection = server.connect()
        server.predict(connection, body)
        connection.close()
        return time.perf_counter() - due

    with ThreadPoolExecutor(32) as threads:
        todo = enumerate(islice(cycle(requests), count))
        return [each.result() for each in [threads.submit(one, *pair) for pair in todo]]
