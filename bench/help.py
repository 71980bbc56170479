"""Whole processes: how quick help is."""

import sys
from pathlib import Path

from bench.material import Material
from bench.measure import Row, process_seconds, row, tell


def run(material: Material) -> list[Row]:
    """All rows of whole processes."""
    ours, theirs, rounds = [*program(), "--help"], [sys.executable, "-c", "pass"], 3 * material.size.rounds
    what = "plantml --help"
    tell(f"{what}: {rounds} rounds")
    for command in (ours, theirs):  # once for the disk's sake
        process_seconds(command)
    pairs = [(1000 * process_seconds(ours), 1000 * process_seconds(theirs)) for _ in range(rounds)]
    return [row("help", what, 'python -c "pass"', pairs, "ms", better="lower")]


def program() -> list[str]:
    """How `plantml` is started."""
    console = Path(sys.executable).parent / "plantml"
    return [str(console)] if console.exists() else [sys.executable, "-m", "plantml"]
