"""The one door to bytes: every path in plantml is a URL that passes through here.

A URL is a local path or anything that fsspec understands (`s3://`, `gs://`, `memory://`,
`zip://x.zip::s3://…`). Credentials come from where the ecosystem keeps them. Local paths take a
direct road without fsspec, so that a command on local files pays nothing for the others.

What lies in a zip or tar archive is read by `zip://member::URL` and `tar://member::URL`, from several
threads at once and without unpacking; `inside` gives the URL of all that an archive holds.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from glob import glob as glob_local
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from plantml import concurrency
from plantml.concurrency import batched, in_threads
from plantml.errors import (
    AlreadyExistsError,
    DamagedError,
    MissingExtraError,
    NotFoundError,
    PlantmlError,
    RefusedError,
    StoppedError,
    StorageError,
)
from plantml.storage import local_files, remote, s3_listing

if TYPE_CHECKING:
    from plantml.storage.archives import Archive, Member, Ranges

FETCH_BATCH = 32
"""Objects asked for at once: 16 to 64 hide 20 ms of latency, more only costs memory."""

MAX_PHOTO = 1 << 30
"""Bytes of one photo, as of one member of an archive."""

MAX_FILE = 16 << 30
"""Bytes of any other file that is read as a whole: a model, a table, an archive in an archive."""

_MAX_FETCHED = 1 << 40  # of an archive whose server gives no parts of it: as much as its members may have
_ARCHIVE_THREADS = 8
_AHEAD_THREADS, _AHEAD_BYTES = 2, 64 << 20
_ARCHIVES = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tar.xz": "tar",
}
"""How a file's name ends that is taken for an archive, and the protocol of what is in it."""


_PROTOCOL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+://")
_ROOTS = ("://", ":///")
_IN_ARCHIVE = re.compile(r"(zip|tar)://")
_LOST_RACE = re.compile(r"pre-?condition|already exists|\b412\b", re.IGNORECASE)
_ROOM_HINT = "Make room, or name another place, and repeat the command; what was finished is kept."
_MEMORY_HINT = "Close other programs, or work on less at once."
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL = 64 << 10  # bytes that are left on a disk to which nothing more can be written
_BROKEN_DISK = {errno.EIO, errno.EROFS}
_NO_NAME = {errno.ENAMETOOLONG, errno.ELOOP}


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


@dataclass
class Links:
    """What becomes of symbolic links to folders in one listing of a local folder.

    A link is followed if it leads to a place inside the listed folder or under one of `roots`, but not back to a
    folder that it lies in. Links to files are followed wherever they lead: who owns the folder made them.

    Attributes:
        roots: other folders whose content may be reached by links.
        outside: links that were not followed, by name, and where they lead.
        back: names of links that lead back to a folder around them, or were followed from elsewhere before.
        dead: names of links to nothing.
    """

    roots: Sequence[str] = ()
    outside: dict[str, str] = field(default_factory=dict)
    back: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> dict[str, int]:
        """How many links were not followed, by reason."""
        counts = {LINK_OUTSIDE: len(self.outside), LINK_BACK: len(self.back), LINK_DEAD: len(self.dead)}
        return {reason: count for reason, count in counts.items() if count}

    @property
    def note(self) -> str:
        """A sentence that names links which lead elsewhere, and the flag that follows them; empty without any."""
        if not self.outside:
            return ""
        shown = ", ".join(f"{name} -> {target}" for name, target in list(self.outside.items())[:3])
        more = f" and {len(self.outside) - 3} more" if len(self.outside) > 3 else ""
        root = os.path.commonpath(self.outside.values())
        root = next(iter(self.outside.values())) if root == "/" else root
        return f"Links to folders elsewhere are not followed: {shown}{more}. To follow them: --allow-root {root}"


LINK_OUTSIDE, LINK_BACK, LINK_DEAD = "link to a folder elsewhere", "link back to a folder listed before", "dead link"


# --- names ------------------------------------------------------------------------------------


def is_local(url: str) -> bool:
    """True for a path on this machine's file system, written plainly or as `file://`."""
    return "::" not in url and (not _PROTOCOL.match(url) or url.startswith("file://"))


