"""`--watch`: process each new file once, as soon as it is complete, until a signal arrives."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TextIO

from plantml.concurrency import Stop, batched, silent
from plantml.detect.config import STDOUT, DetectConfig
from plantml.detect.detect import Detection, check, summarize
from plantml.detect.journal import Journal
from plantml.detect.outputs import Published
from plantml.detect.photo_list import PhotoList, Positions
from plantml.detect.results import DetectionResult, Extras, Tally
from plantml.detect.sources import Sources
from plantml.errors import NotFoundError, StorageError
from plantml.model.covariates import CovariateCounter
from plantml.model.pipeline import Pipeline

MISSING = "missing"
"""Stamp of a named file that does not exist (yet)."""

_STEP = 0.1
_BATCH = 256
"""Images between two checks for a new model."""

_WRITE_SHARE = 10
"""Writing the output may take at most this fraction, one in N, of the time."""


def watch(
    list_sources: Callable[[], Sources],
    pipeline: Pipeline,
    config: DetectConfig,
    *,
    stdout: TextIO,
    stop: Stop,
    fresh: bool = False,
    extras: Extras | None = None,
    say: Callable[[str], None] = lambda _: None,
    new_model: Callable[[], tuple[Pipeline, Extras] | None] = lambda: None,
) -> DetectionResult:
    """Process every existing and new file until a signal arrives.

    A file is complete when two polls, `config.interval` seconds apart, find the same size and modification time. The
    output holds all processed images in the order of arrival, including files that were moved or overwritten since.
    It is rewritten after new files, for at most a tenth of the time, and at the end.

    Args:
        list_sources: lists the current images; if that fails, it is tried again.
        pipeline: the model.
        config: options.
        stdout: receives the records if there is no output file.
        stop: says when to end.
        fresh: discard the journal of an earlier run.
        extras: optional content of the records.
        say: receives status lines.
        new_model: returns the model to switch to, if any; see `alias_watcher.AliasWatcher`.
    """
    check(config, pipeline.bundle)
    detection = Detection(pipeline, config, extras or Extras())
    journal = None if config.out == STDOUT else detection.open_journal(fresh=fresh)
    resumed, new, started = (sum(1 for _ in journal) if journal else 0), 0, time.monotonic()
    covariates = CovariateCounter(pipeline.bundle.contract.covariates or ())
    arrivals, sources, next_write, is_unwritten = _Arrivals(journal), Sources(PhotoList()), 0.0, True
    tally, written = Tally(), 0
    while not stop:
        try:
            sources = list_sources()
        except (StorageError, NotFoundError) as error:
            say(f"Could not list the sources: {error}")
            _wait(config.interval, stop)
            continue
        ready = arrivals.ready(sources.photos)
        for batch in [*_split(ready)] or [ready]:
            if (model := new_model()) is not None:
                detection = replace(detection, pipeline=model[0], extras=model[1])
            covariates.add_all(source.covariate_row for source in batch)
            if batch and journal is None:
                written += detection.print(batch, stdout, stop, silent, tally)
            elif batch and journal is not None:
                detection.fill(journal, batch, stop, silent)
        if ready:
            new, is_unwritten = new + len(ready), True
            say(f"{len(ready)} new, {resumed + new} in total")
        if journal is not None and is_unwritten and time.monotonic() >= next_write:
            before = time.monotonic()
            published = detection.publish(journal, journal)
            next_write, is_unwritten = before + (1 + _WRITE_SHARE) * (time.monotonic() - before), False
        _wait(config.interval, stop)
    if journal is None:
        published = Published(tally, written)
    elif is_unwritten:
        published = detection.publish(journal, journal)
    return summarize(
        config,
        published,
        sources,
        covariates,
        seconds=time.monotonic() - started,
        resumed=resumed,
        warnings=journal.damaged if journal else (),
    )


def _split(ready: PhotoList) -> Iterator[PhotoList]:
    for sources in batched(ready, _BATCH):
        batch = PhotoList()
        for source in sources:
            batch.add(source)
        yield batch


class _Arrivals:
    """Finds files that are complete and not processed yet."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._processed = Positions()
        self._previous: dict[str, str] = {}

    def ready(self, photos: PhotoList) -> PhotoList:
        """The unprocessed photos that have not changed since the previous poll."""
        ready, waiting = PhotoList(), {}
        for source in photos:
            if source.stamp == MISSING or source.key in self._processed or (self._journal and source in self._journal):
                continue
            if self._previous.get(source.url) == source.stamp:
                ready.add(source)
                if self._journal is None:
                    self._processed[source.key] = 1
            else:
                waiting[source.url] = source.stamp
        self._previous = waiting
        return ready


def _wait(seconds: float, stop: Stop) -> None:
    end = time.monotonic() + seconds
    while not stop and (left := end - time.monotonic()) > 0:
        time.sleep(min(_STEP, left))
