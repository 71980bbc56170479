"""Trainings as a fold over events, in every kind of storage."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from plantml.errors import InputError, NotFoundError, StorageError
from plantml.serve.work.jobs import Jobs, check_line_id, lost_attempts, read_log, write_line
from plantml.storage.event_log import Events
from plantml.storage.segments import Segments

RESULT = {"model": "leaf", "version": 1, "digest": "ab", "scores": {}, "validation": ""}


def submit(jobs, name, most=100):
    return jobs.submit({"dataset": "leaves", "name": name}, "ada", "/leaves", most=most)


def test_a_training_ends_once(url) -> None:
    jobs = Jobs(url)
    assert jobs.list() == []
    job = submit(jobs, "leaf")
    assert (job.id, job.status, job.version, job.open) == (1, "waiting", 0, True)
    assert jobs.prepare(1, 7).version == 7
    assert jobs.prepare(1, 8).version == 7
    lease = jobs.take(jobs.get(1))
    assert jobs.take(jobs.get(1)) is None
    with lease:
        assert (jobs.get(1).status, bool(jobs.get(1).worker)) == ("running", True)
        jobs.enter(1, "train")
        jobs.finish(1, RESULT)
        jobs.fail(1, {"what": "too late"})
    assert jobs.cancel(1, "bob").status == "done"
    job = Jobs(url).get(1)
    assert (job.status, job.stage, job.result, job.failure, job.worker) == ("done", "train", RESULT, {}, "")
    assert jobs.take(job) is None
    assert [each.content["act"] for each in Events(f"{jobs.url}/events").read()] == [
        "submit", "prepare", "prepare", "stage", "done",
    ]  # fmt: skip
    assert submit(jobs, "leaf").id == 2  # the same may be asked for again once it has ended
    with pytest.raises(NotFoundError, match="no training 3"):
        jobs.get(3)


def test_many_ask_at_once_and_no_more_than_allowed_wait(tmp_path) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda number: submit(Jobs(str(tmp_path)), f"leaf{number % 6}", most=4), range(12)))
    assert {job.id for job in jobs if job is not None} == {1, 2, 3, 4}
    assert len({job.request["name"] for job in jobs if job is not None}) == 4
    assert sum(job is None for job in jobs) == 4  # of two names, twice


def test_each_lost_attempt_is_counted_and_a_pause_grows(tmp_path) -> None:
    jobs = Jobs(str(tmp_path))
    submit(jobs, "leaf")
    for lost in range(2):
        assert lost_attempts(jobs.get(1)) == max(0, lost - 1)
        assert jobs.take(jobs.get(1), seconds=0.01) is not None
        time.sleep(0.02)
    with jobs.take(jobs.get(1)):
        pass  # given back, so it is not lost
    assert lost_attempts(jobs.get(1)) == 2
    pauses = []
    for _ in range(2):
        jobs.retry(1, {"what": "away", "why": "", "next": "", "exit_code": 6})
        pauses.append(jobs.get(1).not_before - time.time())
    assert (pauses[1] > 1.5 * pauses[0], lost_attempts(jobs.get(1))) == (True, 4)
    assert jobs.get(1).status == "waiting"


def test_an_event_that_contradicts_the_others_is_damaged(tmp_path) -> None:
    for number, content in enumerate(
        [{"act": "done", "job": 1}, {"act": "submit", "job": 1}, {"job": 1}, {"act": "x"}]
    ):
        jobs = Jobs(str(tmp_path / str(number)))
        Events(f"{jobs.url}/events").append(lambda _, content=content: content)
        with pytest.raises(StorageError, match="is damaged"):
            jobs.list()


def test_a_log_is_read_on_from_any_line(tmp_path) -> None:
    url = str(tmp_path / "log")
    log = Segments(url, rows=3)
    for number in range(8):
        write_line(log, f"line {number}")
    log.flush()
    lines = list(read_log(url))
    assert [line.text for line in lines] == [f"line {number}" for number in range(8)]
    for index, line in enumerate(lines):
        assert list(read_log(url, line.id)) == lines[index + 1 :]
    (tmp_path / "log" / "000002.jsonl").write_bytes(b"x")
    damaged = list(read_log(url))
    assert (len(damaged), "is damaged" in damaged[3].text, damaged[4:]) == (6, True, lines[6:])
    for wrong in ("x", "1", "1.x", "-1.2", "1" * 40):
        with pytest.raises(InputError, match="no line of a log"):
            check_line_id(wrong)
