"""Behind a proxy that ends TLS: nginx and Caddy as the documentation has them, and one that is not trusted."""

import contextlib
import getpass
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from tests.serve.conftest import PASSWORD

from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.errors import InputError
from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.service import database_url
from plantml.serve.users.accounts import Accounts
from plantml.serve.work.jobs import Jobs, write_line
from plantml.settings import check
from plantml.storage.segments import Segments

SERVING = Path(__file__).parents[2] / "docs/serving.md"
NAME = "plants.example.org"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CADDY = shutil.which("caddy")
needs_nginx = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed"
)
needs_caddy = pytest.mark.skipif(CADDY is None, reason="caddy is not installed")


@pytest.mark.parametrize("network", ["plants.example", "*", "10.0.0.1/8", "0.0.0.0/0", "::/0", ""])
def test_a_proxy_is_named_by_an_address_or_a_network(network):
    with pytest.raises(InputError, match="behind_proxy"):
        check(ServeConfig, {"behind_proxy": [network]}, "a test")
    assert check(ServeConfig, {"behind_proxy": ["10.0.0.0/8", "::1"]}, "a test").behind_proxy == (
        "10.0.0.0/8",
        "::1/128",
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as there:
        return there.getsockname()[1]


def documented(language, outside, inside):
    """The configuration of `docs/serving.md`, on other ports."""
    text = re.search(rf"```{language}\n(.*?)```", SERVING.read_text(), re.DOTALL)[1]
    return text.replace("listen 443", f"listen 127.0.0.1:{outside}").replace(":8000", f":{inside}")


def nginx(folder, outside, inside):
    """Its command line."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "chain.pem",
         "-subj", f"/CN={NAME}", "-days", "2"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"user {getpass.getuser()}; daemon off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{documented('nginx', outside, inside)}}}\n"
    )
    return [NGINX, "-p", str(folder), "-c", "nginx.conf"]


def caddy(folder, outside, inside):
    """Its command line; the certificate is of an authority of its own, as the name is not public."""
    (folder / "Caddyfile").write_text(
        f"{{\nadmin off\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\nhttps_port {outside}\n"
        f"default_sni {NAME}\nstorage file_system {folder}/caddy\n}}\n{documented('caddyfile', outside, inside)}"
    )
    return [CADDY, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.fixture
def behind(tmp_path, registry, write_photos):
    """`behind(program, proxy)`: a client of a proxy as documented, URL of the server, and the lines of its log."""
    processes = []

    def start(program, proxy):
        state, port, outside = str(tmp_path / "state"), free_port(), free_port()
        source, leaves = str(write_photos(tmp_path / "source", ["healthy/1.jpg"])), str(tmp_path / "leaves")
        import_source(source, leaves, list_source(source))
        database = Database(database_url(ServeConfig(state=state)))
        Accounts(database).add("ada", PASSWORD, ["admin"])
        database.close()
        log = tmp_path / "serve.log"
        with log.open("w") as stderr:
            processes.append(subprocess.Popen(
                [sys.executable, "-m", "plantml", "serve", registry, "--state", state, "--port", str(port),
                 "--dataset", leaves, "--behind-proxy", proxy, "--workers", "0"],
                stderr=stderr,
            ))  # fmt: skip
        processes.append(subprocess.Popen(program(tmp_path, outside, port), stderr=subprocess.DEVNULL))
        client = httpx2.Client(
            base_url=f"https://127.0.0.1:{outside}", verify=False, headers={**MADE_UP, "Host": NAME}, timeout=30
        )
        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline, log.read_text()
            try:
                if client.get("/healthz").status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            time.sleep(0.1)

        def lines():
            return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]

        return client, f"http://127.0.0.1:{port}", lines

    yield start
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
        process.wait(60)


MADE_UP = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [pytest.param(nginx, marks=needs_nginx), pytest.param(caddy, marks=needs_caddy)]
)  # fmt: skip
def test_behind_a_documented_proxy(behind, photo, tmp_path, program):
    client, inside, lines = behind(program, "127.0.0.1")
    with contextlib.closing(client):
        answer = client.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/trainings"})
        cookie = answer.headers["set-cookie"]
        assert (answer.status_code, answer.headers["location"]) == (303, "/trainings")
        assert cookie.startswith("__Host-")
        assert {"Secure", "HttpOnly", "SameSite=lax"} <= set(re.split("; ", cookie))
        assert answer.headers["strict-transport-security"]
        assert client.get("/trainings").status_code == 200
        # Links that the server writes in full are those that callers use.
        moved = client.get("/trainings/", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (307, f"https://{NAME}/trainings")
        token = client.post("/v1/token", data={"username": "ada", "password": PASSWORD}).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        large = [("files", (f"{number}.jpg", photo(400, 300, seed=number), "image/jpeg")) for number in range(8)]
        records = client.post("/v1/predict", files=large, headers=headers).json()["records"]
        assert len(records) == 8
        assert client.post("/v1/predict", content=b"x" * 2**20, headers=headers).status_code in {415, 422}
        # A log arrives as it is written, and not at its end.
        jobs = Jobs(str(tmp_path / "state"))
        jobs.submit({"dataset": "leaves", "name": "leaf"}, "ada", str(tmp_path / "leaves"), most=1)
        with client.stream("GET", "/v1/trainings/1/log", headers=headers) as stream:
            events = stream.iter_lines()
            assert next(events) == "retry: 2000"
            write_line(log := Segments(jobs.get(1).log), "epoch 1")
            log.flush()
            assert "epoch 1" in next(line for line in events if line.startswith("data:"))
        assert {each["client"] for each in lines() if each["event"] == "request"} == {"127.0.0.1"}
        # Who reaches the server past the proxy, from an address that is trusted, could be anybody.
        httpx2.get(f"{inside}/openapi.json", headers=MADE_UP)
        assert [each["client"] for each in lines() if each.get("path") == "/openapi.json"] == ["203.0.113.9"]


@pytest.mark.slow
@needs_nginx
def test_headers_of_another_address_count_for_nothing(behind):
    client, inside, lines = behind(nginx, "10.0.0.0/8")
    httpx2.get(f"{inside}/healthz", headers=MADE_UP)
    assert lines()[-1]["client"] == "127.0.0.1"
    with contextlib.closing(client):
        answer = client.post("/sign-in", data={"name": "ada", "password": PASSWORD})
    assert "Secure" in answer.headers["set-cookie"]
    assert "strict-transport-security" not in answer.headers
