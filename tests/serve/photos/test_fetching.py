"""What callers may have us fetch: public hosts by name, within bounds of bytes and time, and nothing else."""

import ipaddress
import socket
import threading
import time

import pytest

from plantml.errors import InputError, RefusedError
from plantml.serve.photos.fetching import MAX_REDIRECTS, Network, fetch
from plantml.storage.addresses import is_public

PUBLIC = "93.184.216.34"


class Internet:
    """Hosts by name, and what a connection to them answers; notes which addresses were connected to."""

    def __init__(self, answers, hosts=None):
        self.answers, self.hosts = list(answers), hosts or {}
        self.connected, self.asked, self.names = [], [], []

    def network(self):
        return Network(self.resolve, self.connect, lambda: self)

    def resolve(self, host, port):
        addresses = self.hosts.get(host, [PUBLIC])
        return addresses.pop(0) if addresses and isinstance(addresses[0], list) else addresses

    def connect(self, address, port, seconds):
        self.connected.append((address, port))
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs, self.answers.pop(0)), daemon=True).start()
        return ours

    def wrap_socket(self, connected, server_hostname):
        self.names.append(server_hostname)
        return connected

    def _serve(self, there, answer):
        with there:
            self.asked.append(there.recv(65536).decode())
            for part in answer if isinstance(answer, list) else [answer]:
                try:
                    there.sendall(part) if isinstance(part, bytes) else time.sleep(part)
                except OSError:
                    return


def ok(body, *headers):
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(to):
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


def no_network():
    def never(*_):
        raise AssertionError("the network was used")

    return Network(never, never, never)


HOSTILE = [
    "file:///etc/passwd", "ftp://example.org/a", "gopher://example.org/", "s3://bucket/a", "data:image/png;base64,AA",
    "javascript:alert(1)", "//example.org/a", "example.org/a.jpg", "", "http://", "http:///a",
    "http://localhost/", "http://localhost./", "http://metadata/", "http://127.0.0.1/", "http://127.1/",
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://0/",
    "http://127.0.0.1.:80/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[fe80::1%25eth0]/",
    "http://169.254.169.254/latest/meta-data", "http://8.8.8.8/", "http://①②⑦.0.0.1/", "http://127。0。0。1/",
    "http://１２７.0.0.1/", "http://%31%32%37.0.0.1/", "http://user@example.org/", "http://user:pw@example.org/",
    "http://example.org@127.0.0.1/", "http://example.org:22/", "http://example.org:8080/", "http://example.org:0/",
    "http://example.org:x/", "http://example.org:99999/", "http://exa mple.org/", "http://example.org\\@127.0.0.1/",
    "http://example.org/a\r\nHost: inner", "http://example.org/\x00", "http://ex_ample.org/", "http://-a.org/",
    f"http://{'a' * 64}.org/", f"http://example.org/{'a' * 3000}", "http://example..org/", "http://a.0x7f/",
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile_urls_reach_no_network(url):
    with pytest.raises(RefusedError, match="is not fetched") as raised:
        fetch(url, network=no_network())
    assert raised.value.why
    assert raised.value.hint


SPECIAL = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:53aa:64c::1", "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1",
    "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", SPECIAL)
def test_a_name_that_leads_to_a_special_address_is_refused(address):
    internet = Internet([], {"inner.example.org": [PUBLIC, address]})
    with pytest.raises(RefusedError, match="not public"):
        fetch("http://inner.example.org/", network=internet.network())
    assert not internet.connected
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_a_photo_of_a_public_host_is_fetched_from_the_address_that_was_checked(address):
    internet = Internet([ok(b"leaf")], {"photos.example.org": [[address], ["127.0.0.1"]]})
    assert (
        fetch("https://Photos.Example.org/ä b.jpg?x=1#top".replace(" ", "%20"), network=internet.network()) == b"leaf"
    )
    assert internet.connected == [(address, 443)]
    assert internet.names == ["photos.example.org"]
    first, *headers = internet.asked[0].split("\r\n")
    assert first == "GET /%C3%A4%20b.jpg?x=1 HTTP/1.1"
    assert "Host: photos.example.org" in headers
    assert not [line for line in headers if line.lower().startswith(("cookie", "authorization", "proxy"))]


def test_no_proxy_of_the_environment_is_asked(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    internet = Internet([ok(b"leaf")])
    assert fetch("http://example.org/", network=internet.network()) == b"leaf"
    assert internet.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "to", ["http://127.0.0.1/", "file:///etc/passwd", "http://inner.example.org/", "http://a@b.org/", "//localhost/"]
)
def test_each_redirect_is_judged_anew(to):
    internet = Internet([redirect(to)], {"inner.example.org": ["10.0.0.1"]})
    with pytest.raises(RefusedError):
        fetch("http://example.org/", network=internet.network())
    assert internet.connected == [(PUBLIC, 80)]


def test_a_host_that_moves_inside_between_redirects_is_refused():
    internet = Internet([redirect("/again")], {"moves.example.org": [[PUBLIC], ["127.0.0.1"]]})
    with pytest.raises(RefusedError, match="not public"):
        fetch("http://moves.example.org/", network=internet.network())


def test_redirects_are_followed_and_counted():
    internet = Internet([redirect("/b"), redirect("https://example.net/c"), ok(b"leaf")])
    assert fetch("http://example.org/a", network=internet.network()) == b"leaf"
    endless = Internet([redirect("/a")] * (MAX_REDIRECTS + 1))
    with pytest.raises(RefusedError, match="redirects more than"):
        fetch("http://example.org/a", network=endless.network())


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"x" * 11),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"6\r\nxxxxxx\r\n" * 2 + b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
    ],
)
def test_an_answer_over_the_limit_is_refused(answer):
    with pytest.raises(RefusedError, match="more than 10 bytes"):
        fetch("http://example.org/", 10, network=Internet([answer]).network())


@pytest.mark.parametrize(
    "answer",
    [
        [0.5],
        [b"H", 0.06] * 10,
        [b"HTTP/1.1 100 Continue\r\n\r\n", 0.06] * 10,
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x", 0.06] * 10],
        [b"HTTP/1.1 200 OK\r\nX: ", *[b"x", 0.06] * 10],
    ],
)
def test_a_server_that_drips_is_left_in_time(answer):
    begun = time.monotonic()
    with pytest.raises(InputError, match="longer than"):
        fetch("http://example.org/", deadline=0.15, network=Internet([answer]).network())
    assert time.monotonic() - begun < 0.4


def test_a_lookup_that_hangs_is_left_in_time():
    ending = threading.Event()
    network = Network(lambda *_: ending.wait(5) or [PUBLIC], no_network().connect)
    with pytest.raises(InputError, match="longer than"):
        fetch("http://example.org/", deadline=0.1, network=network)
    ending.set()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answers 404"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "answers 304"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "answers 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nxx", "too early"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"", "did not answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "does not speak HTTP"),
    ],
)
def test_an_answer_that_is_no_photo_says_why(answer, why):
    with pytest.raises(InputError, match=why):
        fetch("http://example.org/", network=Internet([answer]).network())


def test_an_unknown_host_and_an_address_that_does_not_answer():
    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    def dead(*_):
        raise ConnectionRefusedError

    with pytest.raises(InputError, match="host is unknown"):
        fetch("http://example.org/", network=Network(unknown, dead))
    with pytest.raises(InputError, match="did not answer"):
        fetch("http://example.org/", network=Network(lambda *_: [PUBLIC, "8.8.8.8"], dead))