def local_path(url: str) -> Path:
    """The path of a local URL, with `~` expanded.

    Raises:
        InputError: no file can be called so.
        ValueError: it is another URL.
    """
    if not is_local(url):
        raise ValueError(url)
    return local_files.path_of(url.removeprefix("file://"))


def absolute(url: str) -> str:
    """The URL as it means the same from any working directory, without a trailing slash."""
    if is_local(url):
        return str(Path(os.path.abspath(local_path(url))))  # noqa: PTH100 - resolve() follows links
    head, chain, rest = url.partition("::")
    head = head if head.endswith(_ROOTS) else head.rstrip("/")
    return head + chain + absolute(rest) if chain else head


def join(url: str, *parts: str) -> str:
    """`url` with path segments appended; in a chain (`zip://…::s3://…`) to its first link."""
    head, chain, rest = url.partition("::")
    for part in parts:
        head = head + part if head.endswith(_ROOTS) or not head else f"{head.rstrip('/')}/{part}"
    return head + chain + rest


def split(url: str) -> tuple[str, str]:
    """The parent of a URL and its last path segment; the parent may be empty."""
    head, chain, rest = url.partition("::")
    stripped = head if head.endswith(_ROOTS) else head.rstrip("/")
    cut = stripped.rfind("/") + 1
    parent = stripped[:cut]
    return (parent if parent.endswith(_ROOTS) or parent == "/" else parent.rstrip("/")) + chain + rest, stripped[cut:]


def basename(url: str) -> str:
    """The last path segment of a URL."""
    return split(url)[1]


def suffix(url: str) -> str:
    """The extension of a URL, lower case, with its dot (`.jpg`), or an empty string."""
    return os.path.splitext(basename(url))[1].lower()  # noqa: PTH122 - a URL is no Path


def reference(ref: str, names: str) -> tuple[str, str | None]:
    """`URL@7` as its URL and `7`; the `@` counts only at the end of the last path segment, and in no archive.

    Args:
        ref: of a dataset or of a model.
        names: regular expression of what may stand there but for a number.
    """
    parent, last = split(ref)
    match = re.fullmatch(rf"(.+)@(\d+|{names})", last)
    if match is None or "::" in ref:
        return absolute(ref), None
    return absolute(join(parent, match[1]) if parent else match[1]), match[2]


