"""Near-duplicates: from files to pairs beside two other tools, and a million hashes on one core."""

import json
import os
import subprocess
from functools import partial

from bench.environments import environment
from bench.material import Material
from bench.measure import ROOT, Row, Side, compare, row, take_turns, tell
from plantml import synth
from plantml.synth import SynthSpec

_PHOTOS, _DEFECTS = 5000, 0.12
_HASHES, _SECONDS, _MEBIBYTES = 1_000_000, 30.0, 500.0
_OTHERS = ("imagededup", "cleanvision")
_QUICK = 50
"""Of this many times fewer photos and hashes, if it is only asked whether it still runs."""


def run(material: Material) -> list[Row]:
    """All rows of near-duplicates."""
    less = _QUICK if material.size.rounds == 1 else 1
    return [*_photos(material, _PHOTOS // less), *_hashes(material, _HASHES // less)]


def _photos(material: Material, photos: int) -> list[Row]:
    folder = material.folder / "duplicates"
    tell(f"drawing {photos} photos, some of them copies")
    synth.write(SynthSpec(photos, seed=4, defects=_DEFECTS), str(folder))
    given = {"folder": str(folder)}
    sides = {
        name: partial(Side, "bench.duplicates_sides:plantml", scanned=scanned, **given)
        for name, scanned in {"plantml": False, "scanned": True}.items()
    }
    for name in _OTHERS:
        python = environment(material.folder / name, name)
        sides[name] = partial(_Elsewhere, python, f"bench.duplicates_others:{name}", **given)
    found = take_turns(sides, min(3, material.size.rounds), "duplicates")
    right = {name: json.loads((folder / f"{name}.json").read_text()) for name in sides}
    ours, what, rows = right["plantml"], f"{photos} photos of 256 px, files to pairs", []
    for name in _OTHERS:
        theirs = right[name]
        rows.append(compare("duplicates", what, name, found["plantml"], found[name], cpu=False))
        rows.append(
            compare("duplicates", f"{what}, scanned as by import", name, found["scanned"], found[name], cpu=False)
        )
        for figure in ("recall", "precision"):
            pairs = [(ours[figure], theirs[figure])]
            rows.append(row("duplicates", f"{what}: {figure} of the planted", name, pairs, "of 1"))
    return rows


def _hashes(material: Material, hashes: int) -> list[Row]:
    with Side("bench.duplicates_sides:hashes", hashes=hashes) as side:
        turns = [side.turn() for _ in range(min(3, material.size.rounds))]
    what = f"{hashes} hashes to groups, one core"
    return [
        row("duplicates", what, "the most it may take", [(turn.cpu, _SECONDS) for turn in turns], "s", better="lower"),
        row(
            "duplicates",
            f"{what}, peak memory",
            "the most it may take",
            [(turn.peak, _MEBIBYTES) for turn in turns],
            "MiB",
            better="lower",
        ),
    ]


class _Elsewhere(Side):
    """A side that runs in another environment."""

    def __init__(self, python: str, where: str, **arguments: str) -> None:
        self._where, self._ready = where, False
        self._process = subprocess.Popen(
            [python, "-m", "bench.side", where, json.dumps(arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
