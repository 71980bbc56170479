"""Whole processes: how quick help is, and one image from a cold start to its record."""

import sys
from pathlib import Path

from bench.material import Material
from bench.measure import Row, process_seconds, row, tell


def run(material: Material) -> list[Row]:
    """All rows of whole processes."""
    console = Path(sys.executable).parent / "plantml"
    plantml = [str(console)] if console.exists() else [sys.executable, "-m", "plantml"]
    one = min(Path(next(iter(material.small.values()))).iterdir())
    python = [sys.executable, "-c"]
    return [
        _row("plantml --help", [*plantml, "--help"], [*python, "pass"], 3 * material.size.rounds),
        _row(
            "plantml detect ONE.jpg",
            [*plantml, "detect", str(one), "--model", material.bundle],
            [*python, "import onnxruntime, numpy, PIL"],
            material.size.rounds,
        ),
    ]


def _row(what: str, ours: list[str], theirs: list[str], rounds: int) -> Row:
    tell(f"{what}: {rounds} rounds")
    for command in (ours, theirs):  # once for the disk's sake
        process_seconds(command)
    pairs = [(1000 * process_seconds(ours), 1000 * process_seconds(theirs)) for _ in range(rounds)]
    beside = f'python -c "{theirs[-1]}"'
    return row("help", what, beside, pairs, "ms", better="lower")
