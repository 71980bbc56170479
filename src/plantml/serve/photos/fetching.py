"""Fetch a photo from a URL that a caller names, without becoming their way into this network.

The host must be a name. Its addresses are looked up once, all of them must be public, and the connection goes to one
of those very addresses: a name that leads elsewhere a moment later gains nothing. Each redirect is judged anew. No
proxy, cookie or credential of this machine is used.
"""

import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from plantml import storage
from plantml.about import __version__
from plantml.errors import InputError, RefusedError
from plantml.storage import addresses

MAX_URL, MAX_REDIRECTS, SECONDS = 2048, 3, 15.0
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
# Its last label begins with a letter, so that no notation of an IP address (127.1, 0x7f000001, 2130706433) is a name.
_NAME = re.compile(r"(?=.{4,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_HINT = "Send the photo itself as a file."


def _resolve(host: str, port: int) -> list[str]:
    return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _connect(address: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((address, port), timeout=seconds)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@dataclass(frozen=True)
class Network:
    """How hosts are looked up and reached.

    Attributes:
        resolve: from a host and port to its IP addresses.
        connect: to an IP address and port within seconds.
        tls: makes the context that verifies certificates.
    """

    resolve: Callable[[str, int], Sequence[str]] = _resolve
    connect: Callable[[str, int, float], socket.socket] = _connect
    tls: Callable[[], ssl.SSLContext] = _tls


_INTERNET = Network()
_lookups = ThreadPoolExecutor(8, thread_name_prefix="lookup")
"""A lookup knows no timeout: in a thread of its own it can be left alone."""


def fetch(
    url: str, limit: int = storage.MAX_PHOTO, deadline: float = SECONDS, *, network: Network = _INTERNET
) -> bytes:
    """The bytes at a public http or https URL. Blocks: call it in a thread.

    Args:
        url: of a caller; not trusted.
        limit: most bytes of the answer.
        deadline: most seconds for all of it, with redirects.
        network: replaced by tests.

    Raises:
        RefusedError: the URL, or one that it redirects to, may not be fetched, or its answer is too large.
        InputError: it could not be fetched.
    """
    ends = time.monotonic() + deadline
    for _ in range(MAX_REDIRECTS + 1):
        parts = _checked(url)
        try:
            with _Exchange(parts, network, ends) as response:
                if response.status in _REDIRECTS and (target := response.getheader("Location")):
                    url = urljoin(parts.geturl(), target)
                    continue
                if response.status != http.client.OK:
                    raise _failed(url, f"its server answers {response.status}")
                return _body(url, response, limit)
        except TimeoutError as error:
            raise _failed(url, f"it took longer than {deadline:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(url, _reason(error)) from error
    raise _refused(url, f"it redirects more than {MAX_REDIRECTS} times")


def _checked(url: str) -> SplitResult:
    """The parts of a URL that may be fetched, its host in ASCII. Raises `RefusedError`."""
    if len(url) > MAX_URL or any(ord(letter) <= 32 or ord(letter) == 127 or letter == "\\" for letter in url):
        raise _refused(url, "it is not a plain URL")
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").encode("idna").decode().lower().removesuffix(".")
    except (ValueError, UnicodeError) as error:
        raise _refused(url, "it is not a plain URL") from error
    if parts.scheme not in _PORTS:
        raise _refused(url, "only http and https are fetched")
    if "@" in parts.netloc:
        raise _refused(url, "it has a user name")
    if port not in (None, *_PORTS.values()):
        raise _refused(url, "only the ports 80 and 443 are fetched")
    if not _NAME.match(host):
        raise _refused(url, "its host is not the full name of a public host")
    return parts._replace(netloc=f"{host}:{port or _PORTS[parts.scheme]}")


class _Exchange:
    """One request and its response, over a connection that ends with the block."""

    def __init__(self, parts: SplitResult, network: Network, ends: float) -> None:
        self._parts, self._network, self._ends = parts, network, ends
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> http.client.HTTPResponse:
        try:
            return self._ask()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._socket is not None:
            self._socket.close()

    def _ask(self) -> http.client.HTTPResponse:
        host, port = self._parts.hostname or "", self._parts.port or 0
        self._socket = self._connected(host, port)
        if self._parts.scheme == "https":
            self._socket.settimeout(_left(self._ends))
            self._socket = self._network.tls().wrap_socket(self._socket, server_hostname=host)
        self._connection = http.client.HTTPConnection(host, port)
        self._connection.sock = _TimedSocket(self._socket, self._ends)
        path = quote(self._parts.path or "/", safe="/%:@!$&'()*+,;=~")
        query = quote(self._parts.query, safe="/%:@!$&'()*+,;=~?")
        headers = {
            "Host": host if port == _PORTS[self._parts.scheme] else f"{host}:{port}",
            "User-Agent": f"plantml/{__version__}",
            "Accept": "image/*",
            "Connection": "close",
        }
        self._connection.request("GET", f"{path}?{query}" if query else path, headers=headers)
        return self._connection.getresponse()

    def _connected(self, host: str, port: int) -> socket.socket:
        resolved = _lookups.submit(self._network.resolve, host, port).result(_left(self._ends))
        if not resolved or not all(map(_is_public, resolved)):
            raise _refused(self._parts.geturl(), "its host is not public")
        for address in resolved[:-1]:
            try:
                return self._network.connect(address, port, _left(self._ends) / 2)
            except OSError:
                continue
        return self._network.connect(resolved[-1], port, _left(self._ends))


class _TimedSocket:
    """What `http.client` needs of a socket; each call may last as long as the whole exchange has left."""

    def __init__(self, connected: socket.socket, ends: float) -> None:
        self._socket, self._ends = connected, ends

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_left(self._ends))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._socket, self._ends))

    def close(self) -> None:
        """The exchange closes the socket."""


class _TimedReader(io.RawIOBase):
    def __init__(self, connected: socket.socket, ends: float) -> None:
        self._socket, self._ends = connected, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_left(self._ends))
        return self._socket.recv_into(buffer)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _body(url: str, response: http.client.HTTPResponse, limit: int) -> bytes:
    if response.length is not None and response.length > limit:
        raise _refused(url, f"it has more than {limit} bytes")
    data = response.read(limit + 1)
    if len(data) > limit:
        raise _refused(url, f"it has more than {limit} bytes")
    if response.length:
        raise _failed(url, "its server ended the answer too early")
    return data


def _is_public(text: str) -> bool:
    try:
        return addresses.is_public(ipaddress.ip_address(text))
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    """Why an exchange failed, without the text of the error: it may come from the other server."""
    if isinstance(error, socket.gaierror):
        return "its host is unknown"
    if isinstance(error, ssl.SSLError):
        return "its server has no valid certificate"
    return "its server did not answer" if isinstance(error, OSError) else "its server does not speak HTTP"


def _refused(url: str, why: str) -> RefusedError:
    return RefusedError(f"{_short(url)} is not fetched", why, _HINT)


def _failed(url: str, why: str) -> InputError:
    return InputError(f"{_short(url)} could not be fetched", why, _HINT)


def _short(url: str) -> str:
    return url if len(url) <= 100 else f"{url[:97]}…"
