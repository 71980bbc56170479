"""Killed at random moments, on a disk and on an object store, two rounds come to the same end as uninterrupted ones."""

import random
import subprocess
import sys
import time

import fsspec
import pytest

from plantml import registry
from plantml.data import maintenance, versions
from plantml.registry.publishing import inspect
from plantml.retrain import rounds
from plantml.storage.event_log import Events

KILLS = 16
"""In each kind of storage."""


def run(loop):
    return [sys.executable, "-m", "plantml", "retrain", str(loop.file), "--json"]


def whole_story(loop, kills, rng):
    """Two rounds, with so many kills spread over both; the end of both."""
    for number, feeds in enumerate((loop.feeds[:1], loop.feeds), start=1):
        loop.write(feeds)
        for _ in range(kills // 2):
            process = subprocess.Popen(run(loop), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(rng.uniform(1, 20))
            process.kill()
            process.communicate()
            sound(loop)
        done = subprocess.run(run(loop), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert rounds.state(loop.place("work")).last == number
    return end_of(loop)


def sound(loop):
    """Nothing half-made is there, whenever one looks."""
    known = versions.numbers(loop.place("data"))
    assert known == list(range(1, len(known) + 1))
    if known:
        assert maintenance.verify(loop.place("data")).sound
    if not Events(f"{loop.place('models/leaf')}/events").read():
        return
    model = registry.load(loop.place("models/leaf"))
    for number in model.aliases.values():
        entry = model.entries[number]
        assert inspect(entry.url).bundle.digest == entry.digest  # reads every file, and its hash


def end_of(loop):
    model = registry.load(loop.place("models/leaf"))
    head = versions.load(loop.place("data"))
    placed = sorted(head.rows.select("source", "name", "split", "status", "disease").iter_rows(), key=str)
    digests = [entry.digest for entry in model.entries.values()]
    outcomes = [content["outcome"] for _, content in rounds.state(loop.place("work")).ended.values()]
    operations = [commit.operation for _, commit in versions.log(loop.place("data"))]
    return placed, operations, digests, dict(model.aliases), outcomes


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "s3"])
def test_killed_at_random_moments(place, loop, paint_feed, honest, tmp_path, request) -> None:
    if place == "s3":
        loop.url = request.getfixturevalue("s3_url")
    loop.feeds = [
        (paint_feed(tmp_path / "first", honest(20), 1), {}),
        (paint_feed(tmp_path / "second", honest(20, ("none", "mildew")), 2), {"new_classes": True}),
    ]
    # The place is part of a model's contract, so that both stories are told at the same one.
    uninterrupted = whole_story(loop, 0, random.Random(0))
    filesystem, path = fsspec.core.url_to_fs(loop.url)
    filesystem.rm(path, recursive=True)
    filesystem.invalidate_cache()
    assert whole_story(loop, KILLS, random.Random(place)) == uninterrupted
