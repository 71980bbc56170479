"""Files inside zip and tar archives, read where they lie: nothing is unpacked under its own name.

An archive is untrusted. Names that could leave a folder, links and devices are passed over and counted; a
member, or an archive as a whole, that grows beyond the limits below is refused. `plantml.storage` is the
only user: it brings the bytes, from a local disk or from afar.
"""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from plantml import concurrency
from plantml.errors import InputError
from plantml.storage.byte_ranges import Local, Ranges

MAX_MEMBER = 1 << 30
"""Bytes of one member when unpacked: 1 GiB."""

MAX_TOTAL = 1 << 40
"""Bytes of all members when unpacked: 1 TiB."""

MAX_RATIO = 200
"""Unpacked size over packed size. Photos stay below 2, annotations below 50; a bomb is above 1000."""

FREE = 64 << 20
"""Bytes that may be unpacked whatever their ratio: a small, very regular file is no bomb."""

UNSAFE, LINK, TWICE = "unsafe name in the archive", "link or device in the archive", "repeated name in the archive"
ODD = "stored in a way that is not read"

_CHUNK = 4 << 20
_HEADER = 64 << 20  # no header of a tar member is longer, unless somebody means harm
_LOCAL = 30  # bytes of a zip member's own header before its name
_BLOCK = 512  # of a tar; zeros mark its end
_STORED, _DEFLATED, _BZIP2 = 0, 8, 12
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ArithmeticError,
    LookupError,
    RecursionError,
    ValueError,
)
"""What the readers of the standard library raise for bytes that make no sense."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive.

    Attributes:
        name: its path in the archive, with forward slashes.
        size: in bytes, unpacked.
        stamp: changes when the content changes.
        start: where its header (zip) or its content (tar) begins.
        packed: its bytes in the archive.
        method: how it is packed; zip's numbers.
        crc: of a zip's member; -1 where there is none.
    """

    name: str
    size: int
    stamp: str
    start: int
    packed: int
    method: int = _STORED
    crc: int = -1


