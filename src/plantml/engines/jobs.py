"""A job: work on many photos, cut into parts, as files in storage.

    JOB/
      job.json          what to do, by which versions: with the photos of a part, all that its result depends on
      000001.part       the photos of part 1, one JSON array per line, its URL first
      000001.array      parts that an array of processes shares, where nobody waits for the processes themselves
      000001-0.ended    their report: the error of part 1, attempt 0, or null

Job files can be deleted at any time: what was finished is in the segments.
"""

import hashlib
import json
import os
import platform
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from plantml import storage
from plantml.about import __version__
from plantml.concurrency import batched, in_threads
from plantml.errors import Exit, InputError, MissingExtraError, NotFoundError, PlantmlError, StorageError, UsageError
from plantml.storage import checksums, numbered_files
from plantml.storage.segments import Segments

ATTEMPTS = 3
"""How often a part is started, if its process is lost or its storage fails."""

PHOTOS = 1000
"""Most photos of a part: what a killed process costs at most, and long enough to hide what a part costs."""

_PER_WORKER = 4
"""Parts for each worker, at least, so that a slow one does not hold up the rest."""

_SEGMENTS = 1000
"""Numbers of segments that are kept free for one attempt at a part."""

_JOB, _PART, _ARRAY, _ENDED = "job.json", ".part", ".array", ".ended"
_WRITERS = 8
_LIBRARIES = ("numpy", "pillow")
_AGAIN = "Start the command again."

Row = Sequence[Any]
"""One photo: its URL, then what the kind of job needs of it; JSON types."""


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        url: of its folder, absolute.
        kind: what to do; see `work.open_work`.
        options: of that kind; JSON types.
        sizes: photos of each part.
        segments: URL of the folder that parts write to.
        ending: of the segments' names.
        after: segments have higher numbers.
        threads: of one part.
        offline: whether parts may use URLs only that the user named.
        folder: that relative paths start from.
        witness: URL and stamp of a photo on a local path, which workers must see too; `None` if all are remote.
        versions: of plantml and the libraries that results depend on.
    """

    url: str
    kind: str
    options: Mapping[str, Any]
    sizes: Sequence[int]
    segments: str
    ending: str
    after: int
    threads: int
    offline: bool
    folder: str
    witness: Sequence[str] | None
    versions: Mapping[str, str]

    @property
    def numbers(self) -> range:
        """The numbers of the parts, from 1."""
        return range(1, len(self.sizes) + 1)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of a SHA-256 that identify the job."""
        return hashlib.sha256(checksums.to_json(asdict(self))).hexdigest()[:16]

    def write_array(self, array: int, size: int, places: Sequence[tuple[int, int]]) -> None:
        """Write the parts, number and attempt, that an array of processes of this size shares."""
        data = json.dumps({"size": size, "parts": places}).encode()
        storage.write(numbered_files.file_url(self.url, array, _ARRAY), data)

    def share(self, array: int, index: int) -> list[tuple[int, int]]:
        """The parts, number and attempt, of one process of an array, from 0."""
        content = json.loads(storage.read(numbered_files.file_url(self.url, array, _ARRAY)))
        return [(number, attempt) for number, attempt in content["parts"][index :: content["size"]]]

    def end(self, number: int, attempt: int, error: PlantmlError | None) -> None:
        """Write down that an attempt at a part has ended."""
        storage.write(
            numbered_files.file_url(self.url, number, f"-{attempt}{_ENDED}"), json.dumps(error_as_json(error)).encode()
        )

    def ended(self) -> Iterator[tuple[int, int]]:
        """Number and attempt of all that was written down by `end`."""
        for entry in storage.list_files(self.url):
            if entry.name.endswith(_ENDED):
                number, _, attempt = entry.name.removesuffix(_ENDED).partition("-")
                yield int(number), int(attempt)

    def error(self, number: int, attempt: int) -> PlantmlError | None:
        """How an attempt that has ended did so."""
        return error_from_json(
            json.loads(storage.read(numbered_files.file_url(self.url, number, f"-{attempt}{_ENDED}")))
        )

    def remove(self) -> None:
        """Remove the files of this job and of earlier ones beside it."""
        remove_all(storage.split(self.url)[0])


@dataclass(frozen=True)
class Part:
    """One attempt, from 0, at a part of a job."""

    job: Job
    number: int
    attempt: int

    def rows(self) -> list[Row]:
        """Its photos."""
        text = storage.read(numbered_files.file_url(self.job.url, self.number, _PART)).decode()
        return [json.loads(line) for line in text.splitlines()]

    def segments(self, rows: int, seconds: float) -> Segments:
        """Segments to write to, whose numbers no other attempt uses.

        Args:
            rows: in one segment.
            seconds: after which a segment is written with the rows that there are.
        """
        place = (self.number - 1) * ATTEMPTS + self.attempt
        after = self.job.after + place * _SEGMENTS
        return Segments(self.job.segments, self.job.ending, rows=rows, seconds=seconds, after=after, new_only=True)


