"""Gates: numbers that a model must reach, for CI and cron."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from plantml.errors import UsageError

_GATE = re.compile(r"(?P<name>[^=]+)=(?P<bound>[-+0-9.eE]+)")


@dataclass(frozen=True)
class Gate:
    """One gate, judged: `value` must be at least (`min`) or at most (`max`) `bound`."""

    name: str
    kind: str
    bound: float
    value: float

    @property
    def passed(self) -> bool:
        """True if the number is on the right side."""
        return self.value >= self.bound if self.kind == "min" else self.value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.kind == "min" else "<="
        return f"{'passed' if self.passed else 'FAILED'}  {self.name} = {self.value:.4f}, wanted {sign} {self.bound:g}"


def parse(kind: str, texts: Sequence[str]) -> list[tuple[str, str, float]]:
    """`macro_f1=0.85` texts as (kind, name, bound). Raises `UsageError`."""
    found = []
    for text in texts:
        match = _GATE.fullmatch(text.strip())
        try:
            found.append((kind, match["name"].strip(), float(match["bound"])) if match else None)
        except ValueError:
            found.append(None)
        if found[-1] is None:
            raise UsageError(f"--{kind} {text} is no gate", "", "Write it like --min disease.macro_f1=0.85.")
    return [gate for gate in found if gate]


def judge(gates: Sequence[tuple[str, str, float]], scores: Mapping[str, float]) -> list[Gate]:
    """All gates with their numbers. Raises `UsageError` for a name that no number has."""
    judged = []
    for kind, name, bound in gates:
        if name not in scores:
            near = get_close_matches(name, list(scores), n=3, cutoff=0.4)
            known = near or [key for key in scores if "[" not in key]
            raise UsageError(f"There is no number called {name!r}", "", f"Such as: {', '.join(known)}.")
        judged.append(Gate(name, kind, bound, scores[name]))
    return judged
