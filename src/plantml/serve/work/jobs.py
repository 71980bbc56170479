"""Trainings that wait, run or ended, as a fold over events, so that workers on any machine can do them.

    STATE/jobs/
      events/000001.json         submit, prepare, round, stage, retry, done, failed, cancel
      000001/lease/000001.json   which worker has the training, see `storage.lease`
      000001/log/000001.jsonl    what its commands wrote to standard error
      000001/validation/         evidence of its model
      000001/run/                the run of `plantml train`, from which another worker resumes
    STATE/retrain/DATASET/MODEL/ all rounds of `plantml retrain`, see `retrain.rounds`

Every event is decided by all events before it. So a training ends once, whoever does it twice.
"""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, cast

from plantml import storage
from plantml.errors import InputError, NotFoundError
from plantml.retrain import rounds
from plantml.storage import Entry
from plantml.storage import lease as leases
from plantml.storage.event_log import Event, Events
from plantml.storage.lease import Lease
from plantml.storage.segments import Segments

FOLDER, RETRAIN = "jobs", "retrain"
LEASE = 180.0
"""Seconds without a sign of life after which another worker takes a training over."""

ATTEMPTS = 5
"""Attempts that may be lost, to a worker that died or a storage that was away, before a training has failed."""

_PAUSE = 30.0
"""Seconds before the second attempt; doubled before each further one."""

