"""Our sides of near-duplicates."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench.duplicates_truth import judge, photos
from bench.side import Rounds
from plantml import imaging
from plantml.data.near_duplicates import DISTANCE, Near, near_duplicates
from plantml.data.scan import phashes, scan
from plantml.imaging.grey import small_grey
from plantml.settings import usable_cores

_CHUNK, _SIDE, _ROUGH = 32, 64, 7
"""A picture that is decoded small gives a rougher hash: copies are looked for further away."""


def plantml(rounds: Rounds, *, folder: str, scanned: bool) -> None:
    """Files to hashes, and hashes to groups; `scanned` takes all that an import writes down of a photo."""
    paths = photos(folder)
    hash_of = _scanned if scanned else _hashed

    def hashes_of(chunk: list[Path]) -> list[int]:
        return [hash_of(path.read_bytes()) for path in chunk]

    def work() -> int:
        chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
        with ThreadPoolExecutor(usable_cores()) as pool:
            hashes = [value for chunk in pool.map(hashes_of, chunks) for value in chunk]
        near = near_duplicates(np.array(hashes, np.uint64), distance=DISTANCE if scanned else _ROUGH)
        judge(folder, "scanned" if scanned else "plantml", _names(paths, near))
        return len(paths)

    rounds.run(work)


def _scanned(data: bytes) -> int:
    found = scan(data).phash
    assert found is not None
    return found


def _hashed(data: bytes) -> int:
    """The hash alone, of a picture that is decoded no larger than it needs."""
    return phashes([small_grey(imaging.look(data, _SIDE)[2].convert("L"))])[0]


def hashes(rounds: Rounds, *, hashes: int) -> None:
    """Random hashes, one in a hundred a copy of another with up to 7 bits changed."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    made = rng.integers(0, 2**64, hashes, dtype=np.uint64)
    copies = hashes // 100
    made[-copies:] = made[:copies]
    for _ in range(7):
        made[-copies:] ^= np.uint64(1) << rng.integers(0, 64, copies, dtype=np.uint64)

    def work() -> int:
        near = near_duplicates(made, distance=7)
        if not (near.group[-copies:] == near.group[:copies]).all():
            raise RuntimeError("a planted copy was not found")
        return hashes

    rounds.run(work)


def _names(paths: list[Path], near: Near) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for path, group in zip(paths, near.group.tolist(), strict=True):
        groups.setdefault(group, []).append(path.name)
    return [names for names in groups.values() if len(names) > 1]
