"""Speed of runtimes, measured in turns so that other load on the machine affects all alike."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np

from plantml.imaging import Pixels
from plantml.model.runtimes import Runtime

BATCHES = (1, 32)
ROUNDS = 5
_ROUNDS_ALONE = 3
_SECONDS = 0.25
"""Minimum working time of each runtime per round, in seconds."""

_PATIENCE = 20.0
"""No new round of a batch size starts after this many seconds."""


@dataclass(frozen=True)
class Speed:
    """Of one runtime at one batch size.

    Attributes:
        latency: of one call with nothing beside it, milliseconds, median over the rounds.
        rate: images per second with one caller per core, median over the rounds.
        ratio: of the rate to that of the first runtime in the same round, median over the rounds.
    """

    latency: float
    rate: float
    ratio: float


def measure(
    sides: Mapping[str, Runtime], pixels: Pixels, threads: int, rounds: int = ROUNDS
) -> dict[str, dict[int, Speed]]:
    """Speed by runtime and batch size. The first runtime is the baseline.

    Args:
        sides: by name.
        pixels: photos, uint8 RGB [N, H, W, 3]; repeated as often as a batch needs.
        threads: callers at the same time.
        rounds: in each of which every side has its turn; fewer where they take long, or nothing is compared.
    """
    speeds: dict[str, dict[int, Speed]] = {name: {} for name in sides}
    first = next(iter(sides))
    rounds = rounds if len(sides) > 1 else min(rounds, _ROUNDS_ALONE)
    for size in BATCHES:
        batch = np.ascontiguousarray(np.resize(pixels, (size, *pixels.shape[1:])))
        calls = {name: _calls(runtime, batch, threads) for name, runtime in sides.items()}
        latency: dict[str, list[float]] = {name: [] for name in sides}
        rate: dict[str, list[float]] = {name: [] for name in sides}
        started = time.monotonic()
        for _ in range(rounds):
            if rate[first] and time.monotonic() - started > _PATIENCE:
                break
            for name, runtime in sides.items():
                latency[name].append(_timed(runtime, batch))
                rate[name].append(size * calls[name] / _together(runtime, batch, calls[name], threads))
        for name in sides:
            ratio = median(ours / theirs for ours, theirs in zip(rate[name], rate[first], strict=True))
            speeds[name][size] = Speed(1000 * median(latency[name]), median(rate[name]), ratio)
    return speeds


def _timed(runtime: Runtime, batch: Pixels) -> float:
    started = time.perf_counter()
    runtime.run(batch)
    return time.perf_counter() - started


def _calls(runtime: Runtime, batch: Pixels, threads: int) -> int:
    _timed(runtime, batch)  # the first call prepares what the others use
    return threads * max(1, round(_SECONDS / _timed(runtime, batch)))


def _together(runtime: Runtime, batch: Pixels, calls: int, threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(runtime.run, [batch] * calls))
        return time.perf_counter() - started
