"""Which addresses that stand inside data may be opened.

What a user types is opened as it is. What a list, an annotation file or a manifest names is somebody else's word: it
may lie around the file that names it, or under a root that the user allows, and nowhere else. `refusal` decides.
"""

import ipaddress
import posixpath
import re
import socket
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from plantml import storage
from plantml.errors import InputError, UsageError

NOT_ALLOWED = "not-allowed"
"""Code of a failure or an excluded row: the address was not opened."""

ANYWHERE = ""
"""A root that allows every local path and every public host: for what a user pipes in, such as the output of `find`."""

LISTS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt", ".lst", ".yaml", ".yml"})
"""Extensions of files that name photos around them."""

_ANNOTATIONS = frozenset({".json", ".xml"})
"""Extensions of files that name photos in a folder beside their own, too."""

Lookup = Callable[[str], Iterable[str]]
"""From a host's name to its IP addresses."""

_WITH_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")
_COLONS_OF_A_HOST = re.compile(r"://\[[^\]]*::")
_ARCHIVES = {"zip", "tar"}
_BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory", "hf"}
"""Protocols whose first part names a bucket or the like, and no host to connect to."""

_WEB = {"http", "https"}
_LOCAL = {"file", "local"}
_PORTS = {"http": ":80", "https": ":443", "ftp": ":21"}
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PUBLIC6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
_SPECIAL6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""Networks that are not public, by the IANA registries of special-purpose addresses; `is_global` alone lets multicast,
6to4 and IPv4-compatible addresses pass. 2001::/23 holds Teredo, 2002::/16 is 6to4."""


def look_up(host: str) -> list[str]:
    """The IP addresses of a host; none where its name leads nowhere."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):
        return []


@dataclass(frozen=True)
class Trust:
    """What a user allows data to name.

    Attributes:
        roots: local folders and URLs, as `--allow-root` gives them; one without a host, such as `https://`, allows
            every public one.
        offline: no socket is opened for an address whose host the user did not name.
    """

    roots: tuple[str, ...] = ()
    offline: bool = False
    _hosts: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, roots: Iterable[str] | None, *, offline: bool = False) -> "Trust":
        """Of the values of `--allow-root`. Raises `UsageError` for one that is no address."""
        roots = tuple(roots or ())
        for root in roots:
            if not root.strip() or _places(root) is None:
                raise UsageError(f"--allow-root {root!r} is no address", "", "Name a folder or a URL.")
        return cls(tuple(storage.absolute(root) for root in roots), offline)

    def refusal(self, address: str, own: Sequence[str]) -> str:
        """Why an address is not opened, and what allows it; empty if it may be. Hosts are looked up once.

        Args:
            address: as it would be opened.
            own: roots that the user named by naming the data, see `around`.
        """
        if own and _is_plainly_under(address, own[0]):
            return ""
        return refusal(address, (*own, *self.roots), offline=self.offline, lookup=self._look_up)

    def _look_up(self, host: str) -> list[str]:
        if host not in self._hosts:
            self._hosts[host] = look_up(host)
        return self._hosts[host]


def around(source: str) -> str:
    """The root that a user names by naming a source: a folder or an archive itself, or what lies around a list.

    Annotations in JSON and XML usually lie in a folder beside that of their photos, so theirs is the folder above.
    """
    if place := storage.inside(source):
        return place
    ending = storage.suffix(source)
    if ending not in LISTS | _ANNOTATIONS:
        return source
    folder = storage.split(source)[0] or "."
    if ending not in _ANNOTATIONS:
        return folder
    above = storage.split(storage.absolute(folder))[0]
    places = _places(above) if above else None
    # All of a disk, or of a storage, is not what lies around a file.
    is_whole = not places or (places[0].path == "/" and not (places[0].host and places[0].protocol in _BUCKETS))
    return folder if is_whole else above


def own_roots(source: str, name: str) -> tuple[str, ...]:
    """The roots that a user names for one photo by naming its source.

    A photo whose name leads up was found under the folder above its annotations.
    """
    above = (storage.split(source)[0],) if name.startswith("../") else ()
    return (around(source), *above)


def refusal(address: str, roots: Sequence[str], *, offline: bool = False, lookup: Lookup = look_up) -> str:
    """Why an address that stands inside data is not opened, and what allows it; empty if it may be.

    It must lie under a root. `..`, `file://` and, in web addresses, `%2e` are resolved first; what lies in an archive
    is where the archive is. Hosts of this machine and of private networks must stand in the root itself.

    Args:
        address: as it would be opened; a local path may be relative to the working directory.
        roots: local folders and URLs; one without a host allows every public one, `ANYWHERE` all of them.
        offline: a remote address needs a root with its host or bucket.
        lookup: asked only for a host that no root names, and not if `offline`.
    """
    places = _places(address)
    if places is None:
        return "it is no plain address"
    outer = places[-1]
    matching = [known for root in roots if (known := _root(root)) is not None and _is_under(places, known)]
    hint = f"allow it with --allow-root {_suggested(places)}"
    if not matching:
        return f"it lies outside the source that names it; {hint}"
    if not outer.protocol or any(known and known[-1].host for known in matching):
        return ""
    if offline:
        return f"it is remote, and --offline is given; {hint}"
    if outer.protocol not in _BUCKETS and is_private(outer.host, lookup):
        return f"{_hostname(outer.host) or 'its host'} is not a public host; {hint}"
    return ""


