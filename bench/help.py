"""Whole processes: how quick help is."""

import sys
from pathlib import Path

from bench.material import Material
from bench.measure import Row, compare_whole


def run(material: Material) -> list[Row]:
    """All rows of whole processes."""
    commands = {"ours": [*program(), "--help"], "pass": [sys.executable, "-c", "pass"]}
    beside = {"pass": 'python -c "pass"'}
    return compare_whole("help", "plantml --help", commands, 3 * material.size.rounds, beside)


def program() -> list[str]:
    """How `plantml` is started."""
    console = Path(sys.executable).parent / "plantml"
    return [str(console)] if console.exists() else [sys.executable, "-m", "plantml"]
