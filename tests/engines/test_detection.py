"""Parts of a detection give the bytes that one process writes."""

import pytest

from plantml.concurrency import Stop
from plantml.engines import detection, dispatch, jobs, kinds
from plantml.engines.jobs import Part
from plantml.errors import Exit, InputError


@pytest.fixture
def command(trained, tmp_path):
    """`command(*options)`: a detection into `records.jsonl` of the test's folder."""
    line = ("detect", trained.photos, "--model", trained.run, "--out", tmp_path / "records.jsonl")
    return lambda *options: (*line, *options)


def test_processes_write_the_bytes_of_one_and_a_repeated_command_does_nothing(cli, command, tmp_path):
    result = cli(*command("--on", "local:2"))
    assert result.code == 0, result.err
    assert "parts on local:2, 2 at a time" in result.err
    records = (tmp_path / "records.jsonl").read_bytes()
    assert not (tmp_path / "records.jsonl.journal" / "parts").exists()
    assert cli(*command("--on", "local:9", "--json")).json["resumed"] == records.count(b"\n")
    assert cli(*command("--fresh")).code == 0
    assert (tmp_path / "records.jsonl").read_bytes() == records


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--on", "cloud"], "not an engine"),
        (["--on", "local:0"], "not an engine"),
        (["--on", "local:2", "--shard", "1/2"], "--on excludes --shard"),
        (["--on", "local:2", "--watch"], "--on excludes --shard and --watch"),
        (["--on", "local:2", "--out", "-"], "--on needs an output file"),
    ],
)
def test_what_an_engine_cannot_do_is_wrong_usage(cli, command, options, expected):
    result = cli(*command(*options))
    assert result.code == Exit.USAGE
    assert expected in result.err


@pytest.fixture
def planned(cli, command, monkeypatch):
    """A job whose parts nobody has done."""
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "run", lambda job, *_: seen.append(job))
        patch.setattr(jobs.Job, "remove", lambda _: None)
        cli(*command("--on", "local:2", "--retry-failed"))
    return seen[0]


def test_a_part_does_its_photos_and_no_others(planned, cli, command, monkeypatch):
    _, do = kinds.open_work(planned.url, planned.digest)
    counts = []
    with Stop() as stop:
        do(Part(planned, 2, 0), stop, counts.append)
    assert counts == list(range(1, planned.sizes[1] + 1))
    monkeypatch.setattr(dispatch, "run", lambda *_: pytest.fail("nothing is left"))
    with Stop() as stop:
        for number in set(planned.numbers) - {2}:
            do(Part(planned, number, 0), stop, lambda _: None)
    assert cli(*command("--on", "local:2", "--json")).json["resumed"] == sum(planned.sizes)


def test_a_worker_with_another_model_is_refused(planned, monkeypatch):
    kinds.open_work(planned.url, planned.digest)
    other = {**planned.options, "model": {**planned.options["model"], "model": "0" * 64}}
    monkeypatch.setattr(jobs, "load", lambda *_: jobs.Job(**{**vars(planned), "options": other}))
    with pytest.raises(InputError, match="has another model") as error:
        kinds.open_work(planned.url, planned.digest)
    assert "and was 000000000000 when" in error.value.why
    assert planned.kind == detection.KIND
