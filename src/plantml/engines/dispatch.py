"""Give parts to an engine until all are done, and start those again whose process was lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from plantml.concurrency import Listener, Stop
from plantml.engines.jobs import ATTEMPTS, Job
from plantml.errors import Exit, PlantmlError, StorageError

_PASSING = {Exit.BUG, Exit.STORAGE, Exit.INTERRUPTED, Exit.TERMINATED}
"""Exit codes of errors after which another attempt may succeed."""


@dataclass(frozen=True)
class Event:
    """What became of an attempt at a part: it has done some photos, or it has ended.

    Attributes:
        number: of the part.
        attempt: from 0.
        photos: that are done; -1 if not told.
        has_ended: nothing more will be told of it.
        error: why it did not end well.
    """

    number: int
    attempt: int
    photos: int = -1
    has_ended: bool = False
    error: PlantmlError | None = None


class Engine(Protocol):
    """Where parts run, from the beginning of the block to its end.

    Attributes:
        name: for people; once connected, of the cluster.
        workers: that do parts at the same time.
        threads: of each.
    """

    name: str
    workers: int
    threads: int

    def __enter__(self) -> Self:
        """Connect."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs; a part saves what it has finished."""
        ...

    def start(self, job: Job, attempts: Sequence[tuple[int, int]]) -> None:
        """Start parts: number and attempt of each. Most may have to wait for a worker."""
        ...

    def wait(self) -> Sequence[Event]:
        """What happened since the last call; returns after a second at the latest."""
        ...


def complete(
    plan: Callable[[], Job],
    engine: Engine,
    stop: Stop,
    listener: Listener,
    count: Callable[[int], None],
    *,
    take: Callable[[], object] = lambda: None,
) -> None:
    """Plan a job on a connected engine, `run` it, and remove its files, however it ends.

    Args:
        plan: writes the job; called once the engine knows its workers.
        engine: see `run`.
        stop: see `run`.
        listener: see `run`.
        count: see `run`.
        take: called at the end, before the files are removed, to take what the parts have finished.

    Raises:
        PlantmlError: see `run`.
    """
    with engine:
        job = plan()
        try:
            run(job, engine, stop, listener, count)
        finally:
            take()
            job.remove()


def complete_or_stop(
    plan: Callable[[], Job], engine: Engine, what: str, listener: Listener, count: Callable[[int], None]
) -> None:
    """`complete` a job for a command that has no stop of its own.

    Args:
        plan: see `complete`.
        engine: see `run`.
        what: is done, for the message.
        listener: see `run`.
        count: see `run`.

    Raises:
        PlantmlError: see `run`.
        StoppedError: a signal asked for the end; parts have saved what they finished.
    """
    with Stop() as stop:
        complete(plan, engine, stop, listener, count)
    if stop:
        raise stop.error(f"{what} stopped", "Repeat the same command to resume.")


def run(job: Job, engine: Engine, stop: Stop, listener: Listener, count: Callable[[int], None]) -> None:
    """Do all parts of a job, or end them at a stop.

    Args:
        job: the job.
        engine: that starts its parts.
        stop: set by a signal.
        listener: receives where parts run, and warnings.
        count: called with the number of photos that are done.

    Raises:
        PlantmlError: a part failed for good; all others that could be done are.
    """
    listener.say(f"{len(job.sizes)} parts on {engine.name}, {engine.workers} at a time")
    open_parts = dict.fromkeys(job.numbers, 0)
    photos = dict.fromkeys(job.numbers, 0)
    failure: PlantmlError | None = None
    engine.start(job, list(open_parts.items()))
    while open_parts and not stop:
        for event in engine.wait():
            number, error = event.number, event.error
            if open_parts.get(number) != event.attempt:
                continue
            if event.photos >= 0:
                photos[number] = event.photos
            if not event.has_ended:
                continue
            if error is None:
                photos[number] = job.sizes[number - 1]
                del open_parts[number]
            elif error.exit_code not in _PASSING:  # it would be the same for every part
                raise error
            elif event.attempt + 1 < ATTEMPTS:
                listener.warn(f"Part {number} is started again: {error}")
                photos[number] = 0
                open_parts[number] += 1
                engine.start(job, [(number, open_parts[number])])
            else:
                failure = _given_up(number, error)
                del open_parts[number]
        count(sum(photos.values()))
    if failure is not None and not stop:
        raise failure


def lost(why: str) -> PlantmlError:
    """The error of a part whose process has ended without one."""
    return StorageError("The process was lost", why, "Repeat the command; what was finished is kept.")


def _given_up(number: int, error: PlantmlError) -> PlantmlError:
    what = f"Part {number} failed {ATTEMPTS} times, at last because: {error.what}"
    return type(error)(what, error.why, error.hint or "Repeat the command; what was finished is kept.")
