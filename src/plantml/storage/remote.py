"""Requests to filesystems that are far away: each has an end, whatever the other side does.

A request ends with an answer, with an error after a bounded time and size, or soon after a signal asked the command to
end. `plantml.storage` is the only user: it opens the filesystems of fsspec that are asked here.
"""

import concurrent.futures
import contextvars
import inspect
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import IO, Any, TypeVar

from plantml import concurrency
from plantml.errors import PlantmlError, StoppedError
from plantml.storage.local_files import too_large

T = TypeVar("T")

ATTEMPTS = 4
"""How often a request is made that fails for a reason that may pass."""

RETRY_SECONDS = 60.0
"""No request is made again later than this after the first one."""

HTTP_SECONDS, HTTP_RATE = 120.0, 16 << 10
"""A web server's answer may take so long, and a second more for every so many bytes that came."""

HTTP_SILENCE = 60.0
"""Seconds in which a web server must send at least something."""

OTHER_SECONDS = 3600.0
"""Any other request, whose client library ends it much earlier where nothing comes."""

MAX_ANSWER = 256 << 20
"""Bytes of an answer that is no file: a page of a listing, or what is said of one file."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_LOOK = 0.1
_FINAL = (
    FileNotFoundError,
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    ImportError,
    ValueError,
    MemoryError,
    PlantmlError,
)
"""Errors that stay however often one asks."""

_PASSING = {408, 409, 425, 429}
"""Refusals of HTTP that may pass: too slow, in conflict with another request, too early, too many."""

_log = logging.getLogger(__name__)


@dataclass
class _Budget:
    """What one answer may be.

    Attributes:
        url: for messages.
        limit: bytes.
        received: bytes that came so far.
    """

    url: str
    limit: int
    received: int = 0

    def take(self, size: int) -> None:
        """Count bytes. Raises `RefusedError` beyond the limit."""
        self.received += size
        if self.received > self.limit:
            raise too_large(self.url, self.limit)


_budget: contextvars.ContextVar[_Budget | None] = contextvars.ContextVar("budget", default=None)
"""Of the request that the running task belongs to: fsspec has no other way to its responses."""


def count(size: int) -> None:
    """Count bytes that came for the running request. Raises `RefusedError` beyond its limit."""
    if budget := _budget.get():
        budget.take(size)


class Request:
    """One call of a filesystem, under way from the start.

    Args:
        fs: of fsspec.
        method: its name; where the filesystem is asynchronous it can be given up, else it is left alone in its thread.
        args: of the call.
        url: for messages.
        limit: bytes of the answer; only a web server's are counted while they come.
        is_write: a signal does not end it: what was finished has to be saved.
        options: of the call.
    """

    def __init__(
        self,
        fs: Any,
        method: str,
        *args: Any,
        url: str,
        limit: int = MAX_ANSWER,
        is_write: bool = False,
        **options: Any,
    ) -> None:
        self._url, self._is_write, self._started = url, is_write, time.monotonic()
        self._budget = _Budget(url, limit)
        self._is_http = "http" in fs.protocol if hasattr(fs, "protocol") else False
        if self._is_http:
            _bound_responses(fs)
        token = _budget.set(self._budget)
        try:
            self._future = _begun(fs, method, *args, **options)
        finally:
            _budget.reset(token)

    def answer(self) -> Any:
        """The answer, once it is there.

        Raises:
            TimeoutError: it took too long.
            RefusedError: it is too large.
            StoppedError: a signal asked for the end.
            Exception: whatever the filesystem raises.
        """
        try:
            while not self._future.done():
                concurrent.futures.wait([self._future], _LOOK)
                if not self._future.done():
                    self._check()
            return self._future.result()
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Let go of a request that is still under way."""
        self._future.cancel()

    def _check(self) -> None:
        if not self._is_write:
            concurrency.heed(f"Stopped while waiting for {self._url}", self._started)
        seconds = time.monotonic() - self._started
        allowed = HTTP_SECONDS + self._budget.received / HTTP_RATE if self._is_http else OTHER_SECONDS
        if seconds > allowed:
            raise TimeoutError(f"no end after {seconds:.0f} s and {self._budget.received:,} bytes")


