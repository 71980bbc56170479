"""Buckets by obstore and by s3fs: requests, listings, a late store, the first photo, and an epoch of training."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import store, train
from bench.material import Material
from bench.measure import ROOT, Row, Side, compare, compare_whole, row, take_turns, tell
from plantml.model import bundle as bundles

BY_S3FS = {"FSSPEC_S3_ANON": "false"}
"""Whoever configures s3fs has it."""

LATENCIES = (0, 30)
"""Milliseconds that are added to every answer."""

KEYS = (10_000, 1_000_000)
"""Of the buckets whose listings are measured."""

_SIDES = "bench.buckets_sides"


def run(material: Material) -> list[Row]:
    """All rows of buckets."""
    if store.weed() is None or not Path("/proc/self/stat").exists():
        tell("no rows of buckets: they need SeaweedFS and Linux")
        return []
    with ExitStack() as stack:
        near = stack.enter_context(store.serving("bench"))
        url = f"s3://{near.bucket}/photos"
        with Side("bench.detect_sides:upload", folder=material.objects, to=url, environment=near.environment) as side:
            side.wait()
        places = {
            latency: stack.enter_context(store.farther(near, latency)) if latency else near for latency in LATENCIES
        }
        rows = []
        for latency, place in places.items():
            rows += _requests(material, url, place, latency)
            rows.append(_handed_over(material, url, place, latency))
        rows += [*_first(material, url, places[max(LATENCIES)]), _epoch(material, near.bucket, places[max(LATENCIES)])]
    return [*rows, *_listings(material)]


def _requests(material: Material, url: str, place: store.Store, latency: int) -> Iterator[Row]:
    written = f"{url}-written"
    acts = {
        "get": {"folder": url},
        "put": {"folder": written, "create": False},
        "create": {"folder": written, "create": True},
    }
    for act, given in acts.items():
        where = "bench.detect_sides:fetching" if act == "get" else f"{_SIDES}:writing"
        sides = {
            by: partial(Side, where, environment=place.environment | more, **given)
            for by, more in (("obstore", {}), ("s3fs", BY_S3FS))
        }
        what = f"{act} objects of S3, {latency} ms added"
        found = take_turns(sides, min(3, material.size.rounds), what)
        yield compare("buckets", what, "s3fs", found["obstore"], found["s3fs"])


def _handed_over(material: Material, url: str, place: store.Store, latency: int) -> Row:
    """Is the latency hidden? Asked without computing, which others on the same cores would disturb."""
    sides = {
        "s3": partial(Side, f"{_SIDES}:waiting", folder=url, environment=place.environment),
        "local": partial(Side, f"{_SIDES}:waiting", folder=material.objects),
    }
    what = f"photos of S3 for workers that need 5 ms each, {latency} ms added"
    found = take_turns(sides, min(3, material.size.rounds), what)
    return compare("buckets", what, "photos on the disk", found["s3"], found["local"], cpu=False)


def _first(material: Material, url: str, place: store.Store) -> list[Row]:
    """From the start of a process: the list of a folder and its first photo, beside the model that waits for it."""
    names = "".join(f"os.environ[{name!r}] = {value!r};" for name, value in place.environment.items())
    photo = f"import os; {names} from plantml import storage; storage.read(next(storage.list_files({url!r})).url)"
    load = f"import onnxruntime; onnxruntime.InferenceSession({f'{material.bundle}/{bundles.ONNX}'!r})"
    commands = {"ours": [sys.executable, "-c", photo], "load": [sys.executable, "-c", load]}
    what, beside = "first photo of S3, 30 ms added", {"load": "onnxruntime and the model's load"}
    return compare_whole("buckets", what, commands, 3 * material.size.rounds, beside)


def _epoch(material: Material, bucket: str, place: store.Store) -> Row:
    """The first epoch, when no photo is in the cache yet."""
    local, far = train.dataset(material), f"s3://{bucket}/dataset"
    with Side("bench.detect_sides:upload", folder=local, to=far, environment=place.environment) as side:
        side.wait()
    size = {"size": material.size.train_size, "backbone": material.size.backbone}
    sides = {
        name: partial(Side, "bench.train_sides:epoch", ref=ref, scratch=str(material.folder), environment=env, **size)
        for name, ref, env in (("s3", far, place.environment), ("local", local, {}))
    }
    what = "training of one epoch from S3, 30 ms added"
    found = take_turns(sides, min(3, material.size.rounds), what)
    return compare("buckets", what, "from the disk", found["s3"], found["local"])


def _listings(material: Material) -> Iterator[Row]:
    few, many = (KEYS[0] // 10, KEYS[0]) if material.size.rounds == 1 else KEYS
    with _listed(few) as small, _listed(many) as large:
        sides = {
            by: partial(Side, f"{_SIDES}:listing", folder="s3://keys/season", environment=small | more)
            for by, more in (("obstore", {}), ("s3fs", BY_S3FS))
        }
        what = f"list {few:,} objects of S3"
        found = take_turns(sides, min(3, material.size.rounds), what)
        yield compare("buckets", what, "s3fs", found["obstore"], found["s3fs"])
        peaks = {}
        for keys, environment in ((few, small), (many, large)):
            with Side(f"{_SIDES}:listing", folder="s3://keys/season", environment=environment, warm=False) as side:
                peaks[keys] = side.turn().peak
    what = f"list objects of S3, peak memory, {many:,}"
    yield row("buckets", what, f"{few:,}", [(peaks[many], peaks[few])], "MiB", better="lower")


@contextlib.contextmanager
def _listed(keys: int) -> Iterator[dict[str, str]]:
    """The environment in which every bucket lists so many objects: a store of that size takes an hour to fill."""
    [port] = store.free_ports(1)
    process = subprocess.Popen([sys.executable, "-m", "bench.buckets_sides", str(port), str(keys)], cwd=ROOT)
    try:
        store.wait(process, port)
        yield store.Store("keys", port, (process.pid,)).environment
    finally:
        process.terminate()
        process.wait()