def is_unicode(name: str) -> bool:
    """False for the name of a local file that holds bytes which are no UTF-8; Python keeps them as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def inside(url: str) -> str:
    """The directory URL of what an archive holds (`zip://::URL`); an empty string if it is not called like one."""
    name = basename(url).lower()
    kind = next((kind for end, kind in _ARCHIVES.items() if name.endswith(end)), "")
    return f"{kind}://::{url}" if kind and not _IN_ARCHIVE.match(url) else ""


# --- reading ----------------------------------------------------------------------------------


def read(url: str, limit: int = MAX_FILE) -> bytes:
    """The bytes at `url`.

    Raises:
        NotFoundError: there is nothing.
        RefusedError: it is no regular file, or has more than `limit` bytes.
        StoppedError: a signal asked for the end while a far storage was waited for.
        StorageError: it could not be read, after retries where the cause may pass.
    """
    with _explained(url, "read"):
        if is_local(url):
            return local_files.read_file(local_path(url), limit)
        if place := _archived(url):
            return place[0].read(place[1])
        fs, path = _filesystem(url)
        data: bytes = remote.ask(fs, "cat_file", path, url=url, limit=limit)
        return data


def open_local(url: str) -> BinaryIO:
    """The file of a local URL, open for reading. Raises as `read`."""
    with _explained(url, "read"):
        return local_files.open_file(local_path(url))


def read_head(url: str, length: int) -> bytes:
    """The first `length` bytes at `url`, or all where there are fewer. Raises as `read`."""
    with _explained(url, "read"):
        if is_local(url):
            with local_files.open_file(local_path(url)) as file:
                return file.read(length)
        if _IN_ARCHIVE.match(url):
            return read(url)[:length]
        fs, path = _filesystem(url)
        data: bytes = remote.ask(fs, "cat_file", path, start=0, end=length, url=url, limit=MAX_PHOTO)
        return data[:length]


def read_many(urls: Iterable[str], limit: int = MAX_FILE) -> Iterator[tuple[str, bytes | PlantmlError]]:
    """The bytes of many URLs, in order, remote ones fetched `FETCH_BATCH` at a time.

    What cannot be read comes back as its error, in its place; nothing is raised for one object.
    """
    for batch in batched(urls, FETCH_BATCH):
        yield from zip(batch, _read_batch(batch, limit), strict=True)


def read_ahead(urls: Iterable[str], limit: int = MAX_FILE) -> Iterator[tuple[str, bytes | PlantmlError]]:
    """As `read_many`, some batches ahead of whoever works on the bytes, who then seldom waits for a far storage.

    About 64 MiB are held, less where objects are small; larger ones come in smaller batches.
    """
    todo, size = iter(urls), 4

    def batches() -> Iterator[list[str]]:
        while batch := list(islice(todo, size)):
            yield batch

    def fetched(batch: list[str]) -> list[tuple[str, bytes | PlantmlError]]:
        return list(zip(batch, _read_batch(batch, limit), strict=True))

    for found in in_threads(fetched, batches(), _AHEAD_THREADS):
        length = sum(len(data) for _, data in found if isinstance(data, bytes)) // len(found)
        # Twice as many as threads are under way, one waits, one is in use.
        size = min(FETCH_BATCH, max(1, _AHEAD_BYTES // (2 * _AHEAD_THREADS + 2) // max(1, length)))
        yield from found


def _read_batch(urls: list[str], limit: int) -> list[bytes | PlantmlError]:
    found: dict[str, bytes | PlantmlError] = {}
    far: dict[int, tuple[Any, dict[str, str]]] = {}
    archived: list[str] = []
    for url in urls:
        if is_local(url):
            found[url] = _read_or_error(url, limit)
            continue
        if _IN_ARCHIVE.match(url):
            archived.append(url)
            continue
        try:
            with _explained(url, "read"):
                fs, path = _filesystem(url)
        except PlantmlError as error:
            found[url] = error
            continue
        far.setdefault(id(fs), (fs, {}))[1][url] = path
    if archived:
        threads = 1 if is_local(archived[0].rpartition("::")[2]) else _ARCHIVE_THREADS
        found |= zip(
            archived, in_threads(lambda url: _read_or_error(url, limit), archived, threads), strict=True
        )  # fmt: skip
    for fs, paths in far.values():
        found |= _read_far(fs, paths, limit)
    return [found[url] for url in urls]


def _read_far(fs: Any, paths: Mapping[str, str], limit: int) -> dict[str, bytes | PlantmlError]:
    """Files of one filesystem, by URL, asked for together; what fails so is asked for alone."""
    answers = remote.ask_each(fs, "cat_file", list(dict.fromkeys(paths.values())), limit=limit)
    found: dict[str, bytes | PlantmlError] = {}
    for url, path in paths.items():
        answer = answers[path]
        if isinstance(answer, bytes):
            found[url] = answer
        elif isinstance(answer, TimeoutError | PlantmlError):  # would take as long again
            found[url] = _read_or_error(url, limit, answer)
        else:
            found[url] = _read_or_error(url, limit)
    return found


def _read_or_error(url: str, limit: int, known: Exception | None = None) -> bytes | PlantmlError:
    try:
        with _explained(url, "read"):
            if known is not None:
                raise known
            return read(url, limit)
    except StoppedError:
        raise
    except PlantmlError as error:
        return error


def exists(url: str) -> bool:
    """True if there is a file or directory at `url`."""
    with _explained(url, "look up"):
        if is_local(url):
            return local_path(url).exists()
        if _IN_ARCHIVE.match(url):
            return _exists_archived(url)
        fs, path = _filesystem(url)
        fs.invalidate_cache()  # others write too: a remembered listing is no answer
        return bool(remote.ask(fs, "exists", path, url=url))


def is_dir(url: str) -> bool:
    """True if `url` is a directory (or, in an object store, a prefix of objects)."""
    with _explained(url, "look up"):
        if is_local(url):
            return local_path(url).is_dir()
        if _IN_ARCHIVE.match(url):
            return _exists_archived(url, folder=True)
        fs, path = _filesystem(url)
        fs.invalidate_cache()
        return bool(remote.ask(fs, "isdir", path, url=url))


def stat(url: str) -> Entry:
    """Size and stamp of one file. Raises `NotFoundError` or `StorageError`."""
    with _explained(url, "look up"):
        if is_local(url):
            return _local_entry(url, basename(url), local_path(url).stat())
        if place := _archived(url, fresh=True):
            return _archived_entry(url, basename(url), place[0].member(place[1]))
        fs, path = _filesystem(url)
        fs.invalidate_cache()
        return _remote_entry(url, basename(url), remote.ask(fs, "info", path, url=url))


def list_files(url: str, links: Links | None = None) -> Iterator[Entry]:
    """All files under a directory URL, recursively, in the order of their names.

    Local directories are walked without following links to directories, unless `links` says which.

    Args:
        url: of the directory.
        links: takes down the links that were passed over.

    Raises:
        NotFoundError: there is no such directory.
        StorageError: it could not be listed.
    """
    with _explained(url, "list"):
        if is_local(url):
            yield from _list_local(url, links)
            return
        if place := _archived(url, fresh=True):
            entries = _list_archived(url, *place)
        else:
            fs, path = _filesystem(url)
            fs.invalidate_cache()
            if hasattr(fs, "call_s3"):
                yield from _list_s3(url, fs, path)
                return
            found = remote.ask(fs, "find", path, detail=True, url=url)
            if not found and not remote.ask(fs, "exists", path, url=url):
                raise FileNotFoundError(path)
            base = path.rstrip("/")
            entries = [
                _remote_entry(join(url, name), name, info)
                for full, info in found.items()
                if (name := full[len(base) :].lstrip("/")) and info.get("type") != "directory"
            ]
    yield from sorted(entries, key=lambda entry: entry.name)


def _list_s3(url: str, fs: Any, path: str) -> Iterator[Entry]:
    """Page by page: the client's own `find` holds all that it is told of each object."""
    bucket, _, key = path.partition("/")

    def ask(**asked: Any) -> s3_listing.Page:
        answer: s3_listing.Page = remote.ask(fs, "call_s3", "list_objects_v2", url=url, **asked, **fs.req_kw)
        return answer

    empty = True
    for name, size, tag, modified in s3_listing.in_order(
        s3_listing.of_s3(ask, bucket, f"{key.rstrip('/')}/" if key else "")
    ):
        empty = False
        yield Entry(join(url, name), name, size, tag.strip('"') or f"{size}-{modified}", modified)
    if empty and not remote.ask(fs, "exists", path, url=url):
        raise FileNotFoundError(path)


