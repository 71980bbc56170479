"""Files on this machine: names that can be names, and reading that ends.

Only regular files are read. A pipe would be waited for, and a device may have no end. What a command line names as
`/dev/stdin` or `/dev/fd/N` is a stream that somebody means.
"""

import errno
import os
import re
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO

from plantml import concurrency
from plantml.errors import InputError, RefusedError

_STREAM = re.compile(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+")
_CHUNK = 1 << 20
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def name_of(text: str) -> str:
    """The path that a text names, with `~` expanded. Raises `InputError` if no file can be called so."""
    # Not of a Path, whose `./~name` would be somebody's home too.
    expanded = os.path.expanduser(text) if text.startswith("~") else text  # noqa: PTH111
    if expanded == text and text.startswith("~"):
        why = "no user of this machine is called so"
        raise InputError(f"There is no home folder {text!a}", why, "Write ./~name for a file that is called so.")
    try:
        is_name = b"\0" not in os.fsencode(expanded)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise InputError(
            f"No file can be called {text!a}",
            "its name holds a character that no name can have",
            "Choose another name.",
        )
    return expanded if expanded and not expanded.endswith("/") else str(Path(expanded))


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        RefusedError: it is something else, like a pipe or a device.
        OSError: as `open`.
    """
    return os.fdopen(_open(path)[0], "rb")


def read_file(path: str, limit: int) -> bytes:
    """All bytes of a file, or of a stream that is named as one.

    Raises:
        RefusedError: it is something else, or has more than `limit` bytes.
        StoppedError: a signal asked for the end while a stream was waited for.
        OSError: as `open`.
    """
    if _STREAM.fullmatch(path) and not stat.S_ISREG(Path(path).stat().st_mode):
        return _read_stream(Path(path), limit)
    handle, size = _open(path)
    try:
        if size > limit:
            raise too_large(path, limit)
        data = os.read(handle, size + 1)
        if len(data) == size:
            return data
        # It changes, or is one of those that say a size of 0, or has more than one call reads.
        parts, total = [data], len(data)
        while part := os.read(handle, _CHUNK):
            parts.append(part)
            total += len(part)
            if total > limit:
                raise too_large(path, limit)
        return b"".join(parts)
    finally:
        os.close(handle)


def too_large(url: str, limit: int) -> RefusedError:
    """The error for a file beyond a limit in bytes."""
    return RefusedError(f"{url} is not read", f"it is larger than {limit / 2**30:g} GiB", "Name a smaller file.")


def _open(path: Path | str) -> tuple[int, int]:
    """The handle of a regular file, open for reading, and its size in bytes. Raises as `open_file`."""
    try:
        # Opening a pipe would else wait for somebody who writes, and opening a terminal could make it ours.
        handle = os.open(path, os.O_RDONLY | _BINARY | _AT_ONCE)
    except OSError:
        _check_kind(path, os.stat(path).st_mode)  # noqa: PTH116 - a socket cannot be opened at all
        raise
    try:
        status = os.fstat(handle)
        _check_kind(path, status.st_mode)
    except BaseException:
        os.close(handle)
        raise
    return handle, status.st_size


_BINARY = getattr(os, "O_BINARY", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)


def _check_kind(path: Path | str, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            raise RefusedError(f"{path} is not read", f"it is {kind}, not a file", "Remove it, or name a regular file.")


def _read_stream(path: Path, limit: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    with path.open("rb", buffering=0) as file:
        started = time.monotonic()
        while True:
            if not select.select([file], [], [], 0.1)[0]:
                concurrency.heed(f"Stopped while waiting for {path}", started)
                continue
            part = file.read(_CHUNK)
            if not part:
                return b"".join(parts)
            parts.append(part)
            total += len(part)
            if total > limit:
                raise too_large(str(path), limit)
