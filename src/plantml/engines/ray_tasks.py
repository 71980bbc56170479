"""`--on ray`: a Ray task for each part."""

import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from plantml.concurrency import Stop
from plantml.engines.dispatch import Event, lost
from plantml.engines.jobs import Job
from plantml.errors import MissingExtraError, PlantmlError, StorageError

_GRACE = 30.0
"""Seconds in which cancelled parts save what they have finished."""

_REACH = 10.0
"""Seconds in which a cluster has to answer."""


_NEW, _STARTED = "local", "a Ray cluster of this command alone"
"""What `ray.init` takes for a new cluster, and what to call that."""


class RayEngine:
    """Tasks on a Ray cluster.

    It is the one at an address, else that of RAY_ADDRESS, else the latest that `ray start` began on this machine, if it
    still answers, else a new one here, which ends with the command. RAY_ADDRESS=local always means a new one. Ray's own
    order is the same, but for a cluster that no longer answers: Ray would try for minutes, and fail. Once connected,
    the name says which one it is.

    Args:
        address: `ray://HOST:PORT`, or nothing.
        threads: of a part, which takes as many CPUs of the cluster.
    """

    def __init__(self, address: str | None, threads: int) -> None:
        self._address, self.threads = address, threads
        self.name, self.workers = address or "ray", 1
        # Read when Ray is imported. A cluster that starts here sends nothing to Ray's makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("Ray is not installed", str(error), extra="ray") from error
        self._ray = ray

    def __enter__(self) -> Self:
        ray = self._ray
        self._tasks: dict[Any, tuple[int, int]] = {}
        address, name = cluster(self._address)
        _check_reachable(address)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(address, include_dashboard=False if address == _NEW else None, log_to_driver=False,
                     logging_level=logging.ERROR)  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
            raise _not_connected(name, error) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():  # Ray's own would abort this process
                    signal.signal(number, handler)
        self.name = name
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)) // self.threads)
        self._task = ray.remote(num_cpus=self.threads, max_retries=0)(_do)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            self._ray.cancel(task)  # an interrupt, after which the part saves what it has finished
        if self._tasks:
            with contextlib.suppress(Exception):  # the connection may be what has failed
                self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=_GRACE)
        self._ray.shutdown()

    def start(self, job: Job, attempts: Sequence[tuple[int, int]]) -> None:
        """See `Engine.start`."""
        for place in attempts:
            self._tasks[self._task.remote(job.url, job.digest, *place)] = place

    def wait(self) -> Sequence[Event]:
        """See `Engine.wait`."""
        try:
            ended, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=1.0)
        except (ConnectionError, self._ray.exceptions.RayError) as error:
            raise StorageError(
                f"The connection to {self.name} is lost",
                str(error).strip().partition("\n")[0],
                "Repeat the same command to resume.",
            ) from error
        return [self._event(task) for task in ended]

    def _event(self, task: Any) -> Event:
        place = self._tasks.pop(task)
        try:
            failure: PlantmlError | None = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            failure = lost(str(error).strip().partition("\n")[0])
        return Event(*place, has_ended=True, error=failure)


def cluster(address: str | None) -> tuple[str, str]:
    """The address of the cluster to connect to, as `ray.init` takes it, and what to call it; see `RayEngine`."""
    if address:
        return address, address
    if address := os.environ.get("RAY_ADDRESS"):
        return address, _STARTED if address == _NEW else f"the Ray cluster of RAY_ADDRESS, {address}"
    if address := _started_here():
        with contextlib.suppress(StorageError):
            _check_reachable(address)
            return address, f"the Ray cluster that was started on this machine, {address}"
    return _NEW, _STARTED


def _started_here() -> str | None:
    """The address that the latest `ray start` has left on this machine."""
    try:
        from ray._private.utils import read_ray_address  # Ray has no public function for it
    except ImportError:  # a release without it: such a cluster is then joined by RAY_ADDRESS only
        return None
    address: str | None = read_ray_address()
    return address


def _check_reachable(address: str) -> None:
    """Ask whether anybody listens there: Ray itself would try for many minutes. Raises `StorageError`."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()
    except OSError as error:
        raise _not_connected(address, error) from error


def _not_connected(name: str, error: Exception) -> StorageError:
    why = str(error).strip().partition("\n")[0]
    hint = "Check the address, the versions of Ray and Python there, and its token: RAY_AUTH_MODE=token"
    return StorageError(f"Could not connect to {name}", why, hint)


def _do(url: str, digest: str, number: int, attempt: int) -> PlantmlError | None:
    """Do a part, in a process of the cluster; returns why it could not be done."""
    from plantml.engines import worker

    try:
        job, work = _open_work(url, digest)
    except PlantmlError as error:
        return error
    return worker.attempt(job, work, (number, attempt), Stop(), lambda _: None)


@functools.lru_cache(maxsize=1)  # Ray gives a process one task after another
def _open_work(url: str, digest: str) -> Any:
    from plantml.engines.kinds import open_work

    return open_work(url, digest)
