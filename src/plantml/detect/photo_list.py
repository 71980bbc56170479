"""Compact storage for many images: the list of photos, and the journal position of each."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from plantml.storage.addresses import NOT_ALLOWED

if TYPE_CHECKING:
    from plantml.model.covariates import CovariateRow

_BLOCK = 512
_PENDING = 2048


@dataclass(frozen=True, slots=True)
class Source:
    """One image; `stamp` changes with its content, and is empty if it would cost a request.

    For an image that must not be read, the stamp is the reason: `not-allowed: …`. `covariates` are the values of its
    table that the model takes, as one JSON object; empty if there are none.
    """

    url: str
    stamp: str
    covariates: str = ""

    @property
    def refusal(self) -> str:
        """Why it must not be read; empty if it may be."""
        return self.stamp if self.stamp.startswith(f"{NOT_ALLOWED}: ") else ""

    @property
    def key(self) -> bytes:
        """16 bytes that identify this image, its content and its covariates."""
        return _hash("\0".join(self.fields))

    @property
    def fields(self) -> list[str]:
        """What identifies it, as text."""
        return [self.url, self.stamp, *([self.covariates] if self.covariates else [])]

    @property
    def covariate_row(self) -> "CovariateRow | None":
        """Its covariates."""
        row: CovariateRow | None = json.loads(self.covariates) if self.covariates else None
        return row


class Positions:
    """Numbers by 16-byte keys, in 24 bytes each: a Python dict would take ten times that."""

    def __init__(self) -> None:
        self._keys = np.empty(0, "S16")
        self._numbers = np.empty(0, np.int64)
        self._pending: dict[bytes, int] = {}

    def __setitem__(self, key: bytes, number: int) -> None:
        self._pending[key] = number
        if len(self._pending) >= max(_PENDING, len(self._keys) // 64):  # keeps merging rare
            self._merge()

    def __getitem__(self, key: bytes) -> int:
        """The number of a key; -1 if it is not there."""
        if key in self._pending:
            return self._pending[key]
        index = int(self._keys.searchsorted(np.array(key, "S16")))
        # numpy strips trailing zeros from bytes
        is_known = index < len(self._keys) and bytes(self._keys[index]) == key.rstrip(b"\0")
        return int(self._numbers[index]) if is_known else -1

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
    """Images in order, each URL once, in about 30 bytes each, most of them for its hash."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._last: list[Source] = []
        self._positions = Positions()
        self._count = 0

    def add(self, source: Source) -> bool:
        """Append an image. False if its URL is already in the list."""
        key = _hash(source.url)
        if key in self._positions:
            return False
        self._positions[key] = self._count
        self._count += 1
        self._last.append(source)
        if len(self._last) == _BLOCK:
            text = "\0".join(field for each in self._last for field in (each.url, each.stamp, each.covariates))
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
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> list[Source]: ...
    def __getitem__(self, index: int | slice) -> Source | list[Source]:
        if isinstance(index, slice):
            return list(self)[index]
        block, row = divmod(range(self._count)[index], _BLOCK)
        return (self._unpacked(block) if block < len(self._packed) else self._last)[row]

    def digest(self) -> str:
        """16 hexadecimal digits of a SHA-256 that identify these URLs in this order."""
        digest = hashlib.sha256()
        for source in self:
            digest.update(source.url.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()[:16]

    def _unpacked(self, number: int) -> list[Source]:
        parts = zlib.decompress(self._packed[number]).decode("utf-8", "surrogateescape").split("\0")
        return [Source(*fields) for fields in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
