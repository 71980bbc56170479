"""Files on this machine: names that can be names, and reading that ends.

Only regular files are read. A pipe would be waited for, and a device may have no end. What a command line names as
`/dev/stdin` or `/dev/fd/N` is a stream that somebody means.
"""

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


def path_of(text: str) -> Path:
    """The path that a text names, with `~` expanded. Raises `InputError` if no file can be called so."""
    expanded = os.path.expanduser(text)  # noqa: PTH111 - of a Path, `./~name` would be somebody's home too
    if expanded == text and text.startswith("~"):
        why = "no user of this machine is called so"
        raise InputError(f"There is no home folder {text!a}", why, "Write ./~name for a file that is called so.")
    path = Path(expanded)
    try:
        is_name = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise InputError(
            f"No file can be called {text!a}",
            "its name holds a character that no name can have",
            "Choose another name.",
        )
    return path


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        RefusedError: it is something else, like a pipe or a device.
        OSError: as `open`.
    """
    try:
        file = open(path, "rb", opener=_opened_at_once)  # noqa: SIM115 - the caller closes it
    except OSError:
        _check_kind(path, path.stat().st_mode)  # a socket cannot be opened at all
        raise
    try:
        _check_kind(path, os.fstat(file.fileno()).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: Path, limit: int) -> bytes:
    """All bytes of a file, or of a stream that is named as one.

    Raises:
        RefusedError: it is something else, or has more than `limit` bytes.
        StoppedError: a signal asked for the end while a stream was waited for.
        OSError: as `open`.
    """
    if _STREAM.fullmatch(str(path)) and not stat.S_ISREG(path.stat().st_mode):
        return _read_stream(path, limit)
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise too_large(str(path), limit)
        data = file.read(size + 1)
        if len(data) <= size:
            return data
        # It grows, or is one of those that say a size of 0.
        parts, total = [data], len(data)
        while part := file.read(_CHUNK):
            parts.append(part)
            total += len(part)
            if total > limit:
                raise too_large(str(path), limit)
        return b"".join(parts)


def too_large(url: str, limit: int) -> RefusedError:
    """The error for a file beyond a limit in bytes."""
    return RefusedError(f"{url} is not read", f"it is larger than {limit / 2**30:g} GiB", "Name a smaller file.")


def _opened_at_once(path: str, flags: int) -> int:
    # Opening a pipe would else wait for somebody who writes, and opening a terminal could make it ours.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _check_kind(path: Path, mode: int) -> None:
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