def _list_local(url: str, links: Links | None) -> Iterator[Entry]:
    """Folder by folder, so that memory does not grow with their number, in the order of the whole names."""
    root = local_path(url)
    if not root.is_dir():
        raise FileNotFoundError(root)
    follower = None if links is None else _LinkFollower(root, links)
    under, started = [""], time.monotonic()
    while under:
        concurrency.heed(f"Stopped while listing {url}", started)
        name = under.pop()
        # Joined only now: a million Paths are slow, and as many long names are large.
        full = os.path.join(root, name.rstrip("/"))  # noqa: PTH118
        if not name or name.endswith("/"):
            # A folder sorts by its name with the slash, as the names of its files do. The last one is taken first.
            with os.scandir(full) as found:
                names = [_listed_name(name, item, follower) for item in found]
            names.sort(reverse=True)
            under += [name + part for part in names if part]
            continue
        try:
            stat_ = os.stat(full)  # noqa: PTH116
        except OSError as error:
            # Gone since it was listed, or a link to nothing or to itself.
            if not isinstance(error, FileNotFoundError) and error.errno != errno.ELOOP:
                raise
            if links is not None and os.path.islink(full):  # noqa: PTH114
                links.dead.append(name)
            continue
        yield _local_entry(join(url, name), name, stat_)