class Archive:
    """The members of one archive; safe to read from several threads.

    Args:
        url: for messages.
        kind: `zip` or `tar`.
        data: the archive's bytes. A compressed tar, and one that `far` says is slow to seek in, is copied
            once to a temporary file that has no name.
        far: true where each read is a request to another machine.

    Raises:
        InputError: it is no archive of that kind, is damaged, or grows beyond the limits.
    """

    def __init__(self, url: str, kind: str, data: Ranges, *, far: bool = False) -> None:
        self.url = url
        self.skipped: Counter[str] = Counter()
        self._data = data
        self._members: dict[str, Member] = {}
        self._kind = kind
        try:
            found = self._zip(data) if kind == "zip" else self._tar(far=far)
            total, started = 0, time.monotonic()
            for member in found:
                concurrency.heed(f"Stopped while reading {url}", started)
                total += member.size
                self._check_size(member.name, member.size)
                _check_growth(url, total, data.size)
                if member.name in self._members:
                    self.skipped[TWICE] += 1
                self._members[member.name] = member
        except _BROKEN as error:
            raise _damaged(url, error) from error
        except NotImplementedError as error:
            raise InputError(f"{url} cannot be read", str(error), "Fetch or make the archive again.") from error
        self._folders = {
            name[:cut] for name in self._members for cut in range(len(name)) if name[cut] == "/"
        }  # fmt: skip

    def members(self) -> Iterator[Member]:
        """All files that may be read, in the order of their names."""
        for name in sorted(self._members):
            yield self._members[name]

    def member(self, name: str) -> Member:
        """One file. Raises `FileNotFoundError`."""
        try:
            return self._members[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def is_dir(self, name: str) -> bool:
        """True if files lie under that name; the empty name is the archive itself."""
        return not name or name in self._folders

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            FileNotFoundError: there is none of that name.
            InputError: it is damaged, encrypted, or larger than it said.
        """
        member = self.member(name)
        packed = self._packed(member)
        if member.method == _STORED:
            data = packed
        else:
            try:
                data = _inflate(member, packed)
            except (zlib.error, OSError, EOFError, ValueError) as error:
                raise _damaged(f"{name} in {self.url}", error) from error
        if len(data) != member.size or (member.crc >= 0 and zlib.crc32(data) != member.crc):
            raise _damaged(f"{name} in {self.url}", ValueError("its bytes are not those that the archive promises"))
        return data

    def _packed(self, member: Member) -> bytes:
        if self._kind == "tar":
            return self._data.read(member.start, member.packed)
        # The member's own header repeats its name and may hold more than the directory's does: one read
        # that nearly always covers both, and a second where it does not.
        guess = _LOCAL + len(member.name.encode()) + 256
        data = self._data.read(member.start, guess + member.packed)
        if data[:4] != b"PK\x03\x04":
            raise _damaged(f"{member.name} in {self.url}", ValueError("its header is not where it should be"))
        begin = _LOCAL + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")
        if begin + member.packed > len(data):
            return self._data.read(member.start + begin, member.packed)
        return data[begin : begin + member.packed]

    def _check_size(self, name: str, size: int) -> None:
        if size > MAX_MEMBER:
            raise InputError(
                f"{self.url} is refused",
                f"{name!r} would be {size / 2**30:.1f} GiB; the limit is {MAX_MEMBER >> 30} GiB",
                "Unpack it, and name the folder.",
            )

    def _pass_over(self, name: str, *, regular: bool) -> bool:
        reason = UNSAFE if not safe_name(name) else "" if regular else LINK
        if reason:
            self.skipped[reason] += 1
        return bool(reason)

    def _zip(self, data: Ranges) -> Iterator[Member]:
        with zipfile.ZipFile(io.BufferedReader(_File(data), 1 << 16)) as file:
            for info in file.infolist():
                if info.is_dir():
                    continue
                mode = stat.S_IFMT(info.external_attr >> 16)
                if self._pass_over(info.orig_filename, regular=mode in {0, stat.S_IFREG}):
                    continue
                if info.flag_bits & 1 or info.compress_type not in {_STORED, _DEFLATED, _BZIP2}:
                    self.skipped[ODD] += 1
                    continue
                stamp = f"{info.CRC:08x}-{info.file_size}"
                yield Member(
                    info.filename, info.file_size, stamp, info.header_offset, info.compress_size,
                    info.compress_type, info.CRC,
                )  # fmt: skip

    def _tar(self, *, far: bool) -> Iterator[Member]:
        opener = _opener(self._data.read(0, 6))
        if opener is not None or far:
            self._data = _copied(self.url, self._data, opener)
        file = _File(self._data, _HEADER)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            place = -1
            while (info := tar.next()) is not None:
                if info.size < 0 or tar.offset <= place:
                    raise tarfile.ReadError("its members lead back to the start")
                place = tar.offset
                tar.members = []  # type: ignore[attr-defined]  # it would keep a million of them
                if info.isdir():
                    continue
                name = info.name.removeprefix("./")
                if self._pass_over(name, regular=info.isreg()):
                    continue
                if info.issparse():
                    self.skipped[ODD] += 1
                    continue
                if info.offset_data + info.size > self._data.size:
                    raise EOFError(f"it ends in the middle of {name!r}")
                stamp = f"{info.size}-{info.mtime}-{info.chksum}"
                yield Member(name, info.size, stamp, info.offset_data, info.size)
            # Where a header makes no sense, or the file is cut off between two members, tarfile only stops,
            # and the rest would be missing without a word.
            if self._data.read(tar.offset, _BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError(f"the header at byte {tar.offset} is damaged, or the end is missing")


def safe_name(name: str) -> bool:
    """True for a plain relative path: nothing in it leads out of a folder, or is no path at all."""
    parts = name.split("/")
    drive = len(parts[0]) > 1 and parts[0][1] == ":"
    odd = any(sign in name for sign in ("\\", "\0", "::", "://"))
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name) and not odd and not drive and not {"", ".", ".."} & set(parts)


class _File(io.RawIOBase):
    """Ranges as a file with a place in it; no single read may be longer than `limit` bytes."""

    def __init__(self, data: Ranges, limit: int | None = None) -> None:
        self._data, self._place, self._limit = data, 0, limit

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._data.size)[whence])
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._data.size - self._place)
        wanted = left if size is None or size < 0 else min(size, left)
        if self._limit is not None and wanted > self._limit:
            raise ValueError(f"a header of {wanted} bytes")
        data = self._data.read(self._place, wanted)
        self._place += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _opener(head: bytes) -> Any:
    if head[:2] == b"\x1f\x8b":
        return gzip.open
    if head[:3] == b"BZh":
        return bz2.open
    return lzma.open if head == b"\xfd7zXZ\0" else None


def _copied(url: str, data: Ranges, opener: Any) -> Ranges:
    """The bytes, unpacked by `opener`, in a temporary file without a name: going back in it costs nothing."""
    whole = io.BufferedReader(_File(data), _CHUNK)
    source: IO[bytes] = opener(whole) if opener else whole
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the archive
    total, started = 0, time.monotonic()
    while chunk := _read_packed(url, source):
        concurrency.heed(f"Stopped while reading {url}", started)
        total += len(chunk)
        _check_growth(url, total, data.size)
        file.write(chunk)
    file.flush()
    return Local(file)


def _read_packed(url: str, source: IO[bytes]) -> bytes:
    try:
        return source.read(_CHUNK)
    except OSError as error:  # what gzip and bz2 raise for bytes that make no sense
        raise _damaged(url, error) from error


def _check_growth(url: str, unpacked: int, packed: int) -> None:
    if unpacked > MAX_TOTAL:
        raise InputError(f"{url} is refused", f"it unpacks to more than {MAX_TOTAL >> 40} TiB", "Import it in parts.")
    if unpacked > FREE and unpacked > MAX_RATIO * packed:
        raise InputError(
            f"{url} is refused",
            f"it unpacks to more than {MAX_RATIO} times its size, as archives do that are made to fill a disk",
            "If you trust it, unpack it yourself and import the folder.",
        )


def _inflate(member: Member, packed: bytes) -> bytes:
    """At most one byte more than the member says it has, so that a liar is found out and memory is safe."""
    if member.method == _BZIP2:
        return bz2.BZ2Decompressor().decompress(packed, member.size + 1)
    return zlib.decompressobj(-15).decompress(packed, member.size + 1)


def _damaged(what: str, error: Exception) -> InputError:
    return InputError(f"{what} is damaged or no such archive", str(error) or type(error).__name__, "Fetch it again.")
