"""Read many files, those of a far storage together."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from plantml.concurrency import batched, in_threads
from plantml.errors import PlantmlError, StoppedError
from plantml.storage import remote
from plantml.storage.filesystem import explained, open_filesystem
from plantml.storage.reading import MAX_FILE, read
from plantml.storage.urls import IN_ARCHIVE, is_local

FETCH_BATCH = 32
"""Objects asked for at once: 16 to 64 hide 20 ms of latency, more only costs memory."""

_ARCHIVE_THREADS = 8
_AHEAD_THREADS, _AHEAD_BYTES = 2, 64 << 20


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

    for batch in in_threads(fetched, batches(), _AHEAD_THREADS):
        length = sum(len(data) for _, data in batch if isinstance(data, bytes)) // len(batch)
        # Twice as many as threads are under way, one waits, one is in use.
        size = min(FETCH_BATCH, max(1, _AHEAD_BYTES // (2 * _AHEAD_THREADS + 2) // max(1, length)))
        yield from batch


def _read_batch(urls: list[str], limit: int) -> list[bytes | PlantmlError]:
    answers: dict[str, bytes | PlantmlError] = {}
    far: dict[int, tuple[Any, dict[str, str]]] = {}
    archived: list[str] = []
    for url in urls:
        if is_local(url):
            answers[url] = _read_or_error(url, limit)
            continue
        if IN_ARCHIVE.match(url):
            archived.append(url)
            continue
        try:
            with explained(url, "read"):
                fs, path = open_filesystem(url)
        except PlantmlError as error:
            answers[url] = error
            continue
        far.setdefault(id(fs), (fs, {}))[1][url] = path
    if archived:
        threads = 1 if is_local(archived[0].rpartition("::")[2]) else _ARCHIVE_THREADS
        answers |= zip(
            archived, in_threads(lambda url: _read_or_error(url, limit), archived, threads), strict=True
        )  # fmt: skip
    for fs, paths in far.values():
        answers |= _read_far(fs, paths, limit)
    return [answers[url] for url in urls]


def _read_far(fs: Any, paths: Mapping[str, str], limit: int) -> dict[str, bytes | PlantmlError]:
    """Files of one filesystem, by URL, asked for together; what fails so is asked for alone."""
    by_path = remote.ask_each(fs, "cat_file", list(dict.fromkeys(paths.values())), limit=limit)
    answers: dict[str, bytes | PlantmlError] = {}
    for url, path in paths.items():
        answer = by_path[path]
        is_final = isinstance(answer, TimeoutError | PlantmlError)  # would take as long again
        known = answer if is_final else None
        answers[url] = answer if isinstance(answer, bytes) else _read_or_error(url, limit, known)
    return answers


def _read_or_error(url: str, limit: int, known: Exception | None = None) -> bytes | PlantmlError:
    try:
        if known is None:
            return read(url, limit)
        with explained(url, "read"):
            raise known
    except StoppedError:
        raise
    except PlantmlError as error:
        return error
