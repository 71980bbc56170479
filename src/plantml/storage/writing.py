"""Write files whole or not at all; create one that nobody else has created."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plantml.errors import InputError, PlantmlError, StorageError
from plantml.storage import remote
from plantml.storage.filesystem import BROKEN_DISK, NO_ROOM, ROOM_HINT, explained, open_filesystem, system_error
from plantml.storage.reading import exists
from plantml.storage.urls import absolute, basename, is_local, join, local_name, local_path, split

_OF_DATASETS = {"images", "versions", "tags", "derived"}
_LOST_RACE = 412
"""Precondition failed: the status of HTTP by which a store refuses to create what is there."""


def check_output(*urls: str | None) -> None:
    """Raise `InputError` if a result would be written into a bundle or among the files of a dataset.

    Args:
        urls: of files or folders to write; `None` is none.
    """
    for url in filter(None, urls):
        folder, _ = split(absolute(url))
        if exists(join(folder, "model.json")):
            raise _owned(url, f"{folder} is the folder of a model")
        while folder:
            folder, name = split(folder)
            if name in _OF_DATASETS and exists(join(folder, "versions", "000001.parquet")):
                raise _owned(url, f"{join(folder, name)} belongs to the dataset {folder}")
            if not name:
                break


def _owned(url: str, why: str) -> InputError:
    return InputError(f"{url} cannot be written", why, "Choose another place.")


def write(url: str, data: bytes, *, durable: bool = False) -> None:
    """Publish `data` at `url`, replacing what was there. Never a half-written file at that name.

    `durable`: on a local disk wait until it would outlive a power failure.
    """
    with explained(url, "write"):
        if is_local(url):
            _replace(local_name(url), data, durable=durable)
            return
        fs, path = open_filesystem(url)
        remote.ask(fs, "pipe_file", path, data, url=url, is_write=True)


def create(url: str, data: bytes) -> None:
    """Publish `data` at `url` only if nothing is there: of several writers exactly one wins.

    Raises:
        AlreadyExistsError: somebody was first; what is there is untouched.
        StorageError: it could not be written.
    """
    with explained(url, "create"):
        if is_local(url):
            with _scratch(local_path(url), data, durable=True) as scratch:
                os.link(scratch, local_path(url))
            return
        fs, path = open_filesystem(url)
        try:
            remote.Request(fs, "pipe_file", path, data, mode="create", url=url, is_write=True).answer()
        except Exception as error:
            # Filesystems of fsspec differ in how they say that the race was lost; callers see one answer.
            if remote.status(error) == _LOST_RACE:
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
        with explained(url, "write"):
            scratch = stack.enter_context(_scratch(target, b""))
        try:
            yield Path(scratch)
        except PlantmlError:
            raise
        except Exception as error:
            number = system_error(error, Path(scratch))
            if number not in NO_ROOM | BROKEN_DISK:
                raise  # what else goes wrong in the block is not the storage's fault
            hint = ROOM_HINT if number in NO_ROOM else "Repeat the command; what was finished is kept."
            raise StorageError(f"Could not write {url}", remote.short(error), hint) from error
        with explained(url, "write"):
            if is_local(url):
                os.replace(scratch, target)  # noqa: PTH105
            else:
                fs, path = open_filesystem(url)
                remote.ask(fs, "put_file", scratch, path, url=url, is_write=True)


def publish(url: str, files: Mapping[str, bytes], *, last: str = "") -> None:
    """Write files under a directory URL, side by side where that helps, the one called `last` after all others.

    A reader that finds `last` finds everything.
    """
    names = [name for name in files if name != last]
    with ThreadPoolExecutor(1 if is_local(url) else 8) as pool:
        list(pool.map(lambda name: write(join(url, name), files[name]), names))
    if last:
        write(join(url, last), files[last])


def remove(url: str) -> None:
    """Remove one file; nothing happens if it is not there."""
    with explained(url, "remove"), contextlib.suppress(FileNotFoundError):
        if is_local(url):
            local_path(url).unlink()
        else:
            fs, path = open_filesystem(url)
            remote.Request(fs, "rm_file", path, url=url, is_write=True).answer()


def make_folder(path: Path) -> None:
    """Make a folder on this machine, and those around it, if it is not there. Raises `StorageError`."""
    with explained(str(path), "make"):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(
                f"Could not make the folder {path}", "a file is in its place", "Move the file, or name another folder."
            ) from error


def _replace(target: str, data: bytes, *, durable: bool) -> None:
    scratch = _scratch_name(target)
    try:
        _fill(scratch, data, durable=durable)
        os.replace(scratch, target)  # noqa: PTH105
    except BaseException:
        _discard(scratch)
        raise
    if durable:
        _keep_names(Path(target).parent)


@contextlib.contextmanager
def _scratch(target: Path, data: bytes, *, durable: bool = False) -> Iterator[str]:
    """A finished file beside `target`, gone afterwards if it was not moved."""
    scratch = _scratch_name(str(target))
    try:
        _fill(scratch, data, durable=durable)
        yield scratch
    finally:
        _discard(scratch)


def _scratch_name(target: str) -> str:
    folder, name = os.path.split(target)
    # Not mkstemp: its files are private, and the umask cannot be read without setting it for all threads.
    return f"{folder or '.'}/.{name[:40]}.{os.urandom(6).hex()}.part"


def _fill(file: str, data: bytes, *, durable: bool) -> None:
    """Create a file with these bytes, in a folder that is made if it is not there."""
    handle = _created(file)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def _created(file: str) -> int:
    try:
        return os.open(file, _NEW, 0o666)
    except (FileNotFoundError, NotADirectoryError):
        make_folder(Path(file).parent)
        return os.open(file, _NEW, 0o666)


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _discard(scratch: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(scratch)  # noqa: PTH108


def _keep_names(folder: Path) -> None:
    """Wait until the disk has a folder's names; where folders cannot be opened it does so by itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def now_utc() -> str:
    """The time, ISO 8601 in UTC to the second, as it is written into commits and records."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
