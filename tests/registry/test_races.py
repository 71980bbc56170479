"""Many machines at once, and machines that die: the history is complete, aliases hold, and no half model is seen."""

import json
import random
import sys
import time
from collections import Counter

import pytest

from plantml import registry, storage
from plantml.registry import ledger, maintenance, references

WORKER = """
import json, random, sys, time
from plantml import registry
from plantml.errors import GateError, InputError

model, pool, name, seconds = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], float(sys.argv[4])
rng, done, refused = random.Random(name), [], 0
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + seconds
while time.monotonic() < end:
    state = registry.load(model)
    alias, known = rng.choice(["production", "challenger"]), sorted(state.entries) or [1]
    now = state.aliases.get(alias, 0)
    try:
        act = rng.choice(["add", "add", *["promote"] * 4, *["rollback"] * 3, "remove"])
        if act == "add":
            registry.add(rng.choice(pool), model, by=name)
            continue
        if act == "promote":
            moved = registry.promote(model, rng.choice(known), alias, by=name, why=name, force=True, expected=now)
        elif act == "rollback":
            moved = registry.rollback(model, alias, by=name, expected=now)
        else:
            moved = registry.remove(model, rng.choice(known), by=name)
        done.append(moved.event.number if moved.event else 0)
    except (GateError, InputError):
        refused += 1
print(json.dumps([[number for number in done if number], refused]), flush=True)
"""


def many_at_once(model, pool, start_python, processes, seconds):
    registry.add(pool[0], model, by="me")
    names = [f"machine-{number}" for number in range(processes)]
    workers = [start_python(WORKER, model, json.dumps(pool), name, seconds) for name in names]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n", worker.communicate()
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
        counts = {}
        for name, worker in zip(names, workers, strict=True):
            out, err = worker.communicate(timeout=seconds + 120)
            assert worker.returncode == 0, err
            counts[name] = json.loads(out)
    finally:
        for worker in workers:
            worker.kill()
    return counts


def check_history(model, counts):
    """Every act that a machine was told of is there, as its own; and each was allowed by all before it."""
    events = registry.history(model)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    by = {event.number: event.content["by"] for event in events}
    for name, (numbers, _) in counts.items():
        assert len(set(numbers)) == len(numbers)
        assert {by[number] for number in numbers} <= {name}
        own = {event.number for event in events if event.content["by"] == name and event.content["act"] in MOVES}
        assert own == set(numbers)
    for at, event in enumerate(events):
        before, act = ledger.fold(model, events[:at]), event.content
        if act["act"] in {"promote", "rollback"}:
            assert act["from"] == before.aliases.get(act["alias"], 0)
            assert act["version"] in before.entries
        if act["act"] == "rollback":
            assert act["version"] == before.before(act["alias"])
        if act["act"] == "remove":
            assert not before.names(act["version"])
        if act["act"] == "add":
            assert before.with_digest(act["digest"]) is None
    state = registry.load(model)
    assert set(state.aliases.values()) <= set(state.entries)
    assert maintenance.verify(model).sound
    for alias, number in state.aliases.items():
        assert references.find(f"{model}@{alias}").digest == state.entries[number].digest
    return events


MOVES = {"promote", "rollback", "remove"}


def test_machines_act_at_once_and_none_unknowingly(tmp_path, make_bundle, start_python):
    pool, model = [make_bundle(seed) for seed in range(8)], f"{tmp_path}/models/leaf"
    counts = many_at_once(model, pool, start_python, processes=4, seconds=2)
    events = check_history(model, counts)
    assert len({event.content["by"] for event in events}) > 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_machines_act_for_a_minute_on_an_object_store(s3_url, make_bundle, start_python):
    pool, model = [make_bundle(seed) for seed in range(40)], f"{s3_url}/models/leaf"
    counts = many_at_once(model, pool, start_python, processes=8, seconds=60)
    events = check_history(model, counts)
    refused = sum(number for _, number in counts.values())
    sys.stdout.write(f"{len(events)} events, {refused} acts refused\n")
    assert len(events) > 50
    assert refused > 0


# --- kills ------------------------------------------------------------------------------------

ADD = """
import os, sys, time
from plantml import registry

for number in range(2):  # imports and connections take no part in it
    started = time.monotonic()
    registry.add(sys.argv[1], f"{sys.argv[2]}-warm-{os.getpid()}-{number}", by="me", alias="challenger")
print(time.monotonic() - started, flush=True)
sys.stdin.readline()
registry.add(sys.argv[1], sys.argv[2], by="me", alias="challenger")
"""


def killed(start_python, share, *arguments):
    """Runs `ADD` and kills it after so large a share of its usual time; false if it ended before."""
    process = start_python(ADD, *arguments)
    try:
        counts = process.stdout.readline()
        assert counts, process.communicate()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(share * float(counts))
        alive = process.poll() is None
        process.kill()
        _, err = process.communicate()
        assert alive or process.returncode == 0, err
        return alive
    finally:
        process.kill()
        process.wait()


def check_kills(model, source, other, start_python, kills):
    registry.add(other, model, by="me", alias="challenger")
    rng, stages = random.Random(kills), Counter()
    digest = references.find(source).digest
    for _ in range(kills):
        alive = killed(start_python, rng.uniform(0.2, 1.2), source, model)
        state = registry.load(model)
        stages[
            "ended" if not alive else "added" if state.with_digest(digest) else "begun" if state.begun else "none"
        ] += 1
        assert len([entry for entry in state.entries.values() if entry.digest == digest]) <= 1
        assert maintenance.verify(model).sound
        assert references.find(f"{model}@challenger").digest in {digest, references.find(other).digest}
        if state.with_digest(digest) and (number := state.with_digest(digest).number):
            # Once more from the start; the number stays taken.
            registry.promote(model, 1, "challenger", by="me")
            registry.remove(model, number, by="me")
    entry = registry.add(source, model, by="me", alias="challenger")
    assert registry.aliases(model)["challenger"] == entry.number
    maintenance.collect_garbage(model, by="me", min_age=-1)
    state = registry.load(model)
    assert (sorted(state.entries), state.begun, state.removed) == ([1, entry.number], {}, {})
    names = {found.name.split("/")[0] for found in storage.list_files(model)}
    assert names == {"events", "0001", f"{entry.number:04d}"}
    assert maintenance.verify(model).sound
    return stages


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_killed_add_leaves_nothing_that_is_seen(place, tmp_path, make_bundle, start_python, request):
    url = str(tmp_path) if place == "local" else request.getfixturevalue("s3_url")
    source, other = make_bundle(1, size=3_000_000), make_bundle(2)
    check_kills(f"{url}/models/leaf", source, other, start_python, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "s3"])
def test_twenty_kills(place, tmp_path, make_bundle, start_python, request):
    url = str(tmp_path) if place == "local" else request.getfixturevalue("s3_url")
    source, other = make_bundle(1, size=10_000_000), make_bundle(2)
    stages = check_kills(f"{url}/models/leaf", source, other, start_python, kills=20)
    sys.stdout.write(f"what the kills left: {dict(stages)}\n")
    assert stages["begun"] > 2
