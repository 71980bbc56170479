"""Filesystems far away, and errors that say what to do."""

import errno
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from plantml.errors import AlreadyExistsError, MissingExtraError, NotFoundError, PlantmlError, StorageError
from plantml.storage import object_store, remote
from plantml.storage.urls import is_local

ROOM_HINT = "Make room, or name another place, and repeat the command; what was finished is kept."
_MEMORY_HINT = "Close other programs, or work on less at once."
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL = 64 << 10  # bytes that are left on a disk to which nothing more can be written
BROKEN_DISK = {errno.EIO, errno.EROFS}
_NO_NAME = {errno.ENAMETOOLONG, errno.ELOOP}


def open_filesystem(url: str, *, by_fsspec: bool = False) -> tuple[Any, str]:
    """The filesystem of a URL, and the path in it: a bucket of obstore where that can be, else one of fsspec."""
    if not by_fsspec and (bucket := object_store.opened(url)):
        return bucket
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url)
    return fs, str(path)


class explained:  # noqa: N801 - reads as a verb where it is used
    """Turn what a filesystem raises into an error that says what to do."""

    def __init__(self, url: str, verb: str) -> None:
        self._url, self._verb = url, verb

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, PlantmlError):
            _explain(error, self._url, self._verb)


def _explain(raised: Exception, url: str, verb: str) -> NoReturn:
    try:
        raise raised  # noqa: TRY301 - to sort it by its type
    except FileExistsError as error:
        raise AlreadyExistsError(
            f"{url} exists already", "somebody else wrote it first", "Choose another name, or remove it."
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"Nothing found at {url}", "", "Check the path; for s3:// also the bucket.") from error
    except IsADirectoryError as error:
        raise NotFoundError(f"{url} is a directory", "a file was expected", "Name a file in it.") from error
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
        hint = ROOM_HINT if error.errno in NO_ROOM else "Try again; nothing was lost."
        raise StorageError(f"Could not {verb} {url}", remote.short(error), hint) from error
    except Exception as error:
        if is_local(url):
            raise
        # Remote filesystems raise whatever their client library raises.
        raise StorageError(
            f"Could not {verb} {url}", remote.short(error), "Check the URL, credentials, network."
        ) from error


def system_error(error: Exception, file: Path) -> int | None:
    """The operating system's number for what went wrong while a file was written; `None` if it was something else.

    Libraries in Rust put the number into their text, or lose it: polars says `transport error` of a full disk.
    """
    if isinstance(error, OSError):
        return error.errno
    if match := re.search(r"\(os error (\d+)\)", str(error)):
        return int(match[1])
    return errno.ENOSPC if shutil.disk_usage(file.parent).free < _FULL else None
