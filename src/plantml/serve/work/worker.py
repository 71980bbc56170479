"""A worker: takes trainings that wait, and runs the commands of each, on this machine.

Any number of them share a state folder. Who dies loses its lease, and another worker resumes the run.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plantml import registry as registries
from plantml import storage
from plantml.concurrency import Stop
from plantml.data import splits, versions
from plantml.data.manifest import OK
from plantml.errors import Exit, InputError, PlantmlError, StoppedError, StorageError
from plantml.parsing import dump_yaml
from plantml.registry import ledger
from plantml.registry.ledger import Entry
from plantml.registry.operations import GUARDED
from plantml.retrain import rounds
from plantml.serve.work import retraining
from plantml.serve.work.jobs import ATTEMPTS, LEASE, Job, Jobs, Stage, lost_attempts, write_line
from plantml.serve.work.subcommand import Subcommand
from plantml.settings import Machine
from plantml.storage.lease import Lease
from plantml.storage.segments import Segments
from plantml.train.run_folder import RunFolder

CHALLENGER = "challenger"
"""Alias of the newest trained version."""

MAX_DROP = 0.01
"""Gate of the comparison with the version in service, as `plantml models add` suggests it."""

_POLL, _LOG_EVERY, _LOOK_EVERY, _PATIENCE = 2.0, 2.0, 3.0, 90.0
"""Seconds between two looks for work, between two segments of a log, between two looks at a running training, and for
which a killed worker's training may still save its work."""

_MOST_LINES = 20_000
"""In the log of a training."""

