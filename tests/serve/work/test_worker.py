"""Trainings reach the registry once, whoever dies on the way."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from tests.serve.conftest import write_bundle

from plantml import registry, settings, storage
from plantml.concurrency import Stop
from plantml.data import versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.errors import StoppedError
from plantml.parsing import parse_yaml
from plantml.registry import ledger
from plantml.retrain import rounds
from plantml.retrain.config import RetrainConfig
from plantml.serve.work import worker as workers
from plantml.serve.work.jobs import Jobs, lost_attempts, read_log
from plantml.serve.work.subcommand import Subcommand
from plantml.serve.work.worker import Worker
from plantml.storage import lease as leases

REQUEST = {"dataset": "leaves", "name": "leaf", "version": None, "test_share": 0.25, "preset": "quick", "budget": None,
           "config": {"epochs": 3, "targets": ["disease"]}}  # fmt: skip

# A training in a process: it works in steps of a moment each, and resumes after the last one that was saved.
SLOW = """
import json, os, pathlib, shutil, signal, sys, time
from plantml.serve.work import subcommand
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
subcommand.end_with_parent()
run = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
run.mkdir(parents=True, exist_ok=True)
(run / "pid").write_text(str(os.getpid()))
if sys.argv[3] == "train":
    saved = run / "saved"
    first = int(saved.read_text()) if saved.exists() else 0
    for step in range(first, int(sys.argv[2])):
        print(f"\\x1b[1mstep {step + 1} from {first}\\x1b[0m", file=sys.stderr)
        time.sleep(0.02)
        (run / "new").write_text(str(step + 1))
        (run / "new").rename(saved)
    shutil.copytree(sys.argv[1], run / "bundle")
print(json.dumps({"validation": {}, "pid": os.getpid()}))
"""


class FakeCommand:
    """Stands for a command: it ends at once, with its files written."""

    def __init__(self, words, place):
        self.words, self.code, self._lines = words, 0, []
        place.commands.append(words)
        failure = place.failures.pop(words[0], None)
        if failure is not None:
            self.code = failure
            error = {"what": f"{words[0]} failed", "why": "a test wants it", "hint": "Nothing.", "exit_code": failure}
            self._result = {"error": error}
            return
        if words[0] == "retrain":
            self._result = place.retrained.pop(0)
            return
        out = words[words.index("--out") + 1]
        if words[0] == "train":
            self._lines = ["\x1b[1mepoch 1/3\x1b[0m\r\x1b[1mepoch 2/3\x1b[0m\n", "a line\n"]
            for file in (place.folder / "bundle").iterdir():
                storage.write(storage.join(out, "bundle", file.name), file.read_bytes())
        self._result = {"validation": {"macro_f1": 0.75, "disease.macro_f1": 0.5}}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def running(self):
        return False

    def new_lines(self):
        lines, self._lines = self._lines, []
        return lines

    def result(self):
        return self._result


class Place:
    """A state folder with a dataset and a registry, on this machine or in a bucket, and workers for it."""

    def __init__(self, root, folder, write_photos):
        self.folder, self.commands, self.failures, self.retrained = folder, [], {}, []
        self.registry, self.state, self.dataset = f"{root}/models", f"{root}/state", f"{root}/leaves"
        self.jobs = Jobs(self.state)
        names = [f"{name}/{number}.jpg" for name in ("bean", "tomato") for number in range(6)]
        source = str(write_photos(folder / "photos", names))
        import_source(source, self.dataset, list_source(source, rule="category"))
        write_bundle(str(folder / "bundle"), 7)

    def slow(self, steps):
        """What runs `SLOW` in place of plantml."""
        return [sys.executable, "-c", SLOW, str(self.folder / "bundle"), str(steps)]

    def work(self, stop=None, start=None):
        """Do what waits; returns how many trainings were done."""
        start = start or (lambda words: FakeCommand(words, self))
        stop = Stop() if stop is None else stop
        worker = Worker(self.jobs, self.registry, {}, settings.machine(), stop, start=start, poll=0.05)
        return worker.work(once=True)

    def submit(self, **changes):
        return self.jobs.submit({**REQUEST, **changes}, "ada", self.dataset, most=10)

    def log(self, job):
        return [line.text for line in read_log(job.log)]

    def versions(self):
        return ledger.load(f"{self.registry}/leaf")


@pytest.fixture
def place(tmp_path, write_photos):
    return Place(str(tmp_path), tmp_path, write_photos)


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return result


@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_training_becomes_a_challenger_with_evidence(where, tmp_path, write_photos, request) -> None:
    root = str(tmp_path) if where == "local" else request.getfixturevalue("s3_url")
    place = Place(root, tmp_path, write_photos)
    job = place.submit()
    assert (job.id, job.status, place.submit().id) == (1, "waiting", 1)  # the same is not trained twice
    assert place.work() == 1
    job = place.jobs.get(1)
    assert (job.status, job.version, job.stage) == ("done", 2, "register")
    assert not versions.load(f"{place.dataset}@2").usable("test").is_empty()
    assert dict(place.versions().aliases) == {"challenger": 1}
    entry = place.versions().entries[1]
    assert job.result == {
        "model": "leaf", "version": 1, "digest": entry.digest, "validation": job.validation,
        "scores": {"macro_f1": 0.75, "disease.macro_f1": 0.5},
    }  # fmt: skip
    assert (entry.event.content["by"], entry.event.content["why"]) == ("ada", "training 1")
    assert place.jobs.trained(entry.digest) == job
    log = place.log(job)
    assert log[2].startswith(f"$ plantml train {place.dataset}@2 --out {job.run} --preset quick --set epochs=3")
    assert "epoch 2/3" in log  # without escape codes
    assert place.commands == [
        ["train", f"{place.dataset}@2", "--out", job.run, "--preset", "quick", "--set", "epochs=3",
         "--set", 'targets=["disease"]', "--json"],
        ["validate", f"{place.dataset}@2", "--model", job.run, "--out", job.validation, "--max-failures", "100%",
         "--json"],
    ]  # fmt: skip


def test_another_worker_resumes_what_a_killed_one_left(place, run_python) -> None:
    job = place.submit()
    code = """