def plan(
    folder: str,
    kind: str,
    options: Mapping[str, Any],
    rows: Iterable[Row],
    *,
    total: int,
    workers: int,
    threads: int,
    offline: bool,
    libraries: Sequence[str],
    segments: str,
    ending: str,
    after: int,
) -> Job:
    """Cut photos into parts, and write the job.

    Args:
        folder: URL that holds jobs.
        kind: of the job.
        options: of that kind.
        rows: the photos; a reason in the place of a URL's stamp is kept.
        total: number of rows.
        workers: that will do parts at the same time.
        threads: of each.
        offline: see `Job`.
        libraries: that the results depend on, beside those that decode photos.
        segments: see `Job`.
        ending: likewise.
        after: likewise.
    """
    url = storage.join(storage.absolute(folder), uuid.uuid4().hex[:8])
    size = part_size(total, workers)
    witness: Sequence[str] | None = None

    def texts() -> Iterator[tuple[int, int, bytes]]:
        nonlocal witness
        for number, batch in enumerate(batched(rows, size), start=1):
            witness = witness or _witness(batch)
            yield number, len(batch), "".join(f"{json.dumps(row)}\n" for row in batch).encode()

    def write(part: tuple[int, int, bytes]) -> int:
        number, photos, text = part
        storage.write(numbered_files.file_url(url, number, _PART), text)
        return photos

    sizes = list(in_threads(write, texts(), _WRITERS))
    job = Job(
        url=url,
        kind=kind,
        options=options,
        sizes=sizes,
        segments=storage.absolute(segments),
        ending=ending,
        after=after,
        threads=threads,
        offline=offline,
        folder=storage.absolute("."),
        witness=witness,
        versions=versions(libraries),
    )
    storage.write(storage.join(url, _JOB), checksums.to_json(asdict(job)))
    return job


def part_size(total: int, workers: int) -> int:
    """Photos of a part."""
    return max(1, min(PHOTOS, -(-total // (workers * _PER_WORKER))))


def load(url: str, digest: str) -> Job:
    """Load a job on the machine that works on it.

    Raises:
        InputError: it is not there, or is another one: this machine sees other files.
    """
    hint = "Name photos, model and output that every machine sees: URLs, or paths of a shared file system."
    try:
        data = storage.read(storage.join(url, _JOB))
    except NotFoundError as error:
        why = f"{url} is not there" + ("; it is a path of another machine" if storage.is_local(url) else "")
        raise InputError(f"{socket.gethostname()} cannot see the job", why, hint) from error
    job = Job(**checksums.from_json(data, url, _AGAIN))
    if job.digest != digest:
        raise InputError(f"{socket.gethostname()} sees another job", f"{url} differs", hint)
    if job.witness is not None and _stamp(_from(job.folder, job.witness[0])) != job.witness[1]:
        why = f"{job.witness[0]} is missing there, or differs"
        raise InputError(f"{socket.gethostname()} does not see the photos", why, hint)
    _check_versions(job)
    return job


def remove_all(folder: str) -> None:
    """Remove a folder of jobs."""
    if storage.is_local(folder):
        shutil.rmtree(storage.local_path(folder), ignore_errors=True)
        return
    try:
        entries = list(storage.list_files(folder))
    except NotFoundError:
        return
    for _ in in_threads(lambda entry: storage.remove(entry.url), entries, _WRITERS):
        pass


def versions(libraries: Iterable[str] = ()) -> dict[str, str]:
    """Versions here of what results depend on: plantml, what decodes photos, and further libraries."""
    return {
        "plantml": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "processor": platform.machine(),
    } | {name: _version(name) for name in (*_LIBRARIES, *libraries)}


def error_as_json(error: PlantmlError | None) -> Mapping[str, Any] | None:
    """An error as JSON."""
    if error is None:
        return None
    return {"what": error.what, "why": error.why, "hint": error.hint, "code": int(error.exit_code)}


def error_from_json(content: Mapping[str, Any] | None) -> PlantmlError | None:
    """The error again, of the class that its exit code names."""
    if content is None:
        return None
    kinds: Mapping[int, type[PlantmlError]] = {
        Exit.USAGE: UsageError,
        Exit.INPUT: InputError,
        Exit.STORAGE: StorageError,
        Exit.MISSING: MissingExtraError,
    }
    return kinds.get(content["code"], PlantmlError)(content["what"], content["why"], content["hint"])


def _check_versions(job: Job) -> None:
    here = versions(job.versions.keys() - versions().keys())
    differing = [f"{name} {here.get(name) or 'missing'} in place of {version or 'none'}"
                 for name, version in job.versions.items() if here.get(name) != version]  # fmt: skip
    if differing:
        raise InputError(
            f"{socket.gethostname()} has other versions than the machine that started the job",
            "; ".join(differing),
            "Install the same everywhere: pip install -c constraints.txt plantml",
        )


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def _witness(rows: Iterable[Row]) -> Sequence[str] | None:
    """URL and stamp of the first local photo that is there."""
    for row in rows:
        if storage.is_local(row[0]) and storage.is_unicode(row[0]) and (stamp := _stamp(row[0])):
            return [row[0], stamp]
    return None


def _from(folder: str, url: str) -> str:
    """A local URL that may be relative to a folder."""
    return url if url.startswith(("/", "~", "file://")) else os.path.join(folder, url)  # noqa: PTH118


def _stamp(url: str) -> str:
    """What changes with the content of a file; empty if there is none."""
    try:
        return storage.stat(url).stamp
    except PlantmlError:
        return ""
