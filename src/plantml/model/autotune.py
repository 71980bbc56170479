"""The number of threads and the batch size for a run: measured once and cached.

The fastest setting depends on the model, the runtime and the machine, and gains less than a tenth where it was
measured. So it is measured only before long runs, once per model and machine, in about a second, on random pixels.
Records do not depend on it.
"""

import json
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plantml import storage
from plantml.about import __version__
from plantml.errors import PlantmlError
from plantml.model.bundle import Bundle
from plantml.model.pipeline import BATCH, Pipeline
from plantml.model.runtimes import Runtime
from plantml.parsing import parse_json_object
from plantml.settings import Machine

WORTH = 2000
"""Images in a run from which measuring for a second pays off."""

CLEARLY = 1.05
"""Speed-up over the defaults that a setting must reach to be chosen: measurements are noisy."""

_SECONDS, _ROUNDS, _AT_MOST = 0.06, 2, 1.5
_MOST = 1024
"""Largest number of threads, and largest batch size, that settings allow."""

_SLOW = 0.5
"""A call that would take longer, in seconds, is not tried."""


@dataclass(frozen=True)
class Setting:
    """The chosen setting.

    Attributes:
        threads: images processed at once.
        batch: batch size.
        why: for people.
    """

    threads: int
    batch: int
    why: str


Speeds = Mapping[tuple[int, int], float]
"""Images per second by (threads, batch)."""


def choose(
    pipeline: Pipeline,
    machine: Machine,
    images: int,
    *,
    threads: int | None = None,
    batch: int | None = None,
    device: str = "cpu",
) -> Setting:
    """Threads and batch for a run.

    Args:
        pipeline: whose runtime is measured.
        machine: with the thread limit, and the cache of measurements.
        images: of the run, or how many there may be.
        threads: as set by the user; measured if `None`.
        batch: as set by the user; measured if `None`.
        device: that the model runs on.
    """
    usual = threads or machine.threads, batch or BATCH
    if threads and batch:
        return Setting(*usual, "as set")
    if images < WORTH:
        return Setting(*usual, f"default; measured for {WORTH} images or more")
    place = machine.measured(*_facts(pipeline, usual, device, threads, batch))
    if (cached := _cached(place)) is not None:
        return cached
    others = _candidates(usual, threads, batch, device)
    speeds = measure(work_of(pipeline.bundle, pipeline.runtime), usual, others)
    setting = Setting(*fastest(speeds, usual), _describe(speeds))
    if len(speeds) > len(others):
        with suppress(PlantmlError):  # a cache that cannot be written costs a second each time, no more
            storage.write(str(place), json.dumps(vars(setting)).encode())
    return setting


def _cached(place: Path) -> Setting | None:
    """An earlier run's measurement; `None` if there is no valid one."""
    try:
        content = parse_json_object(place.read_bytes(), str(place))
    except (OSError, PlantmlError):
        return None
    match content:
        case {"threads": int(threads), "batch": int(batch), "why": why} if max(threads, batch) <= _MOST:
            return Setting(max(1, threads), max(1, batch), f"{why}; kept from an earlier run")
    return None


def _describe(speeds: Speeds) -> str:
    return "measured: " + ", ".join(f"{threads} x {batch} {rate:.4g}/s" for (threads, batch), rate in speeds.items())


def fastest(speeds: Speeds, usual: tuple[int, int]) -> tuple[int, int]:
    """The fastest setting, if it is clearly faster than the default."""
    best = max(speeds, key=lambda at: speeds[at])
    return best if speeds[best] > CLEARLY * speeds[usual] else usual


def measure(work: Callable[[int], object], usual: tuple[int, int], others: list[tuple[int, int]]) -> Speeds:
    """Images per second of the default (threads, batch) and of others: the better of two short, interleaved rounds.

    Ends after about 1.5 seconds; settings not reached by then are left out.

    Args:
        work: runs the model once on a batch of that size.
        usual: is always measured.
        others: may be left out.
    """
    began, speeds = time.perf_counter(), dict.fromkeys([usual], 0.0)
    work(usual[1])  # the first call prepares what later ones reuse
    for _ in range(_ROUNDS):
        for at in (usual, *others):
            calls = at[1] / speeds[usual] * at[0] if speeds[usual] else 0.0
            if at != usual and (calls > _SLOW or time.perf_counter() - began > _AT_MOST):
                continue
            speeds[at] = max(speeds.get(at, 0.0), rate(work, *at))
    return speeds


def rate(work: Callable[[int], object], threads: int, batch: int) -> float:
    """Images per second in about 0.06 seconds, with so many threads and images per call."""

    def one(_: int) -> float:
        done, began = 0, time.perf_counter()
        while not done or time.perf_counter() - began < _SECONDS:
            work(batch)
            done += batch
        return done / (time.perf_counter() - began)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, range(threads)))


def work_of(bundle: Bundle, runtime: Runtime) -> Callable[[int], object]:
    """What is measured: the runtime on so many random photos."""
    fit = bundle.contract.input
    pixels = np.random.default_rng(0).integers(0, 256, (1, fit.height, fit.width, 3), np.uint8)
    return lambda batch: runtime.run(pixels.repeat(batch, 0))


def _candidates(usual: tuple[int, int], threads: int | None, batch: int | None, device: str) -> list[tuple[int, int]]:
    """All cores with other batches, then half of them, which is as many as they are where each pretends to be two."""
    batches = [batch] if batch else [4, BATCH, 16] if device == "cpu" else [BATCH, 32, 128]
    counts = [threads] if threads else [usual[0], usual[0] // 2] if usual[0] >= 4 else [usual[0]]
    return [(count, size) for count in counts for size in batches if (count, size) != usual]


def _facts(
    pipeline: Pipeline, usual: tuple[int, int], device: str, threads: int | None, batch: int | None
) -> tuple[object, ...]:
    """Cache key of the measurement."""
    runtime = type(pipeline.runtime).__name__
    return pipeline.bundle.digest, runtime, device, *usual, threads, batch, platform.node(), __version__