def _listed_name(folder: str, item: "os.DirEntry[str]", follower: "_LinkFollower | None") -> str:
    """The name of a file, or of a folder with a slash, as it is to be listed; empty for a link that is not followed."""
    if not item.is_symlink():
        return f"{item.name}/" if item.is_dir() else item.name
    if not os.path.isdir(item.path):  # noqa: PTH112 - item.is_dir() fails on a link to itself
        return item.name
    is_followed = follower is not None and follower.follows(f"{folder}{item.name}", item.path)
    return f"{item.name}/" if is_followed else ""


class _LinkFollower:
    """Decides on the links to folders in one listing. Each is followed once, so that listing ends."""

    def __init__(self, root: Path, links: Links) -> None:
        self._links = links
        self._roots = [os.path.realpath(place) for place in (root, *map(local_path, filter(is_local, links.roots)))]
        self._followed: dict[str, str] = {}
        """The real folder that holds a link, by its name in the listing."""

        self._seen: set[str] = set()

    def follows(self, name: str, path: str) -> bool:
        """True if the link called `name` at `path` is to be followed; else it is taken down."""
        target, holder = os.path.realpath(path), os.path.realpath(os.path.dirname(path))  # noqa: PTH120
        if not any(_is_within(target, root) for root in self._roots):
            self._links.outside[name] = target
            return False
        link = os.path.join(holder, os.path.basename(path))  # noqa: PTH118, PTH119
        around = (holder, *(self._followed[outer] for outer in _folders_of(name) if outer in self._followed))
        if link in self._seen or any(_is_within(place, target) for place in around):
            self._links.back.append(name)
            return False
        self._seen.add(link)
        self._followed[name] = holder
        return True


