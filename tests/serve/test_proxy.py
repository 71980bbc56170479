"""Behind a proxy that ends TLS: the nginx of the documentation, and one that is not trusted."""

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

from plantml.errors import InputError
from plantml.serve.accounts import Accounts
from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.service import database_url
from plantml.settings import check

SERVING = Path(__file__).parents[2] / "docs/serving.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


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


@pytest.fixture
def behind(tmp_path, registry):
    """`behind(proxy)`: URL of nginx with the documented configuration, that of the server, and the lines of its log."""
    processes = []

    def start(proxy):
        state, port, outside = str(tmp_path / "state"), free_port(), free_port()
        database = Database(database_url(ServeConfig(state=state)))
        Accounts(database).add("ada", PASSWORD, ["admin"])
        database.close()
        log = tmp_path / "serve.log"
        with log.open("w") as stderr:
            processes.append(subprocess.Popen(
                [sys.executable, "-m", "plantml", "serve", registry, "--state", state, "--port", str(port),
                 "--behind-proxy", proxy, "--workers", "0"],
                stderr=stderr,
            ))  # fmt: skip
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "chain.pem",
             "-subj", "/CN=plants.example.org", "-days", "2"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
        documented = re.search(r"```nginx\n(.*?)```", SERVING.read_text(), re.DOTALL)[1]
        documented = documented.replace("listen 443", f"listen 127.0.0.1:{outside}").replace(":8000", f":{port}")
        temporary = "".join(
            f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"user {getpass.getuser()}; daemon off; pid {tmp_path}/nginx.pid; error_log stderr;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{temporary}{documented}}}\n"
        )
        processes.append(subprocess.Popen([NGINX, "-p", str(tmp_path), "-c", "nginx.conf"], stderr=subprocess.DEVNULL))
        address = f"https://127.0.0.1:{outside}"
        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline, log.read_text()
            try:
                if httpx2.get(f"{address}/healthz", verify=False).status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            time.sleep(0.1)

        def lines():
            return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]

        return address, f"http://127.0.0.1:{port}", lines

    yield start
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
        process.wait(60)


MADE_UP = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed")
def test_behind_the_documented_nginx(behind, photo):
    address, inside, lines = behind("127.0.0.1")
    with httpx2.Client(base_url=address, verify=False, headers={**MADE_UP, "Host": "plants.example.org"}) as client:
        answer = client.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/trainings"})
        cookie = answer.headers["set-cookie"]
        assert (answer.status_code, answer.headers["location"]) == (303, "/trainings")
        assert cookie.startswith("__Host-")
        assert {"Secure", "HttpOnly", "SameSite=lax"} <= set(re.split("; ", cookie))
        assert answer.headers["strict-transport-security"]
        assert client.get("/trainings").status_code == 200
        # Links that the server writes in full are those that callers use.
        moved = client.get("/trainings/", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (307, "https://plants.example.org/trainings")
        token = client.post("/v1/token", data={"username": "ada", "password": PASSWORD}).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        large = [("files", (f"{number}.jpg", photo(400, 300, seed=number), "image/jpeg")) for number in range(8)]
        records = client.post("/v1/predict", files=large, headers=headers).json()["records"]
        assert len(records) == 8
        assert client.post("/v1/predict", content=b"x" * 2**20, headers=headers).status_code in {415, 422}
        assert {each["client"] for each in lines() if each["event"] == "request"} == {"127.0.0.1"}
        # Who reaches the server past the proxy, from an address that is trusted, could be anybody.
        httpx2.get(f"{inside}/healthz", headers=MADE_UP)
        assert lines()[-1]["client"] == "203.0.113.9"


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed")
def test_headers_of_another_address_count_for_nothing(behind):
    address, inside, lines = behind("10.0.0.0/8")
    httpx2.get(f"{inside}/healthz", headers=MADE_UP)
    assert lines()[-1]["client"] == "127.0.0.1"
    answer = httpx2.post(f"{address}/sign-in", data={"name": "ada", "password": PASSWORD}, verify=False)
    assert "Secure" in answer.headers["set-cookie"]
    assert "strict-transport-security" not in answer.headers
