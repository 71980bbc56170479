"""Measuring: sides that take turns, and the rows that come of it.

A side is a process of its own, so that neither the allocator settings nor the threads of one help or hurt
another. It prepares, warms up, and then works only when it is its turn.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Literal, Self

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sample:
    """One turn of one side.

    Attributes:
        images: that it worked on.
        seconds: that passed.
        cpu: seconds that the process itself computed, its children's not counted.
        peak: most memory that the process ever held, MiB.
        apart: seconds that clients computed, where `cpu` is that of their server alone.
    """

    images: int
    seconds: float
    cpu: float
    peak: float
    apart: float = 0.0

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Images a second of computing."""
        return self.images / self.cpu


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        part: of the benchmark.
        what: is measured.
        beside: what it is compared with.
        better: `higher` or `lower` ratios.
        ratio: median over the rounds.
        low: smallest ratio of a round.
        high: largest ratio of a round.
        measured: medians of both sides.
        unit: of `measured`.
        by_cpu: the ratio by computing time in place of time; `None` where that says nothing. Others on the
            same cores disturb it less.
    """

    part: str
    what: str
    beside: str
    better: Literal["higher", "lower"]
    ratio: float
    low: float
    high: float
    measured: tuple[float, float]
    unit: str
    by_cpu: float | None = None


class Side:
    """A process that works on demand; see `bench.side`.

    Args:
        where: `module:function` that prepares the work.
        python: that runs it; this one if not given.
        root: checkout whose code runs; this one if not given.
        arguments: of the function, JSON values.
    """

    def __init__(self, where: str, python: str = sys.executable, root: Path = ROOT, **arguments: Any) -> None:
        self._where, self._ready = where, False
        self._process = subprocess.Popen(
            [python, "-m", "bench.side", where, json.dumps(arguments)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def end(self) -> None:
        """Say that there are no more turns."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Return when it is warm."""
        if not self._ready:
            self._answer()
            self._ready = True

    def turn(self) -> Sample:
        """One round of its work."""
        self.wait()
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return Sample(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._where} ended early; its own message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def take_turns(start: Mapping[str, Callable[[], Side]], rounds: int, title: str) -> Mapping[str, Sequence[Sample]]:
    """Start all sides, wait until they are warm, and let them take turns, in another order every time."""
    with ExitStack() as stack:
        sides = {name: stack.enter_context(make()) for name, make in start.items()}
        for side in sides.values():
            side.wait()
        found: dict[str, list[Sample]] = {name: [] for name in sides}
        for number in range(rounds):
            tell(f"{title}: round {number + 1} of {rounds}")
            for name in list(sides)[:: -1 if number % 2 else 1]:
                found[name].append(sides[name].turn())
        for side in sides.values():
            side.end()
    return found


@dataclass(frozen=True)
class Whole:
    """What a whole process took, ms: from its start to its end, and of computing."""

    time: float
    cpu: float


def whole_process(command: Sequence[str]) -> Whole:
    """Run a process. Its modules may be compiled by an earlier one, as they are where plantml is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Whole(1000 * seconds, 1000 * computed)


def compare_whole(
    part: str, what: str, commands: Mapping[str, Sequence[str]], rounds: int, others: Mapping[str, str]
) -> list[Row]:
    """Rows of whole processes in turns: `ours` beside each of `others`, whose descriptions these are."""
    tell(f"{what}: {rounds} rounds")
    for command in commands.values():  # once for the disk's sake
        whole_process(command)
    turns = [{name: whole_process(command) for name, command in commands.items()} for _ in range(rounds)]
    return [
        row(
            part, what, beside, [(each["ours"].time, each[other].time) for each in turns], "ms", better="lower",
            cpu=[(each["ours"].cpu, each[other].cpu) for each in turns],
        )
        for other, beside in others.items()
    ]  # fmt: skip


def row(
    part: str,
    what: str,
    beside: str,
    pairs: Sequence[tuple[float, float]],
    unit: str,
    *,
    better: Literal["higher", "lower"] = "higher",
    cpu: Sequence[tuple[float, float]] = (),
) -> Row:
    """A row from one pair of figures a round; `cpu` are the same by computing time."""
    ratios = [ours / theirs for ours, theirs in pairs]
    measured = median(ours for ours, _ in pairs), median(theirs for _, theirs in pairs)
    by_cpu = median(ours / theirs for ours, theirs in cpu) if cpu else None
    return Row(part, what, beside, better, median(ratios), min(ratios), max(ratios), measured, unit, by_cpu)


def compare(
    part: str, what: str, beside: str, ours: Sequence[Sample], *theirs: Sequence[Sample], cpu: bool = True
) -> Row:
    """A row of images a second; of several others, their rate one after the other.

    `cpu` is false where processes work that the sides do not count.
    """
    turns = list(zip(ours, *theirs, strict=True))
    by_time = [(first.rate, 1 / sum(1 / other.rate for other in rest)) for first, *rest in turns]
    by_cpu = [(first.cpu_rate, 1 / sum(1 / other.cpu_rate for other in rest)) for first, *rest in turns]
    return row(part, what, beside, by_time, "images/s", cpu=by_cpu if cpu else ())


def table(rows: Sequence[Row]) -> str:
    """All rows as text."""
    lines = [("what", "beside", "ratio", "of rounds", "by CPU", "better", "measured")]
    lines += [
        (
            found.what,
            found.beside,
            f"{found.ratio:.2f}",
            f"{found.low:.2f}-{found.high:.2f}",
            "" if found.by_cpu is None else f"{found.by_cpu:.2f}",
            found.better,
            f"{found.measured[0]:.3g} / {found.measured[1]:.3g} {found.unit}",
        )
        for found in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All rows as JSON types."""
    return [asdict(found) for found in rows]


def tell(text: str) -> None:
    """Progress, to where it does not mix with the table."""
    print(text, file=sys.stderr, flush=True)