def _folders_of(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _is_within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _local_entry(url: str, name: str, stat_: os.stat_result) -> Entry:
    return Entry(url, name, stat_.st_size, f"{stat_.st_size}-{stat_.st_mtime_ns}", stat_.st_mtime)


def _remote_entry(url: str, name: str, info: dict[str, Any]) -> Entry:
    size = info.get("size")
    size = -1 if size is None else int(size)
    tag = info.get("ETag") or info.get("etag") or info.get("crc") or info.get("CRC")
    changed = info.get("LastModified") or info.get("mtime") or info.get("created") or ""
    modified = changed.timestamp() if isinstance(changed, datetime) else 0.0
    return Entry(url, name, size, str(tag).strip('"') if tag else f"{size}-{changed}", modified)


def has_pattern(url: str) -> bool:
    """True if the last segments of a URL hold `*`, `?` or `[` and nothing is there under that very name."""
    return any(mark in url for mark in "*?[") and not exists(url)


def glob(pattern: str, links: Links | None = None) -> list[Entry]:
    """Files whose URL matches `*`, `?`, `[…]` or `**`, in the order of their names.

    In what `**` stands for, links to folders are followed as `links` says.
    """
    with _explained(pattern, "list"):
        if is_local(pattern):
            return _glob_local(str(local_path(pattern)), links)
        if place := _archived(pattern, fresh=True):
            return _glob_archived(pattern, *place)
        fs, path = _filesystem(pattern)
        fs.invalidate_cache()
        matches = remote.ask(fs, "glob", path, detail=True, url=pattern)
        return [
            _remote_entry(str(fs.unstrip_protocol(full)), basename(full), info)
            for full, info in sorted(matches.items())
            if info.get("type") != "directory"
        ]


def _glob_local(pattern: str, links: Links | None) -> list[Entry]:
    if "**" not in pattern.split("/"):
        found = glob_local(pattern)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [stat(path) for path in sorted(found) if os.path.isfile(path)]  # noqa: PTH113
    # Python's own `**` follows every link, and links that lead back to each other without end.
    parts = pattern.split("/")
    fixed = next(at for at, part in enumerate(parts) if any(mark in part for mark in "*?["))
    root, rest = "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ""), parts[fixed:]
    if not os.path.isdir(root or "."):  # noqa: PTH112
        return []
    entries = _list_local(root or ".", links)
    return [replace(entry, url=f"{root}{'/' * (root not in ('', '/'))}{entry.name}", name=basename(entry.name))
            for entry in entries if _fits(entry.name.split("/"), rest)]  # fmt: skip


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """True if path segments match those of a pattern; hidden ones only where it says so itself."""
    if not parts:
        return not names
    if parts[0] == "**":
        return _fits(names, parts[1:]) or (bool(names) and not names[0].startswith(".") and _fits(names[1:], parts))
    is_hidden = bool(names) and names[0].startswith(".") and not parts[0].startswith(".")
    return bool(names) and not is_hidden and fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def passed_over(url: str) -> Mapping[str, int]:
    """How many members of an archive `list_files` does not give, by reason; nothing for any other URL."""
    with _explained(url, "list"):
        place = _archived(url)
        return dict(place[0].skipped) if place else {}


def ranges(url: str) -> "Ranges":
    """Where parts of the file at `url` can be read; all of it is read first where that is the only way.

    Raises as `read`.
    """
    from plantml.storage import archives

    with _explained(url, "read"):
        if is_local(url):
            return archives.Local(open_local(url))
        if not _IN_ARCHIVE.match(url):
            remote = _Remote(url)
            if remote.in_ranges():
                return remote
        return archives.Held(read(url))


# --- inside archives --------------------------------------------------------------------------

_OPEN_ARCHIVES = 4
_archives: dict[tuple[str, str], tuple[str, "Archive"]] = {}
_archives_lock = threading.RLock()  # an archive may lie in an archive


def _archived(url: str, *, fresh: bool = False) -> "tuple[Archive, str] | None":
    """The open archive and the member's name of `zip://member::URL`; `None` for what lies in no archive.

    Opening reads the archive's directory, so the last few stay open. `fresh` opens again one that changed.
    """
    head, chain, outer = url.partition("::")
    match = _IN_ARCHIVE.match(head)
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

    if is_local(url):
        return archives.Archive(url, kind, archives.Local(open_local(url)))
    if _IN_ARCHIVE.match(url):
        return archives.Archive(url, kind, archives.Held(read(url)))
    ranges = _Remote(url)
    if not ranges.in_ranges():
        return archives.Archive(url, kind, archives.Local(_fetched(url)))
    return archives.Archive(url, kind, ranges, far=True)


def _fetched(url: str) -> IO[bytes]:
    """A whole remote file as a temporary one that has no name."""
    fs, path = _filesystem(url)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the archive
    with _explained(url, "read"):
        remote.fetch_into(file, fs, path, url, _MAX_FETCHED)
        file.flush()
    return file


class _Remote:
    """Ranges of a remote file."""

    def __init__(self, url: str) -> None:
        self._url, self.size = url, stat(url).size
        self._fs, self._path = _filesystem(url)

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer only at the end."""
        end = min(start + length, self.size)
        if end <= start:
            return b""
        with _explained(self._url, "read"):
            data = self._ask(start, end)
        if len(data) != end - start:
            raise StorageError(f"Could not read a part of {self._url}", "it changed meanwhile", "Repeat the command.")
        return data

    def in_ranges(self) -> bool:
        """False where a server tells no size, or sends the whole file whatever is asked for."""
        if self.size <= 0:
            return False
        with _explained(self._url, "read"):
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
        place = _archived(url, fresh=True)
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


def _list_archived(url: str, archive: "Archive", folder: str) -> list[Entry]:
    if not archive.is_dir(folder):
        raise FileNotFoundError(folder)
    under = f"{folder}/" if folder else ""
    return [
        _archived_entry(join(url, name), name, member)
        for member in archive.members()
        if member.name.startswith(under) and (name := member.name[len(under) :])
    ]


def _glob_archived(pattern: str, archive: "Archive", name: str) -> list[Entry]:
    from fsspec.utils import glob_translate

    head, _, outer = pattern.partition("::")
    root = f"{head.partition('://')[0]}://::{outer}"
    wanted = re.compile(glob_translate(name))
    return [
        _archived_entry(join(root, member.name), basename(member.name), member)
        for member in archive.members()
        if wanted.match(member.name)
    ]


def _archived_entry(url: str, name: str, member: "Member") -> Entry:
    return Entry(url, name, member.size, member.stamp)


# --- writing ----------------------------------------------------------------------------------


def write(url: str, data: bytes, *, durable: bool = False) -> None:
    """Publish `data` at `url`, replacing what was there. Never a half-written file at that name.

    `durable`: on a local disk wait until it would outlive a power failure.
    """
    with _explained(url, "write"):
        if is_local(url):
            with _scratch(local_path(url), data, durable=durable) as scratch:
                os.replace(scratch, local_path(url))  # noqa: PTH105
            if durable:
                _keep_names(local_path(url).parent)
            return
        fs, path = _filesystem(url)
        remote.ask(fs, "pipe_file", path, data, url=url, is_write=True)


def create(url: str, data: bytes) -> None:
    """Publish `data` at `url` only if nothing is there: of several writers exactly one wins.

    Raises:
        AlreadyExistsError: somebody was first; what is there is untouched.
        StorageError: it could not be written.
    """
    with _explained(url, "create"):
        if is_local(url):
            with _scratch(local_path(url), data, durable=True) as scratch:
                os.link(scratch, local_path(url))
            return
        fs, path = _filesystem(url)
        try:
            remote.Request(fs, "pipe_file", path, data, mode="create", url=url, is_write=True).answer()
        except OSError as error:
            # Stores differ in how they say that the race was lost; callers see one answer.
            if isinstance(error, FileExistsError) or _LOST_RACE.search(str(error)):
                raise FileExistsError(str(error)) from error
            raise


@contextlib.contextmanager
def staged(url: str) -> Iterator[Path]:
    """A local file to fill, which becomes `url` in one step if the block ends well, and else is gone.

    Raises:
        StorageError: also if the disk is full, or fails, while the block writes.
    """
    target = local_path(url) if is_local(url) else Path(tempfile.gettempdir(), basename(url))
    with contextlib.ExitStack() as stack:
        with _explained(url, "write"):
            scratch = stack.enter_context(_scratch(target, b""))
        try:
            yield Path(scratch)
        except PlantmlError:
            raise
        except Exception as error:
            number = _system_error(error, Path(scratch))
            if number not in _NO_ROOM | _BROKEN_DISK:
                raise  # what else goes wrong in the block is not the storage's fault
            hint = _ROOM_HINT if number in _NO_ROOM else "Repeat the command; what was finished is kept."
            raise StorageError(f"Could not write {url}", remote.short(error), hint) from error
        with _explained(url, "write"):
            if is_local(url):
                os.replace(scratch, target)  # noqa: PTH105
            else:
                fs, path = _filesystem(url)
                remote.ask(fs, "put_file", scratch, path, url=url, is_write=True)


def make_folder(path: Path) -> None:
    """Make a folder on this machine, and those around it, if it is not there. Raises `StorageError`."""
    with _explained(str(path), "make"):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(
                f"Could not make the folder {path}", "a file is in its place", "Move the file, or name another folder."
            ) from error


def remove(url: str) -> None:
    """Remove one file; nothing happens if it is not there."""
    with _explained(url, "remove"), contextlib.suppress(FileNotFoundError):
        if is_local(url):
            local_path(url).unlink()
        else:
            fs, path = _filesystem(url)
            remote.Request(fs, "rm_file", path, url=url, is_write=True).answer()


def publish(url: str, files: Mapping[str, bytes], *, last: str = "") -> None:
    """Write files under a directory URL, side by side where that helps, the one called `last` after all others.

    A reader that finds `last` finds everything.
    """
    names = [name for name in files if name != last]
    with ThreadPoolExecutor(1 if is_local(url) else 8) as pool:
        list(pool.map(lambda name: write(join(url, name), files[name]), names))
    if last:
        write(join(url, last), files[last])


def _keep_names(folder: Path) -> None:
    """Wait until the disk has a folder's names; where folders cannot be opened it does so by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _scratch(target: Path, data: bytes, *, durable: bool = False) -> Iterator[str]:
    """A finished file beside `target`, gone afterwards if it was not moved."""
    make_folder(target.parent)
    # Not mkstemp: its files are private, and the umask cannot be read without setting it for all threads.
    scratch = str(target.parent / f".{target.name[:40]}.{os.urandom(6).hex()}.part")
    try:
        with open(scratch, "xb") as file:  # noqa: PTH123
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield scratch
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)  # noqa: PTH108