Status = Literal["waiting", "running", "done", "failed", "cancelled"]
Stage = Literal["", "prepare", "train", "validate", "register"]
_ENDS: Mapping[str, Status] = {"done": "done", "failed": "failed", "cancel": "cancelled"}


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        id: its number.
        url: of its folder.
        request: what was asked for, see `trainings.TrainingRequest`.
        by: name of the user who asked.
        submitted: ISO 8601 in UTC, as all times.
        dataset: URL of the dataset.
        version: number of the dataset version that is trained on; 0 until it is prepared.
        work: URL of the work folder of a retraining; else empty.
        round: number of its round; 0 until it has begun.
        status: `waiting`, `running`, `done`, `failed` or `cancelled`.
        stage: what it does, or did last: `prepare`, `train`, `validate` or `register`; empty before.
        stage_began: when; empty before.
        ended: when it ended; empty before.
        result: of a finished one: model, version, digest, scores, and the URL of its validation, if any; of a
            retraining also outcome and reasons, see `retrain.RetrainResult`, and version 0 if there was nothing to do.
        failure: of a failed one, or of the last attempt: what, why, next, exit_code.
        retries: attempts that were lost to a storage that was away.
        not_before: seconds since 1970 before which no worker tries again.
        worker: machine that has it; empty for none.
    """

    id: int
    url: str
    request: Mapping[str, Any]
    by: str
    submitted: str
    dataset: str
    version: int = 0
    work: str = ""
    round: int = 0
    status: Status = "waiting"
    stage: Stage = ""
    stage_began: str = ""
    ended: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 0
    not_before: float = 0.0
    worker: str = ""

    @property
    def open(self) -> bool:
        """True until it has ended."""
        return not self.ended

    @property
    def run(self) -> str:
        """URL of its run."""
        if self.round:
            return storage.join(rounds.folder(self.work, self.round), rounds.CHALLENGER)
        return storage.join(self.url, "run")

    @property
    def validation(self) -> str:
        """URL of the folder with the evidence of its model."""
        return storage.join(self.url, "validation")

    @property
    def log(self) -> str:
        """URL of the folder of its log."""
        return storage.join(self.url, "log")

    @property
    def lease(self) -> str:
        """URL of the events of its lease."""
        return storage.join(self.url, "lease")


class Jobs:
    """The trainings of a state folder.

    Args:
        state: its URL.
    """

    def __init__(self, state: str) -> None:
        self.url = storage.join(storage.absolute(state), FOLDER)
        self._retrain = storage.join(storage.absolute(state), RETRAIN)
        self._events = Events(storage.join(self.url, "events"))

    def list(self) -> Sequence[Job]:
        """All trainings, by number."""
        return [self._with_worker(job) for job in self._fold(self._events.read()).values()]

    def get(self, number: int) -> Job:
        """One training. Raises `NotFoundError`."""
        job = self._fold(self._events.read()).get(number)
        if job is None:
            raise NotFoundError(f"There is no training {number}", "", "List them: GET /v1/trainings")
        return self._with_worker(job)

    def submit(self, request: Mapping[str, Any], by: str, dataset: str, version: int = 0, *, most: int) -> Job | None:
        """Add a training, or return the one that waits or runs with the same request.

        Args:
            request: as JSON types.
            by: name of the user.
            dataset: URL of the dataset.
            version: number of the version to train on; 0 for the one that is newest when the training begins.
            most: trainings that may wait or run at a time.

        Returns:
            None if there are as many.
        """
        number = 0

        def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
            nonlocal number
            jobs = self._fold(events)
            still_open = [job for job in jobs.values() if job.open]
            same = next((job for job in still_open if job.request == request and job.dataset == dataset), None)
            if same is not None or len(still_open) >= most:
                number = 0 if same is None else same.id
                return None
            number = len(jobs) + 1
            return {
                "act": "submit",
                "job": number,
                "request": request,
                "by": by,
                "dataset": dataset,
                "version": version,
            }

        self._events.append(decide)
        return self.get(number) if number else None

    def cancel(self, number: int, by: str) -> Job:
        """End a training; a worker that has it stops soon. Does nothing if it has ended. Raises `NotFoundError`."""
        self.get(number)
        self._append(number, {"act": "cancel", "by": by})
        return self.get(number)

    def prepare(self, number: int, version: int) -> Job:
        """Fix the dataset version that is trained on; the first one counts."""
        self._append(number, {"act": "prepare", "version": version})
        return self.get(number)

    def begin_round(self, number: int, round_number: int) -> Job:
        """Note the round of a retraining; the first one counts."""
        self._append(number, {"act": "round", "round": round_number})
        return self.get(number)

    def enter(self, number: int, stage: Stage) -> None:
        """Note what a training does now."""
        self._append(number, {"act": "stage", "stage": stage})

    def retry(self, number: int, failure: Mapping[str, Any]) -> None:
        """Note that an attempt was lost; another follows after a pause."""
        pause = _PAUSE * 2 ** self.get(number).retries
        self._append(number, {"act": "retry", "failure": failure, "not_before": time.time() + pause})

    def finish(self, number: int, result: Mapping[str, Any]) -> None:
        """Note the result of a training."""
        self._append(number, {"act": "done", "result": result})

    def fail(self, number: int, failure: Mapping[str, Any]) -> None:
        """Note why a training has failed."""
        self._append(number, {"act": "failed", "failure": failure})

    def take(self, job: Job, seconds: float = LEASE) -> Lease | None:
        """The lease on a training; `None` if another worker has it or it has ended."""
        lease = Lease(job.lease, seconds)
        if lease.take() is not None:
            return None
        if self.get(job.id).open:
            return lease
        with lease:  # it ended between the look and the lease, which is released
            return None

    def trained(self, digest: str) -> Job | None:
        """The last training that made the model of a digest."""
        return next((job for job in self._of_model(digest) if not job.request.get("version")), None)

    def validated(self, digest: str) -> Job | None:
        """The last training that validated the model of a digest."""
        return next((job for job in self._of_model(digest) if job.result["validation"]), None)

    def _of_model(self, digest: str) -> Iterator[Job]:
        jobs = reversed(self._fold(self._events.read()).values())
        return (job for job in jobs if job.result.get("digest") == digest)

    def removable(self, before: datetime) -> Iterator[Entry]:
        """Files of trainings that ended before, which nobody needs any more.

        Of one with a version in the registry these are log, lease, checkpoints, and the bundle, of which the registry
        has its own: its curves, plan and evidence stay. Of others it is everything.
        """
        for job in self._fold(self._events.read()).values():
            if job.open or datetime.fromisoformat(job.ended) >= before:
                continue
            in_run = [storage.join(job.run, name) for name in ("checkpoints", "bundle")]
            has_version = bool(job.result.get("version"))
            rest = [job.log, job.lease] if has_version else [job.url]
            for url in [*rest, *in_run] if has_version or job.round else rest:
                with contextlib.suppress(NotFoundError):
                    yield from storage.list_files(url)

    def _append(self, number: int, content: Mapping[str, Any]) -> None:
        """Add an event to a training that has not ended."""

        def decide(events: Sequence[Event]) -> Mapping[str, Any] | None:
            job = self._fold(events).get(number)
            return {**content, "job": number} if job is not None and job.open else None

        self._events.append(decide)

    def work(self, dataset: str, model: str) -> str:
        """URL of the work folder of retrainings of a model (a name) on a dataset (a URL)."""
        return storage.join(self._retrain, storage.basename(dataset), model)

    def _with_worker(self, job: Job) -> Job:
        holder = leases.current_holder(Events(job.lease).read()) if job.open else None
        return job if holder is None else replace(job, status="running", worker=str(holder["host"]))

    def _fold(self, events: Iterable[Event]) -> dict[int, Job]:
        jobs: dict[int, Job] = {}
        for event in events:
            try:
                number = event.content["job"]
                jobs[number] = self._apply(jobs.get(number), event)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise event.damaged(f"it contradicts the events before it: {error!r}") from error
        return jobs

    def _apply(self, job: Job | None, event: Event) -> Job:
        content, act = event.content, event.content["act"]
        if act == "submit":
            number = int(content["job"])
            url = storage.join(self.url, f"{number:06d}")
            request = dict(content["request"])
            retrains = request.get("retrain") is not None
            return Job(
                id=number,
                url=url,
                request=request,
                by=str(content["by"]),
                submitted=event.time,
                dataset=str(content["dataset"]),
                version=int(content["version"]),
                work=self.work(str(content["dataset"]), request["name"]) if retrains else "",
            )
        if job is None:
            raise ValueError(f"{act} comes before submit")
        match act:
            case "prepare":
                return replace(job, version=job.version or int(content["version"]))
            case "round":
                return replace(job, round=job.round or int(content["round"]))
            case "stage":
                return replace(job, stage=cast("Stage", content["stage"]), stage_began=event.time)
            case "retry":
                return replace(
                    job,
                    retries=job.retries + 1,
                    failure=dict(content["failure"]),
                    not_before=float(content["not_before"]),
                )
            case "done" | "failed" | "cancel":
                result, failure = dict(content.get("result", {})), dict(content.get("failure", job.failure))
                return replace(job, status=_ENDS[act], ended=event.time, result=result, failure=failure)
        raise InputError(f"{event.url} has an event {act!r}", "a newer plantml wrote it", "Update plantml here.")


def lost_attempts(job: Job) -> int:
    """Attempts of a training that were lost: workers that took it and died, and retries."""
    lost, is_taken = job.retries, False
    for event in Events(job.lease).read():
        act = event.content["act"]
        if act == leases.TAKE:
            lost += is_taken
            is_taken = True
        elif act == leases.RELEASE:
            is_taken = False
    return lost


# --- the log ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line of a log.

    Attributes:
        id: its place, `SEGMENT.ROW`, from which reading can continue.
        time: ISO 8601 in UTC.
        text: without escape codes.
    """

    id: str
    time: str
    text: str


