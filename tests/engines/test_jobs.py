import json
import os

import pytest

from plantml import storage
from plantml.engines import jobs
from plantml.engines.jobs import ATTEMPTS, PHOTOS, Part, part_size
from plantml.errors import Exit, InputError, MissingExtraError, PlantmlError, StorageError, UsageError


@pytest.fixture
def plan(url):
    """`plan(rows, key=value…)`: a job in each kind of storage."""

    def make(rows, **changes):
        options = {"total": len(rows), "workers": 2, "threads": 1, "offline": False,
                   "segments": f"{url}/out", "libraries": ["onnxruntime"],
                   "ending": ".jsonl", "after": 7}  # fmt: skip
        return jobs.plan(f"{url}/jobs", "detect", {"model": "leaf"}, iter(rows), **{**options, **changes})

    return make


@pytest.mark.parametrize(("total", "workers"), [(1, 8), (23, 2), (100_000, 4), (10_000_000, 64)])
def test_there_are_more_parts_than_workers_and_none_is_long(total, workers):
    size = part_size(total, workers)
    assert 1 <= size <= PHOTOS
    assert -(-total // size) >= min(total, 3 * workers)


def test_a_job_is_read_back_with_all_its_photos(plan):
    rows = [[f"s3://season/{number}.jpg", "stamp"] for number in range(21)]
    job = plan(rows)
    same = jobs.load(job.url, job.digest)
    assert same.digest == job.digest
    assert [row for number in same.numbers for row in Part(same, number, 0).rows()] == rows
    assert list(same.sizes) == [3] * 7


def test_attempts_write_segments_of_their_own_above_those_that_were_there(plan):
    job = plan([["s3://season/a.jpg", ""]] * 9)
    places = [(number, attempt) for number in (1, 2) for attempt in range(ATTEMPTS)]
    for place in places * 2:  # the second time as if a cluster had started it once more
        segments = Part(job, *place).segments(1, 1e9)
        segments.add(repr(place).encode())
        assert segments.last > 7
    names = [entry.name for entry in storage.list_files(job.segments)]
    assert len(names) == len(set(names)) == 2 * len(places)


def test_how_attempts_ended_is_written_down(plan):
    job = plan([["s3://season/a.jpg", ""]] * 2)
    job.end(1, 0, None)
    job.end(2, 1, InputError("what", "why", "hint"))
    assert sorted(job.ended()) == [(1, 0), (2, 1)]
    assert job.error(1, 0) is None
    assert str(job.error(2, 1)) == "what: why"


def test_an_array_shares_its_parts(plan):
    job = plan([["s3://season/a.jpg", ""]] * 2)
    places = [(number, 0) for number in range(1, 8)]
    job.write_array(1, 3, places)
    shares = [job.share(1, index) for index in range(3)]
    assert sorted(place for share in shares for place in share) == places
    assert max(map(len, shares)) == 3


def test_jobs_are_removed_with_those_of_killed_commands(plan):
    plan([["s3://season/a.jpg", ""]])
    job = plan([["s3://season/a.jpg", ""]])
    job.remove()
    assert not storage.exists(storage.join(job.url, "job.json"))
    with pytest.raises(InputError, match="cannot see the job"):
        jobs.load(job.url, job.digest)


def test_a_machine_with_another_file_at_the_path_is_refused(plan):
    job = plan([["s3://season/a.jpg", ""]])
    with pytest.raises(InputError, match="another job"):
        jobs.load(job.url, "0" * 16)


def test_a_machine_that_does_not_see_the_photos_is_refused(plan, write_photos, tmp_path, monkeypatch):
    folder = write_photos(tmp_path, ["photos/a.jpg"])
    monkeypatch.chdir(folder)
    job = plan([["s3://season/b.jpg", ""], ["photos/none.jpg", ""], ["photos/a.jpg", ""]])
    jobs.load(job.url, job.digest)
    monkeypatch.chdir("/")  # paths start where the command was given
    jobs.load(job.url, job.digest)
    os.utime(folder / "photos" / "a.jpg", (1, 1))
    with pytest.raises(InputError, match="does not see the photos") as error:
        jobs.load(job.url, job.digest)
    assert "shared file system" in error.value.hint


def test_other_versions_are_named(plan, monkeypatch):
    job = plan([["s3://season/a.jpg", ""]])
    assert job.versions == jobs.versions(["onnxruntime"])
    monkeypatch.setattr(jobs, "_version", {"onnxruntime": "9.9"}.get)
    with pytest.raises(InputError, match=r"numpy missing in place of .*onnxruntime 9\.9 in place of"):
        jobs.load(job.url, job.digest)


@pytest.mark.parametrize("kind", [UsageError, InputError, StorageError, MissingExtraError, PlantmlError])
def test_errors_keep_their_exit_code_on_the_way(kind):
    error = jobs.error_from_json(json.loads(json.dumps(jobs.error_as_json(kind("what", "why", "hint")))))
    assert type(error) is kind
    assert (error.what, error.why, error.hint) == ("what", "why", "hint")
    assert error.exit_code == kind.exit_code != Exit.DONE