_STAGES: Mapping[str, Stage] = {
    "add": "prepare", "clean": "prepare", "split": "prepare", "production": "prepare", "train": "train",
    "predict": "validate", "compare": "validate", "choose": "validate", "register": "register", "report": "register",
}  # fmt: skip
"""What a retraining does at each of its steps."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_LOST = {Exit.STORAGE, Exit.INTERRUPTED, Exit.TERMINATED}
"""Exit codes after which another attempt may succeed; so may one after a signal that killed a command."""


class _EndedError(Exception):
    """The work on a training ends before its result: it was stopped, taken over or cancelled."""


class _FailedError(Exception):
    """A command failed.

    Args:
        code: its exit code; negative for a signal.
        failure: what, why, next and exit_code.
    """

    def __init__(self, code: int, failure: Mapping[str, Any]) -> None:
        super().__init__(failure["what"])
        self.failure = failure
        self.is_transient = code in _LOST or code < 0


@dataclass(frozen=True)
class Worker:
    """A worker.

    Attributes:
        jobs: the trainings.
        registry: URL of the registry that models are added to.
        datasets: URL of a dataset on this machine by name; else that of the server is taken.
        machine: threads and cache.
        stop: ends the work; what runs is saved.
        say: receives messages.
        start: starts a command line of plantml.
        lease: seconds without a sign of life after which another worker takes over.
        poll: seconds between two looks for work.
    """

    jobs: Jobs
    registry: str
    datasets: Mapping[str, str]
    machine: Machine
    stop: Stop
    say: Callable[[str], None] = lambda _: None
    start: Callable[[Sequence[str]], Subcommand] = Subcommand
    lease: float = LEASE
    poll: float = _POLL

    def work(self, *, once: bool = False) -> int:
        """Do trainings until a stop, or, with `once`, until none waits. Returns how many were done.

        Raises:
            StoppedError: a signal arrived; a training that ran is saved, and resumed by the next worker.
        """
        done, is_away = 0, False
        while not self.stop:
            try:
                is_done, is_away = self._work_on_next(), False
            except StorageError as error:
                if once:
                    raise
                if not is_away:
                    self.say(f"{error}. Trying again until it is back.")
                is_done, is_away = False, True
            done += is_done
            if once and not is_done:
                return done
            if not is_done and not self.stop:
                self._pause()
        raise self.stop.error("The worker stopped", "What ran is saved; a worker resumes it.")

    def _pause(self) -> None:
        deadline = time.monotonic() + self.poll
        while not self.stop and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _work_on_next(self) -> bool:
        """Work on the first training that nobody has; false if there is none."""
        listed = self.jobs.list()
        retrained = {job.work for job in listed if job.work and job.status == "running"}  # its rounds, one at a time
        for job in listed:
            if not job.open or job.status == "running" or job.not_before > time.time() or job.work in retrained:
                continue
            lease = self.jobs.take(job, self.lease)
            if lease is not None:
                with lease:
                    self._work_on(self.jobs.get(job.id), lease)
                return True
        return False

    def _work_on(self, job: Job, lease: Lease) -> None:
        lost = lost_attempts(job)
        if lost >= ATTEMPTS:
            self.jobs.fail(job.id, job.failure or _DIED)
            return
        log = Segments(job.log, seconds=_LOG_EVERY, rows=1000)
        attempt = _Attempt(self, job, lease, log)
        self.say(f"Training {job.id} {'resumes' if job.stage else 'begins'}.")
        try:
            result = attempt.run()
        except (_EndedError, StoppedError) as over:
            attempt.note(str(over))
            self.say(f"Training {job.id}: {over}")
        except Exception as error:  # noqa: BLE001 - a training that nobody can do must not stop the others
            failed = error if isinstance(error, _FailedError) else _explained(error)
            what, why = failed.failure["what"], failed.failure["why"]
            attempt.note(f"{what}: {why}" if why else what)
            attempt.flush()  # whoever follows the log stops at the end of the training
            if failed.is_transient and lost + 1 < ATTEMPTS:
                self.jobs.retry(job.id, failed.failure)
                self.say(f"Training {job.id} will be tried again: {what}")
            else:
                self.jobs.fail(job.id, failed.failure)
                self.say(f"Training {job.id} failed: {what}")
        else:
            attempt.flush()
            self.jobs.finish(job.id, result)
            version = f"{result['model']}@{result['version']}" if result["version"] else ""
            self.say(f"Training {job.id} is done: {', '.join(filter(None, [result.get('outcome'), version]))}")
        finally:
            attempt.flush()


_DIED = {
    "what": f"The training was lost {ATTEMPTS} times",
    "why": "the process or machine that ran it ended without a word, as when memory runs out",
    "next": "Train with a smaller size or batch size, or on another machine.",
    "exit_code": int(Exit.STORAGE),
}


class _Attempt:
    """One attempt at a training, which repeats what an earlier one has finished: that costs little."""

    def __init__(self, worker: Worker, job: Job, lease: Lease, log: Segments) -> None:
        self._worker, self._job, self._lease, self._log = worker, job, lease, log
        self._lines = 0
        self._looked = time.monotonic()
        name = str(job.request["dataset"]).partition("@")[0]
        self._dataset = worker.datasets.get(name, job.dataset)
        self._model = storage.join(worker.registry, str(job.request["name"]))

    def run(self) -> dict[str, Any]:
        """Split if needed, then do what was asked for. Returns the result for `finish`."""
        self.note(f"Worker {socket.gethostname()}, process {os.getpid()}")
        if self._job.work:
            return self._retrain()
        dataset = f"{self._dataset}@{self._prepare()}"
        number = self._job.request["version"]
        entry, scores, validation = self._validate_again(dataset, number) if number else self._train_new(dataset)
        return {
            "model": self._job.request["name"],
            "version": entry.number,
            "digest": entry.digest,
            "scores": dict(scores),
            "validation": validation,
        }

    def _train_new(self, dataset: str) -> tuple[Entry, Mapping[str, float], str]:
        """The version that is trained, its scores, and the URL of its evidence."""
        scores = self._train(dataset)["validation"]
        validation = self._validate(dataset, self._job.run)
        self._enter("register")
        added = registries.add(
            self._job.run,
            self._model,
            by=self._job.by,
            why=f"training {self._job.id}",
            evidence={"training": self._job.id, "validation": validation},
            alias=CHALLENGER,
            cache=self._worker.machine.cache(),
        )
        return added, scores, validation

    def _validate_again(self, dataset: str, number: int) -> tuple[Entry, Mapping[str, float], str]:
        """A version of the registry, its scores, and the URL of new evidence."""
        entry = ledger.load(self._model).entry(number)
        validation = self._validate(dataset, f"{self._model}@{number}")
        if not validation:
            raise InputError(f"{self._model}@{number} is not validated", "the log says why", "Read the log.")
        return entry, entry.event.content["metrics"], validation

    def _retrain(self) -> dict[str, Any]:
        """Run a round of `plantml retrain`, or resume that of an earlier attempt. Returns the result for `finish`."""
        job = self._job
        number = job.round
        if not number or number not in rounds.state(job.work).ended:
            config = storage.join(job.url, "retrain.yaml")
            wanted = retraining.configuration(
                job.request, dataset=self._dataset, model=self._model, work=job.work, by=job.by
            )
            storage.write(config, dump_yaml(wanted.model_dump(mode="json")).encode())
            if rounds.state(job.work).open not in {0, number}:  # of a retraining that was cancelled, or failed
                self._run_alone(["retrain", config, "--abandon"])
            result = self._run_alone(["retrain", config], self._note_round)
            number = int(result["round"])
            if not number:
                return {"model": job.request["name"], "version": 0, "digest": "", "scores": {}, "validation": "",
                        "outcome": result["outcome"], "reasons": result["reasons"]}  # fmt: skip
            self._worker.jobs.begin_round(job.id, number)
        state = rounds.state(job.work)
        results, ended = rounds.Round(job.work, number, state.begun[number]).results, state.ended[number][1]
        if "register" not in results:
            raise InputError(f"Round {number} was {ended['outcome']}", "", "Start a training again.")
        registered = results["register"]
        self._worker.jobs.prepare(job.id, versions.load(results["split"]["dataset"]).number)
        return {
            "model": job.request["name"],
            "version": registered["version"],
            "digest": registered["digest"],
            "scores": results["train"]["val"],
            "validation": results["compare"]["all"]["out"],
            "outcome": registered["outcome"],
            "reasons": registered["reasons"],
        }

    def _run_alone(self, words: Sequence[str], look: Callable[[], None] = lambda: None) -> Mapping[str, Any]:
        """Run `plantml retrain`; while the command of a worker that was killed saves its round, wait for it."""
        deadline = time.monotonic() + _PATIENCE
        while (result := self._run(words, look=look))["outcome"] == "busy":
            if time.monotonic() > deadline:
                raise StorageError("The rounds of this model are busy", result["reasons"][0], "Try again later.")
            self._check()
            time.sleep(_POLL)
        return result

    def _note_round(self) -> None:
        """Note which round a retraining is in, and what it does."""
        number = rounds.state(self._job.work).open
        if not number:
            return
        if not self._job.round:
            self._job = self._worker.jobs.begin_round(self._job.id, number)
        step = rounds.Round(self._job.work, number, {}).next
        if step is not None and _STAGES[step] != self._worker.jobs.get(self._job.id).stage:
            self._worker.jobs.enter(self._job.id, _STAGES[step])

    def note(self, line: str) -> None:
        """Add a line to the log."""
        self._lines += 1
        if self._lines == _MOST_LINES:
            line = f"The log ends here, after {_MOST_LINES} lines."
        if self._lines <= _MOST_LINES:
            with contextlib.suppress(StorageError):  # the line is kept for the next segment
                write_line(self._log, _ESCAPES.sub("", line.rstrip("\r\n").rpartition("\r")[2]))

    def flush(self) -> None:
        """Write the lines that were noted."""
        with contextlib.suppress(StorageError):  # they are kept for the next time
            self._log.flush()

    def _enter(self, stage: Stage) -> None:
        self._check()
        self._worker.jobs.enter(self._job.id, stage)

    def _check(self, look: Callable[[], None] = lambda: None) -> None:
        """Raise `_EndedError` if the work shall end; `look` is called now and then."""
        if self._worker.stop:
            raise _EndedError("The worker stops; another resumes the training.")
        if self._lease.lost:
            raise _EndedError("Another worker took over.")
        if time.monotonic() - self._looked > _LOOK_EVERY:
            self._looked = time.monotonic()
            with contextlib.suppress(StorageError):  # the next look may succeed
                if not self._worker.jobs.get(self._job.id).open:
                    raise _EndedError("The training was cancelled.")
                look()

    def _prepare(self) -> int:
        """The dataset version to train on: every photo of it has a split."""
        if self._job.version:
            return self._job.version
        self._enter("prepare")
        version = versions.load(self._dataset)
        usable = version.rows["split"].filter(version.rows["status"] == OK)
        if usable.null_count():
            keep = usable.null_count() < len(usable)
            ratios = retraining.ratios(float(self._job.request["test_share"]))
            committed = splits.split_dataset(self._dataset, ratios=ratios, keep=keep)
            version = committed.version
            counts = ", ".join(f"{number} {name}" for name, number in committed.report.counts.items())
            self.note(f"Split {'the new photos of ' if keep else ''}{version.ref}: {counts}")
        return self._worker.jobs.prepare(self._job.id, version.number).version

    def _train(self, dataset: str) -> Mapping[str, Any]:
        self._enter("train")
        self._wait_for_run()
        request = self._job.request
        words = ["train", dataset, "--out", self._job.run]
        words += ["--preset", request["preset"]]
        if request["budget"] is not None:
            words += ["--budget", f"{request['budget']:.0f}s"]
        for key, value in request.get("config", {}).items():
            # The server names models of its registry, which this machine may reach by another URL.
            chosen = storage.join(self._worker.registry, value) if key == "warm_start" and value else value
            words += ["--set", f"{key}={json.dumps(chosen)}"]
        return self._run(words)

    def _wait_for_run(self) -> None:
        """Wait for the training of a worker that was killed: it is saving its work."""
        folder = RunFolder(self._job.run, self._worker.machine)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with folder.locked():
                    return
            except InputError as error:
                if time.monotonic() > deadline:
                    raise StorageError(error.what, error.why, error.hint) from error
            self._check()
            time.sleep(0.5)

    def _validate(self, dataset: str, model: str) -> str:
        """Validate a model for a promotion; returns the URL of the evidence, which is empty if there is none."""
        self._enter("validate")
        if versions.load(dataset).usable("test").is_empty():
            self.note("There are no test photos, so the model is not validated.")
            return ""
        words = ["validate", dataset, "--model", model, "--out", self._job.validation, "--max-failures", "100%"]
        in_service = ledger.History(self._model).ledger().current(GUARDED)
        if in_service is not None and in_service.number != self._job.request["version"]:
            words += ["--against", f"{self._model}@{GUARDED}", "--max-drop", str(MAX_DROP), "--shared-classes"]
        try:
            self._run(words, accepted=(Exit.DONE, Exit.GATE))
        except _FailedError as error:
            if error.is_transient:
                raise
            self.note(f"The model is not validated: {error.failure['what']}: {error.failure['why']}")
            return ""
        return self._job.validation

    def _run(
        self,
        words: Sequence[str],
        accepted: Sequence[int] = (Exit.DONE,),
        look: Callable[[], None] = lambda: None,
    ) -> Mapping[str, Any]:
        """Run a command line, with its messages in the log; returns its result. `look` is called now and then.

        Raises:
            _FailedError: it failed.
            _EndedError: it was ended, with its work saved.
        """
        self.note(f"$ plantml {shlex.join(words)}")
        flags = ["--json", "--offline"] if self._worker.machine.offline else ["--json"]
        with self._worker.start([*words, *flags]) as process:
            try:
                while process.running():
                    for line in process.new_lines():
                        self.note(line)
                    with contextlib.suppress(StorageError):
                        self._log.add()  # what is due
                    self._check(look)
            except _EndedError:
                process.end()
                raise
            finally:
                for line in process.new_lines():
                    self.note(line)
                self.flush()
            result = process.result()
        if process.code not in accepted:
            raise _FailedError(process.code, _failure_of(process.code, words[0], result))
        return result


def _explained(error: Exception) -> _FailedError:
    if isinstance(error, PlantmlError):
        what, why, hint, code = error.what, error.why, error.hint, int(error.exit_code)
    else:
        what, why, hint = "plantml has a bug", f"{type(error).__name__}: {error}", "Report it."
        code = int(Exit.BUG)
    return _FailedError(code, {"what": what, "why": why, "next": hint, "exit_code": code})


def _failure_of(code: int, command: str, result: Mapping[str, Any]) -> dict[str, Any]:
    error = result.get("error")
    if isinstance(error, dict):
        return {"what": error["what"], "why": error["why"], "next": error["hint"], "exit_code": code}
    why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return {"what": f"plantml {command} ended without a result", "why": why, "next": "See the log.", "exit_code": code}