def write_line(log: Segments, text: str) -> None:
    """Add a line to a log; it is readable once the segment is flushed."""
    log.add(json.dumps({"time": storage.now_utc(), "text": text}, ensure_ascii=False).encode())


def read_log(url: str, after: str = "") -> Iterator[Line]:
    """The lines of a log, after the one with an id.

    Raises:
        InputError: the id is not one of a line.
        StorageError: the storage failed.
    """
    first, skipped = check_line_id(after)
    log = Segments(url)
    number = max(first, 1)
    while True:
        try:
            rows = log.load(number)
        except NotFoundError:
            return
        except InputError as error:  # a damaged segment: its lines are lost, and no others
            rows = [json.dumps({"time": "", "text": str(error)}).encode()]
        for index, row in enumerate(rows, start=1):
            if number > first or index > skipped:
                content = json.loads(row)
                yield Line(f"{number}.{index}", content["time"], content["text"])
        number += 1


def check_line_id(line_id: str) -> tuple[int, int]:
    """Segment and row of a line; 0 and 0 before the first. Raises `InputError`."""
    segment, _, row = line_id.partition(".")
    if not line_id:
        return 0, 0
    if not (segment.isdecimal() and row.isdecimal()) or len(line_id) > 32:
        raise InputError(f"{line_id!r:.60} is no line of a log", "an id looks like 3.14", "Send the id of an event.")
    return int(segment), int(row)
