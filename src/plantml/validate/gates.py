"""Gates: scores that a model must reach, for CI and cron."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from plantml.errors import UsageError
from plantml.metrics import Interval

_GATE = re.compile(r"(?P<name>[^=]+)=(?P<bound>[-+0-9.eE]+)")
_ROUNDING = 1e-9
"""0.8 - 0.5 is a little more than 0.3."""

_SIGNS = {"min": ">=", "max": "<=", "max_drop": "<="}


@dataclass(frozen=True)
class Gate:
    """One gate. Its value decides; the interval shows the uncertainty.

    `kind` is `min`, `max`, or `max_drop` against another model, where the value is by how much the score is lower.
    """

    name: str
    kind: str
    bound: float
    value: float
    interval: Interval | None = None
    photos: int | None = None

    @property
    def passed(self) -> bool:
        """True if the value is within the bound."""
        over = self.bound - self.value if self.kind == "min" else self.value - self.bound
        return over <= _ROUNDING

    @property
    def resolvable(self) -> bool:
        """False if the interval is wider than the drop: too few photos to resolve it."""
        return self.kind != "max_drop" or (self.interval is not None and self.interval.width / 2 <= self.bound)

    def __str__(self) -> str:
        name, _ = describe(self.as_json())
        around = f" [{self.interval.low:.4f}, {self.interval.high:.4f}]" if self.interval else ""
        note = "" if self.resolvable else f"; not resolvable with {self.photos} photos"
        mark = "passed" if self.passed else "FAILED"
        return f"{mark}  {name} = {self.value:.4f}{around}, required {_SIGNS[self.kind]} {self.bound:g}{note}"

    def as_json(self) -> dict[str, Any]:
        """The gate as JSON types."""
        content = {"name": self.name, self.kind: self.bound, "value": self.value, "passed": self.passed}
        content["interval"] = self.interval
        if self.kind == "max_drop":
            content |= {"photos": self.photos, "resolvable": self.resolvable}
        return content


def describe(gate: Mapping[str, Any]) -> tuple[str, str]:
    """The subject of a gate and its requirement, in words; from its JSON."""
    kind = next(kind for kind in _SIGNS if kind in gate)
    name = f"drop of {gate['name']}" if kind == "max_drop" else str(gate["name"])
    return name, f"{'at least' if kind == 'min' else 'at most'} {gate[kind]:g}"


def parse(kind: str, texts: Sequence[str]) -> list[tuple[str, str, float]]:
    """`macro_f1=0.85` texts as (kind, name, bound). Raises `UsageError`."""
    gates = []
    for text in texts:
        match = _GATE.fullmatch(text.strip())
        try:
            gates.append((kind, match["name"].strip(), float(match["bound"])) if match else None)
        except ValueError:
            gates.append(None)
        if gates[-1] is None:
            raise UsageError(f"--{kind} {text} is not a gate", "", "Write it like --min disease.macro_f1=0.85.")
    return [gate for gate in gates if gate]


def judge(
    gates: Sequence[tuple[str, str, float]],
    scores: Mapping[str, float],
    intervals: Mapping[str, Interval] | None = None,
) -> list[Gate]:
    """All gates with their values. Raises `UsageError` for an unknown score.

    A short name such as `ece` stands for that score of every target: each must pass.
    """
    judged = []
    for kind, name, bound in gates:
        named = [name] if name in scores else [key for key in scores if key.endswith(f".{name}")]
        if not named:
            near = get_close_matches(name, list(scores), n=3, cutoff=0.4)
            known = near or [key for key in scores if "[" not in key]
            raise UsageError(f"There is no score called {name!r}", "", f"Such as: {', '.join(known)}.")
        judged += [Gate(key, kind, bound, scores[key], (intervals or {}).get(key)) for key in named]
    return judged
