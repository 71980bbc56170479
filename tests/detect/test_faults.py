"""What goes wrong around a detection has a clear end, and costs no image."""

import io
import json
import os
import signal
import socket
import threading
import zipfile
from pathlib import Path

import polars as pl
import pytest

from plantml import concurrency, storage
from plantml.concurrency import Stop
from plantml.detect.detect import detect
from plantml.detect.sources import collect
from plantml.errors import Exit, InputError, StorageError, TerminatedError
from plantml.storage import local_files


def codes(records):
    return {Path(record["image"]).name: (record["failure"] or "none").split(":")[0] for record in records}


@pytest.fixture
def photos(paint):
    for number in range(12):
        paint(f"{number:02d}.png", number * 20)
    return paint("00.png", 0).parent


@pytest.fixture
def between(configured, tmp_path):
    """`between(folder, act)`: a detection in which something happens after the photos were listed."""

    def work(folder, act, **settings):
        out = tmp_path / "records.jsonl"
        config, pipeline = configured(out=str(out), **settings)
        found = collect([str(folder)])
        act()
        with Stop() as stop:
            done = detect(found, pipeline, config, stdout=io.StringIO(), stop=stop)
        return done, [json.loads(line) for line in out.read_text().splitlines()]

    return work


def test_a_photo_that_vanishes_is_a_record_that_says_so(between, photos):
    _, records = between(photos, (photos / "03.png").unlink)
    assert len(records) == 12
    assert codes(records)["03.png"] == "not-found"


def test_a_photo_that_changes_after_it_was_listed_is_looked_at_again_next_time(between, photos, paint):
    first, before = between(photos, lambda: paint("03.png", 255, size=(30, 30)))
    assert [record["width"] for record in before][3] == 30  # the record is of the bytes that were read
    paint("04.png", 255, size=(40, 40))
    again, after = between(photos, lambda: None)
    assert (first.resumed, again.resumed) == (0, 10)
    assert [record["width"] for record in after][3:5] == [30, 40]
    assert between(photos, lambda: None)[0].resumed == 12


def test_a_photo_that_is_cut_off_while_it_is_copied_is_whole_next_time(between, photos):
    whole = (photos / "03.png").read_bytes()
    _, records = between(photos, lambda: (photos / "03.png").write_bytes(whole[:50]))
    assert codes(records)["03.png"] == "truncated"
    (photos / "03.png").write_bytes(whole)
    done, records = between(photos, lambda: None)
    assert set(codes(records).values()) == {"none"}
    assert done.resumed == 11