# --- a local cache of what is remote ----------------------------------------------------------


class Cache:
    """Bytes kept on this machine under the SHA-256 of their content, at most `limit` bytes in all.

    The least recently used go first. Several processes may share one folder.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._size: int | None = None

    def read(self, sha256: str, url: str, limit: int = MAX_FILE) -> bytes:
        """The bytes of `url`, whose content is known by its hash, from here or from there.

        Raises:
            StorageError: the storage's bytes are not those that the hash promised.
        """
        file = self.folder / sha256[:2] / sha256
        with contextlib.suppress(FileNotFoundError):
            data = file.read_bytes()
            os.utime(file)
            return data
        data = read(url, limit)
        check_sha256(data, sha256, url)
        write(str(file), data)
        self._grow(len(data))
        return data

    def _grow(self, size: int) -> None:
        if self._size is None:
            self._size = sum(entry.size for entry in list_files(str(self.folder)))
        else:
            self._size += size
        if self._size > self.limit:
            self._shrink()

    def _shrink(self) -> None:
        files = []
        for file in self.folder.glob("??/[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                files.append((file.stat().st_mtime, file.stat().st_size, file))
        size = sum(entry[1] for entry in files)
        for _, length, file in sorted(files):
            if size <= self.limit * 0.9:
                break
            file.unlink(missing_ok=True)
            size -= length
        self._size = size


def check_sha256(data: bytes, sha256: str, url: str) -> None:
    """Raise `DamagedError` if the bytes read from `url` are not those that the hash names."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise damaged(url, sha256)


