"""Files that are called by a number, of which the next one is created only if it is not there.

Object stores cannot append, and a write cannot depend on an old value. So each new state is the next number
(`000001.json`, `000002.json`, …): of several writers one wins, and the others look again.
"""

import contextlib
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from plantml import storage
from plantml.errors import AlreadyExistsError, NotFoundError, StorageError

_TRIES = 200
_PAUSE, _PATIENCE = 0.01, 20
"""Seconds by which the longest wait grows with each lost race, and after how many it grows no more."""

T = TypeVar("T")


def list_numbers(url: str, ending: str) -> dict[int, storage.Entry]:
    """The numbered files of a folder, ascending; none where there is no such folder. Other files are ignored."""
    named = re.compile(rf"(\d{{6}}|[1-9]\d{{6,}}){re.escape(ending)}")
    try:
        matches = [(named.fullmatch(entry.name), entry) for entry in storage.list_files(url)]
    except NotFoundError:
        return {}
    return dict(sorted((int(match[1]), entry) for match, entry in matches if match))


def file_url(url: str, number: int, ending: str) -> str:
    """URL of a numbered file."""
    return storage.join(url, f"{number:06d}{ending}")


def create(url: str, number: int, ending: str, data: bytes) -> None:
    """Create a numbered file. `data` must differ from what other writers may write, or mean the same.

    Raises:
        AlreadyExistsError: another writer has the number.
    """
    file = file_url(url, number, ending)
    try:
        storage.create(file, data)
    except AlreadyExistsError:
        # The client of a store that answers late asks twice: then the writer who was faster is this one.
        with contextlib.suppress(NotFoundError):
            if storage.read(file) == data:
                return
        raise


def create_next(url: str, attempt: Callable[[], T]) -> T:
    """Create the next file of a folder, whoever else does so at the same time.

    Args:
        url: of the folder.
        attempt: reads what is there, decides, and calls `create` for the next number; called again when another
            writer took that number, so it must have no other effect.

    Raises:
        StorageError: others were faster again and again, or the storage failed.
    """
    for lost in range(_TRIES):
        time.sleep(random.uniform(0, min(lost, _PATIENCE) * _PAUSE))
        with contextlib.suppress(AlreadyExistsError):
            return attempt()
    raise StorageError(
        f"Could not write to {url}",
        f"others were faster {_TRIES} times",
        "Repeat the command; nothing was changed.",
    )
