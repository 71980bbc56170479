import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from plantml.errors import Exit, UsageError
from plantml.model.records import allowed_failures

BROKEN = {"b-empty.jpg": b"", "d-text.jpg": b"no picture", "f-cut.png": None}
GOOD = ("a.jpg", "c.jpg", "e.png", "g.jpg", "h.jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_photos, photo):
    """Five photos and three files that give none."""
    home = write_photos(tmp_path_factory.mktemp("mixed"), GOOD)
    for name, data in BROKEN.items():
        (home / name).write_bytes(photo(format="PNG")[:-300] if data is None else data)
    (home / "notes.md").write_bytes(b"notes")
    return home


@pytest.fixture
def detect(cli, trained):
    """`detect(*arguments)`: the command with the trained model."""
    return lambda *arguments, **more: cli("detect", *arguments, "--model", trained.run, **more)


def records(out):
    return [json.loads(line) for line in Path(out).read_text().splitlines()]


def names(lines):
    return [Path(record["image"]).name for record in lines]


# --- records ----------------------------------------------------------------------------------


def test_every_image_gets_its_record_and_failures_say_why(detect, folder, tmp_path):
    gone = folder / "gone.jpg"
    result = detect(folder, gone, "--out", tmp_path / "records.jsonl", "--json", "--max-failures", 4)
    assert result.code == Exit.DONE, result.err
    lines = records(tmp_path / "records.jsonl")
    assert names(lines) == [*sorted([*GOOD, *BROKEN]), "gone.jpg"]
    codes = {Path(one["image"]).name: one["failure"].split(":")[0] for one in lines if one["failure"]}
    assert codes == {
        "b-empty.jpg": "empty",
        "d-text.jpg": "not-an-image",
        "f-cut.png": "truncated",
        "gone.jpg": "not-found",
    }
    assert result.json["images"] == 9
    assert Counter(result.json["failures"]) == Counter(codes.values())
    assert sum(result.json["decisions"].values()) == 5
    assert sum(result.json["labels"]["category"].values()) == 5
    assert result.json["skipped"] == {"no image extension": 1}


@pytest.mark.parametrize(
    ("allowed", "code"),
    [(None, 5), ("0", 5), ("2", 5), ("3", 0), ("37%", 5), ("38%", 0), ("100%", 0)],
)
def test_exit_code_tells_if_more_failed_than_was_allowed(detect, folder, tmp_path, allowed, code):
    out = tmp_path / "records.jsonl"
    result = detect(folder, "--out", out, *(() if allowed is None else ("--max-failures", allowed)))
    assert result.code == code
    assert len(records(out)) == 8
    assert ("3 of 8 images failed" in result.err) == bool(code)


@pytest.mark.parametrize("allowed", ["few", "-1", "-5%", "%", "nan%", "1.5"])
def test_a_senseless_number_of_failures_is_wrong_usage(detect, folder, tmp_path, allowed):
    result = detect(folder, "--out", tmp_path / "records.jsonl", f"--max-failures={allowed}")
    assert result.code == Exit.USAGE, result.err
    assert not list(tmp_path.iterdir())


def test_the_allowed_number_may_come_from_the_environment_or_a_file(detect, folder, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("max_failures: 3\n")
    line = (folder, "--out", tmp_path / "records.jsonl")
    assert detect(*line, "--config", tmp_path / "config.yaml").code == Exit.DONE
    assert detect(*line, "--set", "max_failures=3").code == Exit.DONE
    monkeypatch.setenv("PLANTML_DETECT__MAX_FAILURES", "3")
    assert detect(*line).code == Exit.DONE


@pytest.mark.parametrize(("text", "images", "number"), [("3", 10, 3), ("2%", 100, 2), ("2%", 149, 2), ("0.5%", 200, 1)])
def test_a_share_is_of_the_images_and_rounded_down(text, images, number):
    assert allowed_failures(text, images) == number
    with pytest.raises(UsageError, match="not a number"):
        allowed_failures(f"{text}x", images)


def test_standard_output_gets_the_same_lines_and_nothing_else(detect, folder, tmp_path):
    detect(folder, "--out", tmp_path / "records.jsonl")
    result = detect(folder)
    assert result.code == Exit.FAILURES
    assert result.out == (tmp_path / "records.jsonl").read_text()
    assert "8 records, 3 failures" in result.err
    assert detect(folder, "--out", "-", "--max-failures", 3).out == result.out


def test_standard_input_names_the_images(detect, folder):
    listed = "\0".join(str(folder / name) for name in ("g.jpg", "a.jpg"))
    result = detect("-", stdin=listed.encode())
    assert names(map(json.loads, result.out.splitlines())) == ["g.jpg", "a.jpg"]


def test_batch_and_threads_change_no_byte(detect, folder):
    one, *others = (
        detect(folder, "--batch", batch, "--threads", threads).out
        for batch, threads in ((1, 1), (2, 3), (3, 2), (64, 4))
    )
    assert one
    assert others == [one] * 3


def test_a_name_that_is_no_unicode_is_printed_as_json(trained, tmp_path, photo):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(photo())
    command = [sys.executable, "-m", "plantml", "detect", str(tmp_path), "--model", trained.run]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}  # as in most locales
    done = subprocess.run(command, check=False, capture_output=True, env=strict, timeout=60)
    assert done.returncode == Exit.DONE, done.stderr
    assert os.fsencode(json.loads(done.stdout.decode())["image"]).endswith(b"/caf\xe9.jpg")


def test_a_sheet_is_drawn_beside_the_records(detect, folder, tmp_path):
    detect(folder, "--out", tmp_path / "records.csv", "--sheet", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "records.xml"), "records.xml"),
        (("--json",), "--json"),
        (("--sheet", "sheet.png"), "--sheet"),
        (("--out", "records.jsonl", "--runtime", "abacus"), "abacus"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage_and_leaves_nothing(detect, folder, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    result = detect(folder, *options)
    assert result.code == Exit.USAGE
    assert said in result.err
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_beside_the_sources(detect, folder, tmp_path, contents):
    before = contents(folder)
    for out in ("-", tmp_path / "records.jsonl", tmp_path / "records.parquet"):
        detect(folder, "--out", out)
    assert contents(folder) == before


# --- going on ---------------------------------------------------------------------------------


def journal_rows(out):
    segments = sorted(Path(f"{out}.journal").glob("*.jsonl"))
    return [len(segment.read_bytes().splitlines()) - 1 for segment in segments]  # the last line is the checksum


def test_a_repeat_does_nothing_and_new_photos_are_added(detect, tmp_path, write_photos):
    home, out = write_photos(tmp_path / "photos", ("a.jpg", "c.jpg")), tmp_path / "records.jsonl"
    assert detect(home, "--out", out, "--json").json["resumed"] == 0
    first = out.read_bytes()
    assert detect(home, "--out", out, "--json").json["resumed"] == 2
    assert out.read_bytes() == first
    write_photos(home, ("b.jpg",), first_seed=7)
    again = detect(home, "--out", out, "--json").json
    assert (again["images"], again["resumed"]) == (3, 2)
    assert names(records(out)) == ["a.jpg", "b.jpg", "c.jpg"]
    assert journal_rows(out) == [2, 1]
    fresh = tmp_path / "fresh.jsonl"
    detect(home, "--out", fresh)
    assert out.read_bytes() == fresh.read_bytes()


def test_a_changed_photo_is_looked_at_again_and_a_lost_one_leaves(detect, tmp_path, write_photos):
    home, out = write_photos(tmp_path / "photos", ("a.jpg", "b.jpg", "c.jpg")), tmp_path / "records.jsonl"
    detect(home, "--out", out)
    before = records(out)
    write_photos(home, ("b.jpg",), first_seed=9)
    (home / "c.jpg").unlink()
    assert detect(home, "--out", out, "--json").json["resumed"] == 1
    after = records(out)
    assert after[0] == before[0]
    assert names(after) == ["a.jpg", "b.jpg"]
    assert after[1]["image_id"] != before[1]["image_id"]


def test_another_question_is_refused_and_fresh_starts_over(detect, folder, tmp_path):
    out = tmp_path / "records.jsonl"
    line = (folder, "--out", out, "--max-failures", 3)
    detect(*line)
    before = out.read_bytes()
    result = detect(*line, "--top-k", 1)
    assert result.code == Exit.INPUT
    assert "top_k was 5 and is 1" in result.err
    assert out.read_bytes() == before
    fresh = detect(*line, "--top-k", 1, "--fresh", "--json")
    assert fresh.json["resumed"] == 0
    assert len(records(out)[0]["targets"]["category"]["top"]) == 1


def test_failed_images_are_tried_again_when_asked(detect, folder, tmp_path):
    line = (folder, "--out", tmp_path / "records.jsonl", "--max-failures", 3, "--json")
    detect(*line)
    assert detect(*line, "--retry-failed").json["resumed"] == 5
    assert detect(*line).json["resumed"] == 8


@pytest.mark.parametrize("name", ["list.csv", "mine.jsonl"])
def test_a_file_of_somebody_else_is_not_replaced_unless_asked_for(detect, folder, tmp_path, name):
    out = tmp_path / name
    content = f"image\n{folder / 'a.jpg'}\n"
    out.write_text(content)
    source = out if name == "list.csv" else folder / "a.jpg"
    result = detect(source, "--out", out)
    assert result.code == Exit.INPUT
    assert "--fresh" in result.err
    assert out.read_text() == content
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert detect(folder / "a.jpg", "--out", out, "--fresh").code == Exit.DONE
    assert out.read_text() != content


def test_a_csv_is_compiled_from_the_same_journal_after_the_output_was_lost(detect, folder, tmp_path):
    out = tmp_path / "records.csv"
    detect(folder, "--out", out)
    before = out.read_bytes()
    out.unlink()
    assert detect(folder, "--out", out, "--json", "--max-failures", 3).json["resumed"] == 8
    assert out.read_bytes() == before


# --- killed and repeated ----------------------------------------------------------------------

PHOTOS = 240
COMMAND = """
import time

from plantml.detect import journal

journal.SEGMENT_ROWS = 8
add = journal.Journal.add
journal.Journal.add = lambda *given: (time.sleep(0.004), add(*given))
from plantml.cli.app import main

main()
"""
"""The command itself, except that it puts down its work more often and takes its time, so that a kill finds some."""


@pytest.fixture(scope="module")
def many(tmp_path_factory, write_photos):
    home = write_photos(tmp_path_factory.mktemp("many"), [f"{number:03d}.jpg" for number in range(40)])
    for number in range(40, PHOTOS):
        shutil.copy(home / f"{number % 40:03d}.jpg", home / f"{number:03d}.jpg")
    (home / "100.jpg").write_bytes(b"no picture")
    return home


@pytest.fixture(scope="module")
def uninterrupted(cli, trained, many, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "records.jsonl"
    assert cli("detect", many, "--model", trained.run, "--out", out, "--max-failures", 1).code == Exit.DONE
    return out.read_bytes()


@pytest.fixture
def start(run_python, trained, many, tmp_path):
    """Starts the command in a process of its own."""
    line = ("detect", many, "--model", trained.run, "--out", tmp_path / "records.jsonl", "--max-failures", 1)
    return lambda *more: run_python(COMMAND, *line, "--threads", 1, *more)


def wait_for_segments(process, out, count):
    deadline = time.monotonic() + 120
    while len(list(Path(f"{out}.journal").glob("*.jsonl"))) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_again_and_again_it_ends_with_the_same_bytes(cli, trained, start, many, uninterrupted, tmp_path):
    out, moment, killed = tmp_path / "records.jsonl", random.Random(5), 0
    for _ in range(4):
        process = start()
        wait_for_segments(process, out, len(journal_rows(out)) + 1)
        time.sleep(moment.uniform(0, 0.1))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if out.exists():
            break
    assert killed >= 2
    last = cli("detect", many, "--model", trained.run, "--out", out, "--max-failures", 1, "--json")
    assert last.code == Exit.DONE
    assert last.json["resumed"] >= 8 * killed
    assert out.read_bytes() == uninterrupted


@pytest.mark.slow
def test_killed_twenty_times_in_any_storage(cli, trained, run_python, many, uninterrupted, url):
    from plantml import storage

    out, moment, killed = f"{url}/records.jsonl", random.Random(7), 0
    line = ("detect", many, "--model", trained.run, "--out", out, "--max-failures", 1)
    for _ in range(20) if not url.startswith("memory") else ():
        process = run_python(COMMAND, *line, "--threads", 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moment.uniform(0.3, 3.0))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 3 or url.startswith("memory")
    assert cli(*line).code == Exit.DONE
    assert storage.read(out) == uninterrupted


@pytest.mark.slow
def test_memory_is_the_same_for_a_thousand_and_a_hundred_thousand(run_python, trained, many, tmp_path):
    """Peak resident memory of the whole process, within 10 %."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("peak memory is read from /proc")
    code = "import sys\nfrom pathlib import Path\nfrom plantml.cli.app import run\ncode = run(sys.argv[1:])\n"
    # Not getrusage: that starts with what the process that started this one had.
    code += f"print(Path({str(status)!r}).read_text().partition('VmHWM:')[2].split()[0])\nsys.exit(code)"
    files = sorted(many.glob("*.jpg"))[:90]

    def peak(count):
        folder = tmp_path / f"photos-{count}"
        for number in range(count):
            place = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(files[number % len(files)])
        line = ("detect", folder, "--model", trained.run, "--out", tmp_path / f"{count}.jsonl")
        # Only the longer run would try other threads and batches, whose buffers then count as its own.
        process = run_python(code, *line, "--threads", 2, "--batch", 8)
        out, err = process.communicate(timeout=1800)
        assert process.returncode == Exit.DONE, err
        assert sum(1 for _ in (tmp_path / f"{count}.jsonl").open()) == count
        return int(out.split()[-1])

    few, lot = peak(1_000), peak(100_000)
    assert lot <= 1.1 * few, (few, lot)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, Exit.TERMINATED), (signal.SIGINT, Exit.INTERRUPTED)])
def test_a_signal_saves_the_work_and_says_how_to_go_on(start, cli, trained, many, uninterrupted, tmp_path, sent, code):
    out = tmp_path / "records.jsonl"
    process = start()
    wait_for_segments(process, out, 1)
    process.send_signal(sent)
    printed, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert printed == ""
    assert f"of {PHOTOS} images" in err
    assert "Repeat the same command to resume" in err
    assert "Traceback" not in err
    assert not out.exists()
    # Everything that was finished is in the journal, the part of a segment too.
    done = sum(journal_rows(out))
    assert f"Detection stopped after {done} of" in err
    last = cli("detect", many, "--model", trained.run, "--out", out, "--max-failures", 1, "--json")
    assert last.json["resumed"] == done
    assert out.read_bytes() == uninterrupted


def test_a_damaged_segment_is_told_and_its_photos_are_looked_at_again(detect, folder, tmp_path):
    out = tmp_path / "records.jsonl"
    detect(folder, "--out", out, "--max-failures", 3)
    before = out.read_bytes()
    segment = next(Path(f"{out}.journal").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes()[:100])
    done = detect(folder, "--out", out, "--json", "--max-failures", 3)
    assert (done.code, done.json["resumed"]) == (0, 0)
    assert "is damaged" in done.json["warnings"][0]
    assert out.read_bytes() == before