def damaged(url: str, sha256: str) -> DamagedError:
    """The error for bytes that are not those that their hash names."""
    return DamagedError(
        f"{url} is damaged",
        f"its bytes do not have the SHA-256 {sha256[:12]}… that was written down for them",
        "Restore the file from a backup.",
    )


# --- fsspec, errors, retries ------------------------------------------------------------------


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url)
    return fs, str(path)


@contextlib.contextmanager
def _explained(url: str, verb: str) -> Iterator[None]:
    """Turn what a filesystem raises into an error that says what to do."""
    try:
        yield
    except PlantmlError:
        raise
    except FileExistsError as error:
        raise AlreadyExistsError(f"{url} exists already", "somebody else wrote it first") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"Nothing found at {url}", "", "Check the path; for s3:// also the bucket.") from error
    except IsADirectoryError as error:
        raise NotFoundError(f"{url} is a directory", "a file was expected") from error
    except PermissionError as error:
        raise StorageError(
            f"Not allowed to {verb} {url}", str(error), "Check the credentials or the file's permissions."
        ) from error
    except ImportError as error:
        raise MissingExtraError(f"Cannot {verb} {url}", str(error), "Install the package that it names.") from error
    except MemoryError as error:
        raise StorageError(f"Could not {verb} {url}", "memory is full", _MEMORY_HINT) from error
    except OSError as error:
        if error.errno in _NO_NAME:
            raise NotFoundError(f"Nothing can be at {url}", os.strerror(error.errno or 0), "Check the path.") from error
        hint = _ROOM_HINT if error.errno in _NO_ROOM else "Try again; nothing was lost."
        raise StorageError(f"Could not {verb} {url}", remote.short(error), hint) from error
    except Exception as error:
        if is_local(url):
            raise
        # Remote filesystems raise whatever their client library raises.
        raise StorageError(
            f"Could not {verb} {url}", remote.short(error), "Check the URL, credentials, network."
        ) from error


def _system_error(error: Exception, file: Path) -> int | None:
    """The operating system's number for what went wrong while a file was written; `None` if it was something else.

    Libraries in Rust put the number into their text, or lose it: polars says `transport error` of a full disk.
    """
    if isinstance(error, OSError):
        return error.errno
    if match := re.search(r"\(os error (\d+)\)", str(error)):
        return int(match[1])
    return errno.ENOSPC if shutil.disk_usage(file.parent).free < _FULL else None


def now_utc() -> str:
    """The time, ISO 8601 in UTC to the second, as it is written into commits and records."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
