"""List folders, buckets and archives, and find what matches a pattern."""

import errno
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import glob as glob_local
from typing import TYPE_CHECKING, Any

from plantml import concurrency
from plantml.storage import remote, s3_listing
from plantml.storage.filesystem import explained, open_filesystem
from plantml.storage.links import LinkFollower, Links
from plantml.storage.object_store import Bucket, Item, UnnameableError
from plantml.storage.reading import Entry, archived_entry, exists, local_entry, open_archived, remote_entry, stat
from plantml.storage.urls import basename, is_local, join, local_path

if TYPE_CHECKING:
    from plantml.storage.archives import Archive


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
    with explained(url, "list"):
        if is_local(url):
            yield from _list_local(url, links)
            return
        if place := open_archived(url, fresh=True):
            entries = _list_archived(url, *place)
        else:
            fs, path = open_filesystem(url)
            fs.invalidate_cache()
            if isinstance(fs, Bucket):
                try:
                    yield from _list_bucket(url, fs, path)
                except UnnameableError:
                    fs, path = open_filesystem(url, by_fsspec=True)
                else:
                    return
            if hasattr(fs, "call_s3"):
                yield from _list_s3(url, fs, path)
                return
            files = remote.ask(fs, "find", path, detail=True, url=url)
            if not files and not remote.ask(fs, "exists", path, url=url):
                raise FileNotFoundError(path)
            base = path.rstrip("/")
            entries = [
                remote_entry(join(url, name), name, info)
                for full, info in files.items()
                if (name := full[len(base) :].lstrip("/")) and info.get("type") != "directory"
            ]
    yield from sorted(entries, key=lambda entry: entry.name)


def _list_local(url: str, links: Links | None) -> Iterator[Entry]:
    """Folder by folder, so that memory does not grow with their number, in the order of the whole names."""
    root = local_path(url)
    if not root.is_dir():
        raise FileNotFoundError(root)
    follower = None if links is None else LinkFollower(root, links)
    under, started = [""], time.monotonic()
    while under:
        concurrency.heed(f"Stopped while listing {url}", started)
        name = under.pop()
        # Joined only now: a million Paths are slow, and as many long names are large.
        full = os.path.join(root, name.rstrip("/"))  # noqa: PTH118
        if not name or name.endswith("/"):
            # A folder sorts by its name with the slash, as the names of its files do. The last one is taken first.
            with os.scandir(full) as items:
                names = [_listed_name(name, item, follower) for item in items]
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
        yield local_entry(join(url, name), name, stat_)


def _listed_name(folder: str, item: "os.DirEntry[str]", follower: "LinkFollower | None") -> str:
    """The name of a file, or of a folder with a slash, as it is to be listed; empty for a link that is not followed."""
    if not item.is_symlink():
        return f"{item.name}/" if item.is_dir() else item.name
    if not os.path.isdir(item.path):  # noqa: PTH112 - item.is_dir() fails on a link to itself
        return item.name
    is_followed = follower is not None and follower.follows(f"{folder}{item.name}", item.path)
    return f"{item.name}/" if is_followed else ""


def _list_bucket(url: str, bucket: Bucket, key: str) -> Iterator[Entry]:
    def ask(listing: Iterator[Any]) -> list[Item] | None:
        page: list[Item] | None = remote.Request(bucket, "page", listing, key, url=url).answer()
        return page

    def begun() -> tuple[Iterator[Any], list[Item] | None]:
        listing = bucket.listing(key)
        return listing, ask(listing)

    def items() -> Iterator[Item]:
        listing, page = remote.retried(begun, url)
        while page is not None:
            yield from page
            page = ask(listing)

    yield from _entries(url, bucket, key, items())


def _entries(url: str, fs: Any, path: str, items: Iterator[Item]) -> Iterator[Entry]:
    """What is listed, by name. Raises `FileNotFoundError` if nothing is, and nothing is there."""
    empty = True
    for name, size, tag, modified in s3_listing.in_order(items):
        empty = False
        yield Entry(join(url, name), name, size, tag.strip('"') or f"{size}-{modified}", modified)
    if empty and not remote.ask(fs, "exists", path, url=url):
        raise FileNotFoundError(path)


def _list_s3(url: str, fs: Any, path: str) -> Iterator[Entry]:
    """Page by page: the client's own `find` holds all that it is told of each object."""
    bucket, _, key = path.partition("/")

    def ask(**asked: Any) -> s3_listing.Page:
        answer: s3_listing.Page = remote.ask(fs, "call_s3", "list_objects_v2", url=url, **asked, **fs.req_kw)
        return answer

    yield from _entries(url, fs, path, s3_listing.of_s3(ask, bucket, f"{key.rstrip('/')}/" if key else ""))


def _list_archived(url: str, archive: "Archive", folder: str) -> list[Entry]:
    if not archive.is_dir(folder):
        raise FileNotFoundError(folder)
    under = f"{folder}/" if folder else ""
    return [
        archived_entry(join(url, name), name, member)
        for member in archive.members()
        if member.name.startswith(under) and (name := member.name[len(under) :])
    ]


def has_pattern(url: str) -> bool:
    """True if the last segments of a URL hold `*`, `?` or `[` and nothing is there under that very name."""
    return any(mark in url for mark in "*?[") and not exists(url)


def glob(pattern: str, links: Links | None = None) -> list[Entry]:
    """Files whose URL matches `*`, `?`, `[…]` or `**`, in the order of their names.

    In what `**` stands for, links to folders are followed as `links` says.
    """
    with explained(pattern, "list"):
        if is_local(pattern):
            return _glob_local(str(local_path(pattern)), links)
        if place := open_archived(pattern, fresh=True):
            return _glob_archived(pattern, *place)
        fs, path = open_filesystem(pattern)
        fs.invalidate_cache()
        try:
            matches = remote.ask(fs, "glob", path, detail=True, url=pattern)
        except UnnameableError:
            fs, path = open_filesystem(pattern, by_fsspec=True)
            matches = remote.ask(fs, "glob", path, detail=True, url=pattern)
        return [
            remote_entry(str(fs.unstrip_protocol(full)), basename(full), info)
            for full, info in sorted(matches.items())
            if info.get("type") != "directory"
        ]


def _glob_local(pattern: str, links: Links | None) -> list[Entry]:
    if "**" not in pattern.split("/"):
        paths = glob_local(pattern)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [stat(path) for path in sorted(paths) if os.path.isfile(path)]  # noqa: PTH113
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


def _glob_archived(pattern: str, archive: "Archive", name: str) -> list[Entry]:
    from fsspec.utils import glob_translate

    head, _, outer = pattern.partition("::")
    root = f"{head.partition('://')[0]}://::{outer}"
    wanted = re.compile(glob_translate(name))
    return [
        archived_entry(join(root, member.name), basename(member.name), member)
        for member in archive.members()
        if wanted.match(member.name)
    ]


def passed_over(url: str) -> Mapping[str, int]:
    """How many members of an archive `list_files` does not give, by reason; nothing for any other URL."""
    with explained(url, "list"):
        place = open_archived(url)
        return dict(place[0].skipped) if place else {}
