"""Read one file: on this machine, in a far storage, or in an archive."""

import contextlib
import os
import tempfile
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from plantml.errors import NotFoundError, RefusedError, StorageError
from plantml.storage import local_files, remote
from plantml.storage.byte_ranges import Held, Local, Ranges
from plantml.storage.filesystem import explained, open_filesystem
from plantml.storage.urls import IN_ARCHIVE, basename, is_local, local_name, local_path

if TYPE_CHECKING:
    from plantml.storage.archives import Archive, Member

MAX_PHOTO = 1 << 30
"""Bytes of one photo, as of one member of an archive."""

MAX_FILE = 16 << 30
"""Bytes of any other file that is read as a whole: a model, a table, an archive in an archive."""

_MAX_FETCHED = 1 << 40  # of a file whose server gives no parts of it: as much as the members of an archive may have
_OPEN_ARCHIVES = 4
_archives: dict[tuple[str, str], tuple[str, "Archive"]] = {}
_archives_lock = threading.RLock()  # an archive may lie in an archive


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a listing.

    Attributes:
        url: where its bytes are.
        name: its path relative to what was listed, with forward slashes.
        size: in bytes; -1 where the storage does not tell.
        stamp: changes when the content changes: ETag, or size and modification time in ns.
        modified: seconds since 1970 of its last change; 0 where the storage does not tell.
    """

    url: str
    name: str
    size: int
    stamp: str
    modified: float = 0.0


def read(url: str, limit: int = MAX_FILE) -> bytes:
    """The bytes at `url`.

    Raises:
        NotFoundError: there is nothing.
        RefusedError: it is no regular file, or has more than `limit` bytes.
        StoppedError: a signal asked for the end while a far storage was waited for.
        StorageError: it could not be read, after retries where the cause may pass.
    """
    with explained(url, "read"):
        if is_local(url):
            return local_files.read_file(local_name(url), limit)
        if place := open_archived(url):
            return place[0].read(place[1])
        fs, path = open_filesystem(url)
        data: bytes = remote.ask(fs, "cat_file", path, url=url, limit=limit)
        return data


def open_local(url: str) -> BinaryIO:
    """The file of a local URL, open for reading. Raises as `read`."""
    with explained(url, "read"):
        return local_files.open_file(local_path(url))


def read_head(url: str, length: int) -> bytes:
    """The first `length` bytes at `url`, or all where there are fewer. Raises as `read`."""
    with explained(url, "read"):
        if is_local(url):
            with local_files.open_file(local_path(url)) as file:
                return file.read(length)
        if IN_ARCHIVE.match(url):
            return read(url)[:length]
        fs, path = open_filesystem(url)
        data: bytes = remote.ask(fs, "cat_file", path, start=0, end=length, url=url, limit=MAX_PHOTO)
        return data[:length]


def ranges(url: str) -> Ranges:
    """Where parts of the file at `url` can be read; all of it is fetched first where that is the only way.

    Raises as `read`.
    """
    with explained(url, "read"):
        if is_local(url):
            return Local(open_local(url))
        if IN_ARCHIVE.match(url):
            return Held(read(url))
        far = _FarRanges(url)
        return far if far.in_ranges() else Local(_fetched(url))


def exists(url: str) -> bool:
    """True if there is a file or directory at `url`."""
    with explained(url, "look up"):
        if is_local(url):
            return local_path(url).exists()
        if IN_ARCHIVE.match(url):
            return _exists_archived(url)
        fs, path = open_filesystem(url)
        fs.invalidate_cache()  # others write too: a remembered listing is no answer
        return bool(remote.ask(fs, "exists", path, url=url))


def is_dir(url: str) -> bool:
    """True if `url` is a directory (or, in an object store, a prefix of objects)."""
    with explained(url, "look up"):
        if is_local(url):
            return local_path(url).is_dir()
        if IN_ARCHIVE.match(url):
            return _exists_archived(url, folder=True)
        fs, path = open_filesystem(url)
        fs.invalidate_cache()
        return bool(remote.ask(fs, "isdir", path, url=url))


def stat(url: str) -> Entry:
    """Size and stamp of one file. Raises `NotFoundError` or `StorageError`."""
    with explained(url, "look up"):
        if is_local(url):
            return local_entry(url, basename(url), local_path(url).stat())
        if place := open_archived(url, fresh=True):
            return archived_entry(url, basename(url), place[0].member(place[1]))
        fs, path = open_filesystem(url)
        fs.invalidate_cache()
        return remote_entry(url, basename(url), remote.ask(fs, "info", path, url=url))


def local_entry(url: str, name: str, stat_: os.stat_result) -> Entry:
    """The entry of a local file."""
    return Entry(url, name, stat_.st_size, f"{stat_.st_size}-{stat_.st_mtime_ns}", stat_.st_mtime)


def remote_entry(url: str, name: str, info: dict[str, Any]) -> Entry:
    """The entry of a file from what fsspec says of it."""
    size = info.get("size")
    size = -1 if size is None else int(size)
    tag = info.get("ETag") or info.get("etag") or info.get("crc") or info.get("CRC")
    changed = info.get("LastModified") or info.get("mtime") or info.get("created") or ""
    modified = changed.timestamp() if isinstance(changed, datetime) else 0.0
    return Entry(url, name, size, str(tag).strip('"') if tag else f"{size}-{changed}", modified)


def archived_entry(url: str, name: str, member: "Member") -> Entry:
    """The entry of a member of an archive."""
    return Entry(url, name, member.size, member.stamp)


def open_archived(url: str, *, fresh: bool = False) -> "tuple[Archive, str] | None":
    """The open archive and the member's name of `zip://member::URL`; `None` for what lies in no archive.

    Opening reads the archive's directory, so the last few stay open. `fresh` opens again one that changed.
    """
    head, chain, outer = url.partition("::")
    match = IN_ARCHIVE.match(head)
    if match is None or not chain:
        return None
    key, name = (match[1], outer), head[match.end() :].strip("/")
    with _archives_lock:
        stamp, archive = _archives.pop(key, ("", None))
        now = stat(outer).stamp if archive is None or fresh or is_local(outer) else stamp
        if archive is None or now != stamp:
            archive = _open_archive(outer, match[1])
        _archives[key] = now, archive
        while len(_archives) > _OPEN_ARCHIVES:
            _archives.pop(next(iter(_archives)))  # its file closes when the last reader lets go of it
    return archive, name


def _open_archive(url: str, kind: str) -> "Archive":
    from plantml.storage import archives

    data = ranges(url)
    return archives.Archive(url, kind, data, far=isinstance(data, _FarRanges))


def _fetched(url: str) -> IO[bytes]:
    """A whole remote file as a temporary one that has no name."""
    fs, path = open_filesystem(url)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the archive
    with explained(url, "read"):
        remote.fetch_into(file, fs, path, url, _MAX_FETCHED)
        file.flush()
    return file


class _FarRanges:
    """Parts of a file in a far storage."""

    def __init__(self, url: str) -> None:
        self._url, self.size = url, stat(url).size
        self._fs, self._path = open_filesystem(url)

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer only at the end."""
        end = min(start + length, self.size)
        if end <= start:
            return b""
        with explained(self._url, "read"):
            data = self._ask(start, end)
        if len(data) != end - start:
            raise StorageError(f"Could not read a part of {self._url}", "it changed meanwhile", "Repeat the command.")
        return data

    def in_ranges(self) -> bool:
        """False where a server tells no size, or sends the whole file whatever is asked for."""
        if self.size <= 0:
            return False
        with explained(self._url, "read"):
            try:
                return len(self._ask(0, 1)) == 1
            except RefusedError:  # far more came
                return False

    def _ask(self, start: int, end: int) -> bytes:
        limit = max(end - start, 1 << 20)
        data: bytes = remote.ask(self._fs, "cat_file", self._path, start=start, end=end, url=self._url, limit=limit)
        return data


def _exists_archived(url: str, *, folder: bool = False) -> bool:
    try:
        place = open_archived(url, fresh=True)
    except NotFoundError:
        return False
    if place is None:
        return False
    archive, name = place
    if archive.is_dir(name):
        return True
    with contextlib.suppress(FileNotFoundError):
        return not folder and bool(archive.member(name))
    return False
