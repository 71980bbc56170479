"""`plantml serve`: photos a second beside detect, latency at half load, and the start from cold."""

import sys
import time
from functools import partial
from statistics import median

from bench.environments import environment
from bench.material import Material
from bench.measure import Row, Side, compare, row, take_turns, tell, whole_process
from bench.serving import ask_all, bodies, latencies, registered, serving, start
from plantml.model import bundle as bundles

CLIENTS = (16, 64)
PEERS = ("litserve", "bentoml")
_SAMPLES = 400


def run(material: Material) -> list[Row]:
    """All rows of the server."""
    return [*_throughput(material), *_peers(material), _latency(material), _cold(material)]


def _throughput(material: Material) -> list[Row]:
    photos, folder = next(iter(material.small.items()))
    given = {"folder": folder, "model": material.bundle, "scratch": str(material.folder)}
    sides = {
        "detect": partial(Side, "bench.detect_sides:library", **given),
        **{str(clients): partial(Side, "bench.serve_sides:load", clients=clients, **given) for clients in CLIENTS},
    }
    turns = take_turns(sides, material.size.rounds, f"serve, {photos}")
    rows = []
    for clients in CLIENTS:
        what, loaded = f"serve, {photos}, {clients} clients", turns[str(clients)]
        rows.append(compare("serve", what, "detect", loaded, turns["detect"]))
        computed = [(1000 * each.apart / each.images, 1000 * each.cpu / each.images) for each in loaded]
        beside = "that of the server, per photo"
        rows.append(row("serve", f"{what}: processor time of the clients", beside, computed, "ms", better="lower"))
    return rows


def _peers(material: Material) -> list[Row]:
    """Beside other servers with the same network, one process for each core."""
    photos, folder = next(iter(material.small.items()))
    given = {"folder": folder, "model": material.bundle, "scratch": str(material.folder), "clients": CLIENTS[0]}
    sides = {"plantml": partial(Side, "bench.serve_sides:load", **given)}
    for name in PEERS:
        python = environment(material.folder / name, name)
        sides[name] = partial(Side, "bench.serve_sides:load_peer", name=name, interpreter=python, **given)
    what = f"serve, {photos}, {CLIENTS[0]} clients"
    turns = take_turns(sides, material.size.rounds, f"{what}, other servers")
    return [compare("serve", what, name, turns["plantml"], turns[name]) for name in PEERS]


def _latency(material: Material) -> Row:
    photos, folder = next(iter(material.small.items()))
    requests, pairs = bodies(folder), []
    with serving(material.bundle, str(material.folder)) as server:
        ask_all(server, requests, 1)
        for number in range(material.size.rounds):
            tell(f"serve, latency: round {number + 1} of {material.size.rounds}")
            connection, alone = server.connect(), []
            for body in requests[:50]:
                started = time.perf_counter()
                server.predict(connection, body)
                alone.append(time.perf_counter() - started)
            connection.close()
            started = time.perf_counter()
            rate = ask_all(server, requests, CLIENTS[0]) / (time.perf_counter() - started)
            loaded = sorted(latencies(server, requests, rate / 2, min(_SAMPLES, 4 * len(requests))))
            pairs.append((1000 * loaded[int(0.99 * len(loaded))], 1000 * median(alone)))
    what = f"serve, {photos}, 99th percentile at half load"
    return row("serve", what, "the time of one photo alone", pairs, "ms", better="lower")


def _cold(material: Material) -> Row:
    """Beside what no server of these libraries can do without."""
    load = (
        "import fastapi, uvicorn, sqlalchemy.orm, numpy, PIL, onnxruntime;"
        f" onnxruntime.InferenceSession({f'{material.bundle}/{bundles.ONNX}'!r})"
    )
    pairs = []
    with registered(material.bundle, str(material.folder)) as (registry, state, key):
        for number in range(material.size.rounds + 1):
            tell(f"serve, from a cold start: round {number} of {material.size.rounds}")
            with start(registry, state, key) as server:
                ours = 1000 * server.seconds
            pairs.append((ours, whole_process([sys.executable, "-c", load]).time))
    beside = "importing fastapi, uvicorn, sqlalchemy and onnxruntime, and the model's load"
    return row("serve", "serve, ready from a cold start", beside, pairs[1:], "ms", better="lower")