@pytest.mark.parametrize(
    ("error", "code"), [(PermissionError(13, "Permission denied"), "refused"), (TimeoutError("no answer"), "timeout"),
                        (OSError(5, "Input/output error"), "unreachable")],
)  # fmt: skip
def test_a_photo_that_cannot_be_read_says_why_and_is_retried_when_asked(between, photos, monkeypatch, error, code):
    read = local_files.read_file

    def fail(path, limit):
        if path.endswith("03.png"):
            raise error
        return read(path, limit)

    with monkeypatch.context() as patch:
        patch.setattr(local_files, "read_file", fail)
        done, records = between(photos, lambda: None)
    assert codes(records)["03.png"] == code
    assert done.failures == {code: 1}
    assert codes(between(photos, lambda: None)[1])["03.png"] == code
    again, records = between(photos, lambda: None, retry_failed=True)
    assert again.resumed == 11
    assert set(codes(records).values()) == {"none"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_photo_without_permission_is_a_record(between, photos):
    _, records = between(photos, lambda: (photos / "03.png").chmod(0))
    assert codes(records)["03.png"] == "refused"


def test_a_damaged_member_of_an_archive_is_damaged(run, photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(photos.iterdir()):
            archive.write(file, file.name)
        start = archive.getinfo("03.png").header_offset
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[start + 60] ^= 255
    (tmp_path / "a.zip").write_bytes(data)
    _, records = run(tmp_path / "a.zip")
    failures = [record["failure"] for record in records]
    assert [(failure or "none").split(":")[0] for failure in failures] == ["none"] * 3 + ["damaged"] + ["none"] * 8


FULL = """
import resource, signal, sys

limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
from plantml.detect import journal

journal.SEGMENT_ROWS = 4
from plantml.cli.app import main

main()
"""
"""The command where no file may grow beyond a limit: what a full disk does to a write."""


@pytest.mark.parametrize("limit", [0, 5_000])
def test_a_full_disk_ends_with_a_reason_and_the_work_so_far(cli, trained, run_python, photos, tmp_path, limit):
    out = tmp_path / "records.jsonl"
    line = ("detect", photos, "--model", trained.run, "--out", out)
    process = run_python(FULL, limit, *line)
    _, err = process.communicate(timeout=120)
    assert process.returncode == Exit.STORAGE, err
    assert "Could not" in err
    assert "File too large" in err
    assert "Traceback" not in err
    assert not out.exists()
    assert not list(tmp_path.glob(".*.part"))
    again = cli(*line, "--json")
    assert again.json["resumed"] == (12 if limit else 0)  # each segment fits into the limit, the output does not
    fresh = tmp_path / "fresh.jsonl"
    cli("detect", photos, "--model", trained.run, "--out", fresh)
    assert out.read_bytes() == fresh.read_bytes()


def test_a_place_that_cannot_be_written_is_told_before_the_work(run, photos, tmp_path, formula):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises((StorageError, InputError)):
        run(photos, out=tmp_path / "file" / "records.jsonl")
    assert formula.calls == 0


def test_two_runs_at_once_are_told_apart(configured, photos, tmp_path, monkeypatch):
    config, pipeline = configured(out=str(tmp_path / "records.jsonl"))
    found = collect([str(photos)])
    create, nested = storage.create, []

    def other_is_faster(url, data):
        if url.endswith("000001.jsonl") and not nested:
            nested.append(url)
            with Stop() as stop:
                detect(found, pipeline, config, stdout=io.StringIO(), stop=stop)
        create(url, data)

    monkeypatch.setattr(storage, "create", other_is_faster)
    with Stop() as stop, pytest.raises(InputError, match="written by another run"):
        detect(found, pipeline, config, stdout=io.StringIO(), stop=stop)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 12


def test_what_is_no_regular_file_is_refused_in_its_record(between, photos, tmp_path):
    os.mkfifo(photos / "pipe.png")
    (photos / "zero.png").symlink_to("/dev/zero")
    (photos / "sparse.png").touch()
    os.truncate(photos / "sparse.png", storage.MAX_PHOTO + 1)
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(photos / "socket.png"))
        _, records = between(photos, lambda: None)
    assert len(records) == 16
    refused = {Path(record["image"]).name: record["failure"] for record in records if record["failure"]}
    assert refused.keys() == {"pipe.png", "zero.png", "sparse.png", "socket.png"}
    assert all(why.startswith("refused: ") for why in refused.values())
    assert "a named pipe" in refused["pipe.png"]


def test_a_signal_while_a_server_is_waited_for_keeps_what_was_answered(configured, photos, bad_server, tmp_path):
    out = tmp_path / "records.jsonl"
    config, pipeline = configured(out=str(out))
    found = collect([str(photos / "00.png"), str(photos / "01.png"), f"{bad_server}/drip.png"])
    threading.Timer(0.5, concurrency._ending.note, [signal.SIGTERM]).start()
    try:
        with Stop() as stop, pytest.raises(TerminatedError, match="waiting for"):
            detect(found, pipeline, config, stdout=io.StringIO(), stop=stop)
    finally:
        concurrency._ending.forget()
    assert storage.read(f"{out}.journal/000001.jsonl").count(b'"plantml_record"') == 2


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/00.png"])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_name_that_is_not_utf_8_is_written_as_text(configured, paint, tmp_path, name, ending):
    place = tmp_path / "odd" / os.fsdecode(name)
    place.parent.mkdir(parents=True)
    place.write_bytes(paint("00.png", 0).read_bytes())
    out = tmp_path / f"records.{ending}"
    config, pipeline = configured(out=str(out))
    for _ in range(2):  # the second one goes on from the journal
        with Stop() as stop:
            done = detect(collect([str(tmp_path / "odd")]), pipeline, config, stdout=io.StringIO(), stop=stop)
        assert (done.images, done.failed) == (1, 0)
    if ending == "jsonl":
        assert json.loads(out.read_bytes().decode())["image"] == str(place)
    else:
        table = pl.read_csv(out) if ending == "csv" else pl.read_parquet(out)
        assert table["image"].to_list() == [str(place).replace("\udce9", "\\udce9")]
