"""`--watch`: files are taken as they arrive, when they are complete, once each, until a signal says stop."""

import time
from collections.abc import Callable, Iterator
from typing import TextIO

from plantml.concurrency import Stop, batched, silent
from plantml.detect.config import STDOUT, DetectConfig
from plantml.detect.detect import Detection, DetectionResult, Extras, check
from plantml.detect.journal import Journal
from plantml.detect.photo_list import PhotoList, Places
from plantml.detect.sources import Sources
from plantml.errors import NotFoundError, StorageError
from plantml.model.pipeline import Pipeline

MISSING = "missing"
"""Stamp of a file that is named and not there (yet)."""

_STEP = 0.1
_PART = 256
"""Images between two looks at which model is to answer."""

_SHARE = 10
"""Writing the output may take one part in so many of the time."""


def watch(
    look: Callable[[], Sources],
    pipeline: Pipeline,
    config: DetectConfig,
    *,
    stdout: TextIO,
    stop: Stop,
    fresh: bool = False,
    extras: Extras | None = None,
    tell: Callable[[str], None] = lambda _: None,
    follow: Callable[[], tuple[Pipeline, Extras] | None] = lambda: None,
) -> DetectionResult:
    """Put every file through the model that is there or arrives.

    A file is complete when two looks, `config.interval` seconds apart, find the same size and time of change. The
    output holds all that was looked at, in the order of arrival, those too that were moved away or overwritten since;
    it is written anew after new files, but not more than a tenth of the time, and at the end.

    Args:
        look: lists what is there now; what cannot be listed this time is tried again.
        pipeline: that answers.
        config: what is asked.
        stdout: gets the records where no output is named.
        stop: says when to end.
        fresh: forget what an earlier run did.
        extras: what records hold more.
        tell: gets a line now and then.
        follow: asked between images whether another model is to answer from there on, see `follow.AliasWatcher`.
    """
    check(config, pipeline.bundle)
    work = Detection(pipeline, config, extras or Extras())
    journal = None if config.out == STDOUT else work.open_journal(fresh=fresh)
    resumed, new, started = (sum(1 for _ in journal) if journal else 0), 0, time.monotonic()
    arrivals, sources, due, unwritten = _Arrivals(journal), Sources(PhotoList()), 0.0, True
    while not stop:
        try:
            sources = look()
        except (StorageError, NotFoundError) as error:
            tell(f"Cannot look now: {error}")
            _wait(config.interval, stop)
            continue
        ready = arrivals.ready(sources.photos)
        for part in [*_parts(ready)] or [ready]:
            if (moved := follow()) is not None:
                work.change_over(*moved)
            if part and journal is None:
                work.print(part, stdout, stop, silent)
            elif part and journal is not None:
                work.fill(journal, part, stop, silent)
        if ready:
            new, unwritten = new + len(ready), True
            tell(f"{len(ready)} new, {resumed + new} in all")
        if journal is not None and unwritten and time.monotonic() >= due:
            before = time.monotonic()
            work.publish(journal, journal)
            due, unwritten = before + (1 + _SHARE) * (time.monotonic() - before), False
        _wait(config.interval, stop)
    if journal is not None and unwritten:
        work.publish(journal, journal)
    return work.result(sources, resumed, time.monotonic() - started, stopped=True)


def _parts(ready: PhotoList) -> Iterator[PhotoList]:
    for some in batched(ready, _PART):
        part = PhotoList()
        for source in some:
            part.add(source)
        yield part


class _Arrivals:
    """Tells which files are complete and were not taken yet."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._taken = Places()
        self._before: dict[str, str] = {}

    def ready(self, found: PhotoList) -> PhotoList:
        """Those of a look that are as they were at the look before."""
        ready, waiting = PhotoList(), {}
        for source in found:
            if source.stamp == MISSING or source.key in self._taken or (self._journal and source in self._journal):
                continue
            if self._before.get(source.url) == source.stamp:
                ready.add(source)
                if self._journal is None:
                    self._taken[source.key] = 1
            else:
                waiting[source.url] = source.stamp
        self._before = waiting
        return ready


def _wait(seconds: float, stop: Stop) -> None:
    end = time.monotonic() + seconds
    while not stop and (left := end - time.monotonic()) > 0:
        time.sleep(min(_STEP, left))
