"""Headers of every response, other hosts, other origins, and bodies without end."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.serve.conftest import sign_in

from plantml.serve.config import ServeConfig
from plantml.serve.web import headers


@pytest.mark.parametrize("path", ["/healthz", "/v1/me", "/nothing", "/docs", "/openapi.json", "/sign-in"])
def test_every_response_has_the_headers(client, path) -> None:
    answer = client.get(path).headers
    policy = answer["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer["x-content-type-options"] == "nosniff"
    assert answer["referrer-policy"] == "same-origin"
    assert answer["cache-control"] == "no-store"
    assert "strict-transport-security" not in answer
    assert "access-control-allow-origin" not in answer


def test_under_tls_browsers_are_told_to_stay_there(client) -> None:
    assert client.get("https://localhost/healthz").headers["strict-transport-security"]


@pytest.mark.parametrize(
    ("changes", "host", "status"),
    [
        ({}, "localhost:8000", 200),
        ({}, "[::1]:8000", 200),
        ({}, "evil.example", 400),
        ({}, "", 400),
        ({}, "localhost.evil.example", 400),
        ({"trusted_host": ["Plants.example"]}, "plants.example", 200),
        ({"trusted_host": ["plants.example"]}, "localhost", 400),
        ({"host": "0.0.0.0", "insecure": True}, "plants.example", 200),
        ({"behind_proxy": ["127.0.0.1"]}, "plants.example", 200),
    ],
)
def test_only_its_own_names_are_answered(changes, host, status) -> None:
    app = FastAPI()
    headers.add_middleware(app, ServeConfig(**changes))
    for path in ("/page", "/healthz"):
        app.get(path)(lambda: "here")
    client = TestClient(app)
    answer = client.get("/page", headers={"Host": host})
    assert answer.status_code == status
    assert client.get("/healthz", headers={"Host": host}).status_code == 200
    if status == 400:
        assert answer.json()["hint"] == "See --trusted-host."


def test_a_name_that_is_no_address_is_trusted_as_any() -> None:
    assert headers.trusted_hosts(ServeConfig(host="plants.example", insecure=True)) is None


def test_other_origins_may_call_only_if_named(start) -> None:
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    with start() as client:
        assert "access-control-allow-origin" not in client.options("/v1/predict", headers=ask).headers
    with start(origin=["https://app.example"]) as client:
        allowed = client.options("/v1/predict", headers=ask).headers
        assert allowed["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-credentials" not in allowed
        other = client.get("/healthz", headers={"Origin": "https://evil.example"}).headers
        assert "access-control-allow-origin" not in other


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_beyond_the_bound_is_refused(start, chunked) -> None:
    with start(max_upload=10_000) as client:
        signed_in = sign_in(client, "ada", "admin")
        form = "application/x-www-form-urlencoded"
        for path, kind in (("/v1/users", "application/json"), ("/v1/predict", "application/json"), ("/v1/token", form)):
            body = iter([b" " * 1000] * 11) if chunked else b" " * 11_000
            answer = client.post(path, content=body, headers={**signed_in, "Content-Type": kind})
            assert answer.status_code == 413, (path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-content-type-options"] == "nosniff"