def ask(fs: Any, method: str, *args: Any, url: str, **options: Any) -> Any:
    """The answer to one call, made again where the cause of a failure may pass. See `Request`."""
    return retried(lambda: Request(fs, method, *args, url=url, **options).answer(), url)


def ask_each(fs: Any, method: str, paths: Sequence[str], **options: Any) -> dict[str, Any]:
    """By path, the answers to calls that are under way at the same time, or their errors."""
    requests = {path: Request(fs, method, path, url=path, **options) for path in paths}
    try:
        return {path: _outcome(request) for path, request in requests.items()}
    finally:
        for request in requests.values():
            request.give_up()


def _outcome(request: Request) -> Any:
    try:
        return request.answer()
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 - of whatever client library; whoever asked looks at it
        return error


def fetch_into(file: IO[bytes], fs: Any, path: str, url: str, limit: int) -> None:
    """Write all of a remote file, of at most `limit` bytes, into a local one."""

    def attempt() -> None:
        file.seek(0)
        file.truncate()
        Request(fs, "get_file", path, _Counted(file), url=url, limit=limit).answer()

    retried(attempt, url)


class _Counted:
    """A file to write to, which counts for the request that writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.read, self.tell, self.close = file.read, file.tell, file.close

    def write(self, data: bytes) -> int:
        """Write, and count."""
        count(len(data))
        return self._file.write(data)


def retried(call: Callable[[], T], url: str) -> T:
    """The result of a call, retried with growing pauses while its error may pass. The log announces each retry."""
    import tenacity

    def announce(state: "tenacity.RetryCallState") -> None:
        error = state.outcome.exception() if state.outcome else None
        text = short(error) if error else "no answer"
        _log.warning("Retrying %s in %.1f s (%d of %d): %s", url, state.upcoming_sleep, state.attempt_number + 1,
                     ATTEMPTS, text)  # fmt: skip

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_before_delay(RETRY_SECONDS),
        wait=tenacity.wait_exponential_jitter(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE, jitter=_FIRST_PAUSE / 2),
        sleep=lambda seconds: concurrency.pause(seconds, f"Stopped while waiting for {url}"),
        before_sleep=announce,
        reraise=True,
    )
    return retrying(call)


def _may_pass(error: BaseException) -> bool:
    is_refused = 400 <= status(error) < 500 and status(error) not in _PASSING
    return isinstance(error, Exception) and not isinstance(error, _FINAL) and not is_refused


def status(error: BaseException) -> int:
    """The status of HTTP that a client library gives with an error, or with its cause; 0 if there is none."""
    response = getattr(error, "response", None)
    by_botocore = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    by_name = (getattr(error, name, None) for name in ("status", "code", "status_code"))
    for value in itertools.chain([by_botocore], by_name):
        if isinstance(value, int | str) and str(value).isdecimal():
            return int(value)
    return status(error.__cause__) if error.__cause__ else 0


def short(error: BaseException) -> str:
    """An error of any library in one line."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


def _begun(fs: Any, method: str, *args: Any, **options: Any) -> "concurrent.futures.Future[Any]":
    coroutine = getattr(fs, f"_{method}", None) if getattr(fs, "async_impl", False) else None
    if inspect.iscoroutinefunction(coroutine):
        import asyncio  # for which a command on local files does not wait

        return asyncio.run_coroutine_threadsafe(coroutine(*args, **options), fs.loop)
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = getattr(fs, method)(*args, **options)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            future.set_exception(error)
        else:
            future.set_result(result)

    # Not of a pool: the interpreter waits for the threads of a pool before it ends.
    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    return future


def _bound_responses(fs: Any) -> None:
    """Have a web filesystem count what comes, and end where nothing does."""
    if "response_class" not in fs.client_kwargs:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=HTTP_SILENCE, sock_read=HTTP_SILENCE)
        fs.client_kwargs = {"timeout": timeout, **fs.client_kwargs, "response_class": _counted_response()}


@cache
def _counted_response() -> type:
    import aiohttp

    class CountedResponse(aiohttp.ClientResponse):
        """A response that is read within the budget of its request."""

        async def read(self) -> bytes:
            """All of it."""
            if self._body is None:
                parts = []
                async for part in self.content.iter_any():
                    count(len(part))
                    parts.append(part)
                self._body = b"".join(parts)
            return await super().read()

    return CountedResponse