def is_private(host: str, lookup: Lookup = look_up) -> bool:
    """True for a host on this machine or in a network that is not public, however it is written.

    Args:
        host: a name or an IP address, in any form that a system's resolver takes (`127.1`, `0x7f000001`, `[::1]`),
            perhaps with a port.
        lookup: asked for the addresses of a name; one that leads nowhere is not private.
    """
    name = _hostname(host)
    if not name or name == "localhost" or name.endswith((".localhost", ".localdomain")):
        return True
    literal = _literal(name)
    return any(
        address is not None and not is_public(address)
        for address in ([literal] if literal else map(_literal, lookup(name)))
    )


def is_public(address: _Address) -> bool:
    """True for an address that anybody on the internet may reach.

    Not one of loopback, private, link-local, shared (RFC 6598), multicast or reserved networks, nor one that leads into
    those: IPv4-mapped, IPv4-compatible, 6to4, Teredo. One of NAT64 is as public as the IPv4 address in it.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _PUBLIC6 and not any(address in network for network in _SPECIAL6)
    return not any(address in network for network in _SPECIAL4)


@dataclass(frozen=True, slots=True)
class _Place:
    """One link of a chain: `zip://member::s3://bucket/a.zip` has two."""

    protocol: str  # empty for a local path
    host: str  # or bucket, with the port if it is not the usual one
    path: str  # absolute, without `..`


def _places(address: str) -> tuple[_Place, ...] | None:
    """The links of an address; `None` if it is none that can be judged."""
    if _COLONS_OF_A_HOST.search(address):  # fsspec would take them for a chain
        return None
    *inner, last = address.split("::")
    places = [
        _Place(match[1].lower(), "", _normal(match[2])) for link in inner if (match := _WITH_PROTOCOL.match(link))
    ]
    outer = _place(last)
    return (*places, outer) if outer and len(places) == len(inner) else None


def _place(url: str) -> _Place | None:
    match = _WITH_PROTOCOL.match(url)
    if match is None or match[1].lower() in _LOCAL:
        try:
            return _Place("", "", storage.absolute(match[2] if match else url))
        except InputError:  # no file can be called so
            return None
    protocol = match[1].lower()
    if protocol in _BUCKETS:
        host, _, path = match[2].partition("/")
        return _Place(protocol, host, _normal(path))
    try:
        parts = urlsplit(f"{protocol}://{match[2]}")
        host, port = (parts.hostname or ""), f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return None
    if _CONTROL.search(parts.netloc):
        return None
    port = "" if port == _PORTS.get(protocol) else port
    path = unquote(parts.path) if protocol in _WEB else match[2].partition("/")[2]
    return _Place(protocol, f"[{host}]{port}" if ":" in host else host + port, _normal(path))


def _normal(path: str) -> str:
    return posixpath.normpath("/" + path.replace("\\", "/").lstrip("/"))


@lru_cache(256)
def _root(root: str) -> tuple[_Place, ...] | None:
    return () if root == ANYWHERE else _places(root)


def _is_under(places: tuple[_Place, ...], root: tuple[_Place, ...]) -> bool:
    if not root:
        return all(place.protocol in _ARCHIVES for place in places[:-1])
    depth = len(places) - len(root)
    if depth < 0 or places[depth + 1 :] != root[1:]:
        return False
    top, place = root[0], places[depth]
    above = top.path.rstrip("/") + "/"
    return (
        all(link.protocol in _ARCHIVES for link in places[:depth])
        and place.protocol == top.protocol
        and (top.host == place.host if top.host else top.path == "/" or not top.protocol or top.protocol in _ARCHIVES)
        and f"{place.path}/".startswith(above)
    )


def _is_plainly_under(address: str, root: str) -> bool:
    """True for most of what a listing gives, in a fraction of the time that taking it apart needs."""
    rest = address.removeprefix(f"{root}/")
    return rest != address and not any(mark in rest for mark in ("..", "::", "%", "\\", "\0"))


def _suggested(places: tuple[_Place, ...]) -> str:
    """The folder around an address, as `--allow-root` takes it."""
    place = places[-1]
    folder = place.path if len(places) > 1 else posixpath.dirname(place.path)
    return f"{place.protocol}://{place.host}{folder}" if place.protocol else folder


def _hostname(host: str) -> str:
    """The host without its port, as a resolver understands it: wide digits and dots are plain ones."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    plain = unicodedata.normalize("NFKC", unquote(name)).replace("\u3002", ".")
    return plain.rstrip(".").lower()


def _literal(name: str) -> _Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))  # 127.1, 2130706433, 0x7f000001
    except (OSError, ValueError):
        return None
