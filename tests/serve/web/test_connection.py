"""What a connection must not cost: memory for what never ends, and a place for a client that sends nothing."""

import contextlib
import json
import socket
import time

import pytest
from tests.serve.conftest import listening

from plantml.serve.web import connection
from plantml.serve.web.connection import MOST_BYTES

PIECE = b"a" * 2**16
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"


async def app(scope, receive, send):
    """Read a request to its end, and answer with the size of its body."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    text = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture(scope="module")
def port():
    """Of a server of `app`."""
    with listening(app) as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture
def connect(port):
    """`connect()`: a socket to the server."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))


def answer(there):
    """What comes until the end of a connection."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := there.recv(2**16):
            parts.append(part)
    return b"".join(parts)


def is_cut_off(there, piece, number=200):
    """True if the server ends the connection before it has taken so many pieces."""
    try:
        for _ in range(number):
            there.sendall(piece)
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    "sent",
    [b"GET /", HEAD + b"X-A: ", HEAD, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A: "],
    ids=["url", "header", "headers", "extension", "trailer"],
)  # fmt: skip
def test_what_never_ends_is_cut_off(connect, sent) -> None:
    there = connect()
    there.sendall(sent)
    assert is_cut_off(there, b"X-A: b\r\n" * 8192 if sent == HEAD else PIECE)


def test_what_is_a_little_too_large_is_told_so_and_what_is_not_is_answered(connect) -> None:
    def ask(size):
        there = connect()
        for piece in (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-A: ", b"a" * size):
            there.sendall(piece)
            time.sleep(0.05)
        with contextlib.suppress(ConnectionError):
            there.sendall(b"\r\n\r\n")
        return answer(there)

    assert ask(2**15).startswith(b"HTTP/1.1 200")
    refused = ask(MOST_BYTES + 1)
    assert refused.startswith(b"HTTP/1.1 431")
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["status"] == 431


def test_what_is_no_request_is_answered_as_any_error(connect) -> None:
    there = connect()
    there.sendall(b"GET / leaf HTTP/1.1\r\n\r\n")
    head, _, body = answer(there).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["title"] == "This is no request of HTTP"


def test_a_large_body_is_no_header(connect) -> None:
    size, there = 5 * MOST_BYTES, connect()
    there.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
    assert answer(there).endswith(str(size).encode())


@pytest.mark.parametrize("sent", [b"", b"GET /heal", HEAD, HEAD + b"Content-Length: 1000\r\n\r\n"])
def test_who_sends_nothing_or_drop_by_drop_loses_the_connection(connect, sent, monkeypatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 0.2)
    there, began = connect(), time.monotonic()
    there.settimeout(0.05)
    there.sendall(sent)
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < began + 20:
            if sent:
                there.sendall(b"a")
            try:
                if not there.recv(1000):
                    break
            except TimeoutError:
                pass
    assert 0.15 < time.monotonic() - began < 10


def test_who_sends_fast_enough_has_the_time_that_it_takes(connect, monkeypatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 0.2)
    there = connect()
    there.sendall(HEAD + b"Connection: close\r\nContent-Length: 1600\r\n\r\n")
    for _ in range(8):
        there.sendall(b"a" * 200)
        time.sleep(0.08)
    assert answer(there).endswith(b"1600")


def test_a_kept_connection_is_served_again(connect, monkeypatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 0.1)
    there = connect()
    for _ in range(3):
        there.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert there.recv(2**16).startswith(b"HTTP/1.1 200")
        time.sleep(0.2)
