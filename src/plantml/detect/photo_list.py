"""Many images in little memory: what was found, and where each one's record is."""

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from plantml.storage.addresses import NOT_ALLOWED

_BLOCK = 512
_PENDING = 2048


@dataclass(frozen=True, slots=True)
class Source:
    """One image to look at; `stamp` changes when its content does, and is empty where that costs a request.

    Of one that is not to be read, the stamp is why: `not-allowed: …`.
    """

    url: str
    stamp: str

    @property
    def refusal(self) -> str:
        """Why its bytes are not read; empty if they are."""
        return self.stamp if self.stamp.startswith(f"{NOT_ALLOWED}: ") else ""

    @property
    def key(self) -> bytes:
        """16 bytes that name this content of this image."""
        return _hash(f"{self.url}\0{self.stamp}")


class Places:
    """Numbers by 16-byte keys, 24 bytes for each: a dict of Python's would take ten times that."""

    def __init__(self) -> None:
        self._keys = np.empty(0, "S16")
        self._numbers = np.empty(0, np.int64)
        self._pending: dict[bytes, int] = {}

    def __setitem__(self, key: bytes, number: int) -> None:
        self._pending[key] = number
        if len(self._pending) >= max(_PENDING, len(self._keys) // 64):  # so that merging stays rare
            self._merge()

    def __getitem__(self, key: bytes) -> int:
        """The number of a key; -1 where there is none."""
        if key in self._pending:
            return self._pending[key]
        place = int(self._keys.searchsorted(np.array(key, "S16")))
        # numpy's bytes come back without the zeros at their end
        found = place < len(self._keys) and bytes(self._keys[place]) == key.rstrip(b"\0")
        return int(self._numbers[place]) if found else -1

    def __contains__(self, key: bytes) -> bool:
        return self[key] >= 0

    def _merge(self) -> None:
        keys = np.array(sorted(self._pending), "S16")
        numbers = np.array([self._pending[key] for key in sorted(self._pending)], np.int64)
        places = self._keys.searchsorted(keys)
        inside = np.minimum(places, max(0, len(self._keys) - 1))
        known = self._keys[inside] == keys if len(self._keys) else np.zeros(len(keys), bool)
        self._numbers[places[known]] = numbers[known]
        self._keys = np.insert(self._keys, places[~known], keys[~known])
        self._numbers = np.insert(self._numbers, places[~known], numbers[~known])
        self._pending.clear()


class PhotoList(Sequence[Source]):
    """Sources in their order, each URL once, packed: about 30 bytes for each, by far most of them for its hash."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._last: list[Source] = []
        self._seen = Places()
        self._count = 0

    def add(self, source: Source) -> bool:
        """Put one at the end. False if its URL is in the list already: the first one stays."""
        key = _hash(source.url)
        if key in self._seen:
            return False
        self._seen[key] = self._count
        self._count += 1
        self._last.append(source)
        if len(self._last) == _BLOCK:
            text = "\0".join(part for each in self._last for part in (each.url, each.stamp))
            self._packed.append(zlib.compress(text.encode("utf-8", "surrogateescape"), 1))
            self._last = []
        return True

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Source]:
        for number in range(len(self._packed)):
            yield from self._unpacked(number)
        yield from list(self._last)

    @overload
    def __getitem__(self, at: int) -> Source: ...
    @overload
    def __getitem__(self, at: slice) -> list[Source]: ...
    def __getitem__(self, at: int | slice) -> Source | list[Source]:
        if isinstance(at, slice):
            return list(self)[at]
        place = range(self._count)[at]
        block, row = divmod(place, _BLOCK)
        return (self._unpacked(block) if block < len(self._packed) else self._last)[row]

    def digest(self) -> str:
        """Names this list of URLs in this order: 16 hexadecimal digits of a SHA-256."""
        found = hashlib.sha256()
        for source in self:
            found.update(source.url.encode("utf-8", "surrogateescape") + b"\0")
        return found.hexdigest()[:16]

    def _unpacked(self, number: int) -> list[Source]:
        parts = zlib.decompress(self._packed[number]).decode("utf-8", "surrogateescape").split("\0")
        return [Source(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
