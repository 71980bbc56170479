"""`plantml dataset check --on` for crops: parts compute keypoints, and further parts compare them.

The keypoints of a photo take 40 KB. They are kept in the dataset until all photos have been compared.
"""

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import storage
from plantml.concurrency import Listener, Stop, in_threads
from plantml.curate import keypoint_matches
from plantml.curate.context import Subject
from plantml.curate.keypoint_matches import Copy, View
from plantml.data import photos
from plantml.engines import dispatch, jobs
from plantml.engines.dispatch import Engine
from plantml.engines.jobs import Job, Part
from plantml.engines.work import Count, Work
from plantml.settings import Machine
from plantml.storage.segments import Segments

KEYPOINTS, COPIES = "keypoints", "copies"
"""Kinds of jobs."""

_SECONDS = 20.0
_ROWS = 512
"""Photos in a segment of keypoints, about 28 MB."""

_SEGMENTS, _VIEWS = 4, 2048
"""Segments, and photos of them, that a worker keeps in memory: about 200 MB."""

_LIBRARIES = ("opencv-python-headless",)


class OnEngine:
    """Keypoints of a dataset's photos, computed and compared on an engine.

    Args:
        subject: the version under examination.
        engine: that does the parts.
        listener: receives warnings.
    """

    def __init__(self, subject: Subject, engine: Engine, listener: Listener) -> None:
        self._engine, self._listener, self._machine = engine, listener, subject.machine
        version, pictures = subject.version, subject.pictures
        self._ids = pictures["image_id"].to_list()
        self._urls = [version.image_url(path) for path in pictures["path"]]
        constants = (keypoint_matches.SIDE, keypoint_matches.KEYPOINTS, keypoint_matches.INLIERS,
                     keypoint_matches.CORRELATION, jobs.versions(_LIBRARIES))  # fmt: skip
        name = hashlib.sha256(json.dumps(constants).encode()).hexdigest()[:16]
        self._keypoints = storage.join(version.url, "derived", f"keypoints-{name}")
        self._copies = storage.join(version.url, "derived", f"copies-{name}")
        self._place: dict[str, tuple[int, int]] = {}

    def views(self, places: Sequence[int], progress: Callable[[int], None]) -> Iterator[tuple[int, View | None]]:
        """See `keypoint_matches.Elsewhere`."""
        wanted = {self._ids[place]: place for place in places}
        stored = Segments(self._keypoints)
        known = {image_id for row in stored if (image_id := _split(row)[0]) in wanted}
        if todo := [place for image_id, place in wanted.items() if image_id not in known]:
            rows = ([self._urls[place], self._ids[place]] for place in todo)
            self._complete(KEYPOINTS, stored, rows, len(todo), lambda done: progress(len(known) + done))
        for number, lines in Segments(self._keypoints).read():
            for at, line in enumerate(lines):
                image_id, text = _split(line)
                if image_id in wanted and image_id not in self._place:
                    self._place[image_id] = (number, at)
                    yield wanted[image_id], View.decode(text) if text else None

    def copies(self, jobs_: Sequence[keypoint_matches.Job], progress: Callable[[int], None]) -> Iterator[Copy]:
        """See `keypoint_matches.Elsewhere`."""
        stored = Segments(self._copies)
        known = self._compared(stored)
        by_segments = defaultdict[tuple[int, int], dict[int, list[int]]](lambda: defaultdict(list))
        for first, others in jobs_:
            for second in others.tolist():
                if (self._ids[first], self._ids[second]) not in known:
                    key = (self._place[self._ids[first]][0], self._place[self._ids[second]][0])
                    by_segments[key][first].append(second)
        rows = [
            [*self._entry(first), [self._entry(second) for second in seconds]]
            for _, firsts in sorted(by_segments.items())
            for first, seconds in sorted(firsts.items())
        ]
        if rows:
            total = len(rows)
            self._complete(COPIES, stored, rows, total, lambda done: progress(len(jobs_) * done // total))
            known = self._compared(Segments(self._copies))
        for first, others in jobs_:
            for second in others.tolist():
                if (fields := known[self._ids[first], self._ids[second]]) is not None:
                    yield Copy(first, second, *fields)
        for url in (self._keypoints, self._copies):
            Segments(url).remove()

    def _entry(self, place: int) -> jobs.Row:
        image_id = self._ids[place]
        return [self._urls[place], image_id, *self._place[image_id]]

    def _compared(self, stored: Iterable[bytes]) -> dict[tuple[str, str], list[Any] | None]:
        """By the SHA-256 of two photos, the fields of their `Copy` but the first two; `None` if they are none."""
        return {(first, second): fields for first, second, fields in map(json.loads, stored)}

    def _complete(
        self, kind: str, stored: Segments, rows: Iterable[jobs.Row], total: int, progress: Callable[[int], None]
    ) -> None:
        def plan() -> Job:
            return jobs.plan(
                storage.join(stored.url, "parts"),
                kind,
                {"keypoints": storage.absolute(self._keypoints)},
                rows,
                total=total,
                workers=self._engine.workers,
                threads=self._engine.threads,
                offline=self._machine.offline,
                libraries=_LIBRARIES,
                segments=stored.url,
                ending=stored.ending,
                after=stored.last,
            )

        dispatch.complete_or_stop(plan, self._engine, "The check", self._listener, progress)


def _split(row: bytes) -> tuple[str, str]:
    """SHA-256 of a photo, and its keypoints as text; empty if it cannot be decoded."""
    image_id, _, text = row.decode().partition("\t")
    return image_id, text


def _read(image_id: str, url: str, machine: Machine) -> bytes:
    """A photo's bytes; empty if it is missing or has changed, which `plantml dataset verify` reports."""
    try:
        return photos.read(image_id, url, machine.cache())
    except photos.UNREADABLE:
        return b""


def open_keypoints(machine: Machine) -> Work:
    """What computes the keypoints of parts."""

    def encode(row: jobs.Row) -> bytes:
        url, image_id = row
        view = keypoint_matches.view_of(_read(image_id, url, machine))
        return f"{image_id}\t{view.encode() if view else ''}".encode()

    def work(part: Part, stop: Stop, count: Count) -> None:
        segments = part.segments(_ROWS, _SECONDS)
        try:
            rows = in_threads(encode, stop.until(part.rows()), machine.threads)
            for done, row in enumerate(rows, start=1):
                segments.add(row)
                count(done)
        finally:
            segments.flush()

    return work


def open_copies(job: Job, machine: Machine) -> Work:
    """What compares the keypoints of parts."""
    stored = Segments(job.options["keypoints"], new_only=True)
    load = functools.lru_cache(_SEGMENTS)(stored.load)

    @functools.lru_cache(_VIEWS)
    def view(segment: int, at: int) -> View | None:
        text = _split(load(segment)[at])[1]
        return View.decode(text) if text else None

    def compare(row: jobs.Row) -> list[bytes]:
        *first, others = row
        looked = _Looked([first, *others], view, machine)
        copies = {
            copy.second: [copy.kind, copy.inliers, copy.angle, copy.scale, copy.mirrored, copy.first_share,
                          copy.second_share, copy.correlation]
            for copy in keypoint_matches.copies_of(looked, 0, np.arange(1, len(others) + 1))
        }  # fmt: skip
        return [json.dumps([first[1], other[1], copies.get(at)]).encode() for at, other in enumerate(others, start=1)]

    def work(part: Part, stop: Stop, count: Count) -> None:
        rows = part.rows()
        segments = part.segments(sum(len(row[-1]) for row in rows), _SECONDS)
        try:
            with keypoint_matches.one_thread_each():
                for done, lines in enumerate(in_threads(compare, stop.until(rows), machine.threads), start=1):
                    segments.add(*lines)
                    count(done)
        finally:
            segments.flush()

    return work


class _Looked:
    """See `keypoint_matches.Looked`: of the photos of one row, with what was stored of them."""

    def __init__(
        self, entries: Sequence[Sequence[Any]], view: Callable[[int, int], View | None], machine: Machine
    ) -> None:
        self._entries, self._view, self._machine = entries, view, machine

    def view(self, index: int) -> View | None:
        segment, at = self._entries[index][2:]
        return self._view(segment, at)

    def grey(self, index: int) -> NDArray[np.uint8]:
        url, image_id, *_ = self._entries[index]
        return keypoint_matches.grey_of(photos.read(image_id, url, self._machine.cache()))
