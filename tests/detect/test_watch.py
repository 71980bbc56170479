import io
import json
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from plantml.detect.config import DetectConfig
from plantml.detect.detect import build_pipeline
from plantml.detect.sources import collect
from plantml.detect.watch import watch
from plantml.errors import Exit, StorageError
from plantml.model.bundle import Bundle


class Looks:
    """What a watch sees: each step changes the folder, then lists it; after the last one it is stopped."""

    def __init__(self, folder, *steps):
        self.folder, self.steps, self.done = folder, list(steps), False

    def __bool__(self):
        return self.done

    def until(self, items):
        yield from items

    def __call__(self):
        if self.steps:
            step = self.steps.pop(0)
            if step is not None:
                step()
        else:
            self.done = True
        return collect([str(self.folder)], may_be_empty=True)


@pytest.fixture
def watched(configured, tmp_path):
    def work(looks, out="records.jsonl", **settings):
        config, pipeline = configured(out=str(tmp_path / out) if out != "-" else "-", interval=0.001, **settings)
        stdout, lines = io.StringIO(), []
        done = watch(looks, pipeline, config, stdout=stdout, stop=looks, say=lines.append)
        text = stdout.getvalue() if out == "-" else (tmp_path / out).read_text()
        return done, [json.loads(line) for line in text.splitlines()], lines

    return work


def names(records):
    return [Path(record["image"]).name for record in records]


@pytest.mark.parametrize("out", ["records.jsonl", "-"])
def test_files_are_taken_in_the_order_in_which_they_arrive_once_each(watched, paint, tmp_path, out):
    folder = paint("m.png", 255).parent
    looks = Looks(folder, None, None, partial(paint, "a.png", 0), None, partial(paint, "z.png", 9), None, None, None)
    done, records, lines = watched(looks, out)
    assert names(records) == ["m.png", "a.png", "z.png"]
    assert done.images == 3
    assert lines == ["1 new, 1 in total", "1 new, 2 in total", "1 new, 3 in total"]


def test_a_file_that_is_still_written_is_waited_for(watched, paint):
    file = paint("a.png", 255)
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(whole[:10])
    growing = [partial(file.write_bytes, whole[:size]) for size in (half, half + 5)]
    done, records, _ = watched(Looks(file.parent, None, *growing, partial(file.write_bytes, whole), None, None))
    assert [record["failure"] for record in records] == [None]
    assert done.images == 1


def test_what_is_moved_away_or_overwritten_stays_in_the_output(watched, paint):
    file = paint("latest.png", 255)
    other = paint("other.png", 255)

    def next_photo():
        paint("latest.png", 0, size=(20, 20))
        other.unlink()

    _, records, _ = watched(Looks(file.parent, None, None, next_photo, None, None))
    labels = [(Path(record["image"]).name, record["targets"]["category"]["label"]) for record in records]
    assert labels == [("latest.png", "bean"), ("other.png", "bean"), ("latest.png", "tomato")]
    # Another watch goes on from there.
    paint("new.png", 0)
    done, records, _ = watched(Looks(file.parent, None, None, None))
    assert names(records) == ["latest.png", "other.png", "latest.png", "new.png"]
    assert done.resumed == 3


def test_a_folder_that_cannot_be_listed_is_tried_again(watched, paint):
    def fail():
        raise StorageError("Could not list", "no network")

    _, records, lines = watched(Looks(paint("a.png", 1).parent, fail, None, fail, None, None))
    assert names(records) == ["a.png"]
    assert lines[0] == "Could not list the sources: Could not list: no network"


def test_the_command_watches_until_it_is_told_to_stop(trained, run_python, tmp_path, write_photos):
    home, out = write_photos(tmp_path / "photos", ("a.jpg",)), tmp_path / "records.jsonl"
    code = "from plantml.cli.app import main; main()"
    process = run_python(
        code, "detect", home, "--model", trained.run, "--out", out, "--watch", "--interval", "1s", "--threads", 1
    )
    stopping = threading.Timer(120, process.kill)
    stopping.start()
    try:
        for count, new in ((1, "b.jpg"), (2, None)):
            while not out.exists() or len(out.read_text().splitlines()) < count:
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            if new:
                write_photos(home, (new,), first_seed=5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        stopping.cancel()
        process.kill()
    assert process.returncode == Exit.TERMINATED, err
    assert "Watching stopped after 2 images" in err


def test_a_watch_counts_the_boxes_of_all_photos(spots, detector_contract, paint_spots, tmp_path):
    config = DetectConfig(out=str(tmp_path / "r.jsonl"), interval=0.001, watch=True)
    pipeline = build_pipeline(Bundle("spots", detector_contract, "d" * 64, {}), spots, config, 1)
    folder = paint_spots("1.png", (2, 4, 10, 8, "red"), (40, 40, 12, 12, "blue")).parent
    looks = Looks(folder, None, None, partial(paint_spots, "2.png", (9, 9, 9, 9, "red")), None, None)
    done = watch(looks, pipeline, config, stdout=io.StringIO(), stop=looks)
    assert (done.images, done.boxes, done.labels) == (2, 3, {"fruit": {"apple": 2, "plum": 1}})