import sys
from functools import partial
from plantml import settings
from plantml.concurrency import Stop
from plantml.serve.work.jobs import Jobs
from plantml.serve.work.subcommand import Subcommand
from plantml.serve.work.worker import Worker
state, registry, *command = sys.argv[1:]
start = partial(Subcommand, command=command)
Worker(Jobs(state), registry, {}, settings.machine(), Stop(), start=start).work(once=True)
"""
    command = place.slow(100)
    first = run_python(code, place.state, place.registry, *command)
    saved = Path(job.run, "saved")
    until(lambda: saved.exists() and int(saved.read_text()) >= 5)
    assert place.jobs.get(1).status == "running"
    assert place.work() == 0  # it is taken
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    pid = int(Path(job.run, "pid").read_text())
    until(lambda: not leases._started(pid))  # its command ends with it
    assert place.work(start=partial(Subcommand, command=command)) == 1
    resumed = next(int(line.split()[-1]) for line in place.log(job) if line.startswith("step") and line[-1] != "0")
    assert 5 <= resumed < 100
    assert (place.jobs.get(1).status, list(place.versions().entries)) == ("done", [1])
    assert lost_attempts(place.jobs.get(1)) == 1


def test_who_dies_again_and_again_is_given_up(place, monkeypatch) -> None:
    place.submit()
    for _ in range(workers.ATTEMPTS):
        assert place.jobs.take(place.jobs.get(1), seconds=0.01) is not None  # and never renewed
        time.sleep(0.02)
    place.work()
    job = place.jobs.get(1)
    assert (job.status, job.failure["what"]) == ("failed", "The training was lost 5 times")


class WhenSaved(Stop):
    """Acts when a training has saved its first step."""

    def __init__(self, job, act=lambda: True):
        super().__init__()
        self._saved, self._act = Path(job.run, "saved"), act

    def __bool__(self):
        return self._saved.exists() and self._act()


def test_a_training_is_cancelled_while_it_waits_and_while_it_runs(place, monkeypatch) -> None:
    monkeypatch.setattr(workers, "_LOOK_EVERY", 0.1)
    assert place.jobs.cancel(place.submit().id, "ada").status == "cancelled"
    assert place.work() == 0
    job = place.submit()
    stop = WhenSaved(job, lambda: place.jobs.cancel(2, "ada").open)
    place.work(stop, partial(Subcommand, command=place.slow(10_000)))
    assert (job.id, place.jobs.get(2).status) == (2, "cancelled")
    assert place.log(job)[-1] == "The training was cancelled."
    assert not storage.exists(f"{place.registry}/leaf")
    steps = Path(job.run, "saved").read_text()
    time.sleep(0.1)
    assert Path(job.run, "saved").read_text() == steps  # its process has ended


def test_a_stopped_worker_saves_its_training_for_the_next(place) -> None:
    job = place.submit()
    with pytest.raises(StoppedError, match="The worker stopped"):
        place.work(WhenSaved(job), partial(Subcommand, command=place.slow(10_000)))
    assert (place.jobs.get(1).status, lost_attempts(job)) == ("waiting", 0)
    assert place.work() == 1


@pytest.mark.parametrize(
    ("code", "status", "retries"), [(3, "failed", 0), (7, "failed", 0), (6, "waiting", 1), (-9, "waiting", 1)]
)
def test_a_failure_says_what_why_and_what_next(place, code, status, retries) -> None:
    place.failures["train"] = code
    place.submit()
    place.work()
    job = place.jobs.get(1)
    assert (job.status, job.retries) == (status, retries)
    assert job.failure == {
        "what": "train failed", "why": "a test wants it", "next": "Nothing.", "exit_code": code,
    }  # fmt: skip
    if retries:
        assert place.work() == 0  # there is a pause before the next attempt
        assert job.not_before > time.time()


def test_a_version_is_validated_again_and_compared_with_what_is_in_service_now(place) -> None:
    place.submit()
    place.work()
    model = f"{place.registry}/leaf"
    registry.add(write_bundle(str(place.folder / "other"), 8), model)
    registry.promote(model, 2, "production", why="a test", force=True)
    job = place.submit(version=1)
    place.commands.clear()
    assert place.work() == 1
    job, entry = place.jobs.get(2), place.versions().entries[1]
    assert (job.result["version"], job.result["digest"], job.result["validation"]) == (1, entry.digest, job.validation)
    assert [words[0] for words in place.commands] == ["validate"]
    words = " ".join(place.commands[0])
    assert f"--model {model}@1 --out {job.validation} " in words
    assert f"--against {model}@production --max-drop 0.01" in words
    assert (place.jobs.trained(entry.digest).id, place.jobs.validated(entry.digest).id) == (1, 2)


def ended_round(work, number, outcome):
    """Write the results of a round."""
    kept = rounds.Round(work, number, {})
    results = {
        "split": {"dataset": f"{Path(work).parents[3] / 'leaves'}@1"}, "train": {"val": {"macro_f1": 0.5}},
        "compare": {"all": {"out": "evidence"}},
        "register": {"version": 3, "digest": "ab", "outcome": outcome, "reasons": ["it is better"]},
    }  # fmt: skip
    for step in rounds.STEPS:
        kept.record(step, results.get(step, {}), {})
    rounds.end(work, number, {"outcome": outcome})


def test_a_retraining_whose_worker_died_after_its_round_has_the_result_of_that(place) -> None:
    job = place.submit(retrain={})
    assert rounds.begin(job.work, {"config": {}}) == 1
    place.jobs.begin_round(1, 1)
    ended_round(job.work, 1, "promoted")
    assert place.work() == 1
    job = place.jobs.get(1)
    assert (place.commands, job.status, job.version) == ([], "done", 1)
    assert job.result == {
        "model": "leaf", "version": 3, "digest": "ab", "scores": {"macro_f1": 0.5}, "validation": "evidence",
        "outcome": "promoted", "reasons": ["it is better"],
    }  # fmt: skip
    assert job.run == rounds.folder(job.work, 1) + "/challenger"
    assert place.jobs.trained("ab") == place.jobs.validated("ab") == job


def test_retrainings_of_a_model_take_turns_and_abandon_what_a_failed_one_left(place, monkeypatch) -> None:
    monkeypatch.setattr(workers, "_POLL", 0.0)
    first = place.submit(retrain={})
    other = place.submit(retrain={"min_new": 5})
    place.jobs.cancel(1, "ada")
    rounds.begin(first.work, {"config": {}})  # that the first one has left
    with place.jobs.take(other):
        place.submit(retrain={"min_new": 6})
        assert place.work() == 0  # it waits for the other
    place.jobs.cancel(3, "ada")
    nothing = {"outcome": "nothing to do", "reasons": ["nothing is new"], "round": 0}
    place.retrained = [{"outcome": "busy", "reasons": ["x"]}, {"outcome": "abandoned"}, nothing]
    assert place.work() == 1
    config = f"{other.url}/retrain.yaml"
    abandon, retrain = ["retrain", config, "--abandon", "--json"], ["retrain", config, "--json"]
    assert place.commands == [abandon, abandon, retrain]
    written = RetrainConfig.model_validate(parse_yaml(storage.read(config), config))
    assert (written.min_new, written.by, written.train.epochs, written.ratios) == (
        5, "ada", 3, "0.600000/0.15/0.250000",
    )  # fmt: skip
    assert place.jobs.get(2).result["outcome"] == "nothing to do"


def test_a_request_that_nobody_can_do_fails_alone(place) -> None:
    place.jobs.submit({"dataset": "leaves", "name": "leaf", "version": None}, "ada", place.dataset, most=10)
    place.submit()
    place.work()
    assert [(job.status, job.failure.get("why")) for job in place.jobs.list()] == [
        ("failed", "KeyError: 'test_share'"), ("done", None),
    ]  # fmt: skip


def test_a_model_that_cannot_be_validated_is_registered_without_evidence(place) -> None:
    place.failures["validate"] = 3
    place.submit()
    assert place.work() == 1
    job = place.jobs.get(1)
    assert (job.status, job.result["validation"]) == ("done", "")
    assert "The model is not validated: validate failed: a test wants it" in place.log(job)


def test_new_photos_join_an_existing_split_and_a_pinned_version_stays(place, write_photos) -> None:
    place.submit()
    place.work()
    source = str(write_photos(place.folder / "more", [f"bean/n{number}.jpg" for number in range(4)], first_seed=50))
    import_source(source, place.dataset, list_source(source, rule="category"))
    assert versions.load(place.dataset).rows["split"].null_count() == 4
    place.submit(config={})
    place.work()
    job = place.jobs.get(2)
    assert job.version == 4
    before, after = (versions.load(f"{place.dataset}@{number}") for number in (2, 4))
    assert after.rows["split"].null_count() == 0
    assert set(before.usable("test")["image_id"]) == set(after.usable("test")["image_id"])
    assert place.jobs.get(1).version == 2
