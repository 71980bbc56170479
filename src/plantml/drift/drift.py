"""`plantml dataset drift`: what comes in, held against what was trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plantml.concurrency import Progress, silent
from plantml.curate import embeddings
from plantml.drift import inputs, measures
from plantml.drift.inputs import Side
from plantml.drift.measures import Index, TwoSample
from plantml.errors import InputError, MissingExtraError
from plantml.settings import Machine

LEVEL = 0.01
"""An index is told from chance if its p is below this, shared out among all columns (Bonferroni)."""


@dataclass(frozen=True)
class Column:
    """One label, score or measure of quality.

    Attributes:
        name: of it.
        kind: `label` or `number`.
        index: how far the sides are apart.
        sure: true if that cannot well be chance, with so many columns looked at.
    """

    name: str
    kind: str
    index: Index
    sure: bool

    @property
    def verdict(self) -> str:
        """`none`, `moderate` or `large`; `by chance?` where so few photos show such an index anyway."""
        if self.index.psi < measures.MODERATE:
            return "none"
        if not self.sure:
            return "by chance?"
        return "large" if self.index.psi >= measures.LARGE else "moderate"


@dataclass(frozen=True)
class Gate:
    """A bound that was asked for, and whether it holds."""

    name: str
    passed: bool
    said: str


@dataclass(frozen=True)
class Drift:
    """What a comparison found.

    Attributes:
        before: what was trained on.
        after: what comes in.
        photos: of both.
        columns: the largest index first.
        embeddings: the two-sample test; `None` if there were no vectors.
        not_compared: what could not be compared, and why.
        gates: that were asked for.
        seed: of the two-sample test.
    """

    before: str
    after: str
    photos: tuple[int, int]
    columns: Sequence[Column]
    embeddings: TwoSample | None
    not_compared: Mapping[str, str]
    gates: Sequence[Gate]
    seed: int

    @property
    def passed(self) -> bool:
        """True if no gate failed."""
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Asked:
    """What a comparison shall look at.

    Attributes:
        split: of the first side, if it is a dataset.
        model: whose embeddings datasets get; the pretrained backbone if not given.
        vectors: look at embeddings at all.
        files: of embeddings, for each side that has one.
        max_psi: gate: no index may be larger, unless chance alone explains it.
        min_p: gate: the p-value of the embeddings must be at least this.
        seed: of the two-sample test.
    """

    split: str | None = None
    model: str | None = None
    vectors: bool = True
    files: tuple[str | None, str | None] = (None, None)
    max_psi: float | None = None
    min_p: float | None = None
    seed: int = 0


def drift(
    before: str,
    after: str,
    asked: Asked,
    machine: Machine,
    progress: Callable[[str], Progress] = lambda _: silent,
) -> Drift:
    """Compare two sides.

    Args:
        before: a dataset or records: what was trained on.
        after: the same: what comes in.
        asked: what to look at.
        machine: whose threads and cache are used.
        progress: gives a progress for a named part of the work.

    Raises:
        InputError: a side cannot be read, or has no photo.
    """
    pair = (inputs.read(before, split=asked.split if not inputs.is_records(before) else None), inputs.read(after))
    return compare(*pair, asked, machine, progress)


def compare(
    before: Side,
    after: Side,
    asked: Asked,
    machine: Machine,
    progress: Callable[[str], Progress] = lambda _: silent,
) -> Drift:
    """Compare two sides that are read already; see `drift`."""
    columns, missing = _columns(before, after)
    tested, why = _tested((before, after), asked, machine, progress) if asked.vectors else (None, "not asked for")
    if why:
        missing["embeddings"] = why
    return Drift(
        before.ref,
        after.ref,
        (len(before.ids), len(after.ids)),
        columns,
        tested,
        missing,
        _gates(columns, tested, why, asked),
        asked.seed,
    )


def _columns(before: Side, after: Side) -> tuple[list[Column], dict[str, str]]:
    """Indices of all columns that both sides have, and why the others have none."""
    found: list[tuple[str, str, Index]] = []
    missing: dict[str, str] = {}
    for name in dict.fromkeys([*before.labels, *before.numbers, *after.labels, *after.numbers]):
        kinds = [
            "label" if name in side.labels else "number" if name in side.numbers else "" for side in (before, after)
        ]
        if kinds[0] != kinds[1]:
            only = before.ref if not kinds[1] else after.ref
            missing[name] = f"only {only} has it" if "" in kinds else "a label on one side, a number on the other"
            continue
        index = _index(name, kinds[0], before, after)
        if index is None:
            missing[name] = "no photo of one side has it"
        else:
            found.append((name, kinds[0], index))
    level = LEVEL / max(1, len(found))
    columns = [Column(name, kind, index, index.p is not None and index.p < level) for name, kind, index in found]
    return sorted(columns, key=lambda column: (not column.sure, -column.index.psi, column.name)), missing


def _index(name: str, kind: str, before: Side, after: Side) -> Index | None:
    if kind == "label":
        held = [[(at, label) for at, label in enumerate(side.labels[name]) if label is not None]
                for side in (before, after)]  # fmt: skip
        if not all(held):
            return None
        there = [[at for at, _ in each] for each in held]
        return measures.labels_index(
            [label for _, label in held[0]], [label for _, label in held[1]], _effective(before, after, there)
        )
    numbers = [side.numbers[name] for side in (before, after)]
    places = [np.flatnonzero(np.isfinite(each)) for each in numbers]
    if not all(len(each) for each in places):
        return None
    values = [each[at] for each, at in zip(numbers, places, strict=True)]
    return measures.numbers_index(values[0], values[1], _effective(before, after, [at.tolist() for at in places]))


def _effective(before: Side, after: Side, places: Sequence[Sequence[int]]) -> tuple[float, float]:
    one, other = (
        measures.effective([side.groups[at] for at in each]) for side, each in zip((before, after), places, strict=True)
    )
    return one, other


def _tested(
    pair: tuple[Side, Side], asked: Asked, machine: Machine, progress: Callable[[str], Progress]
) -> tuple[TwoSample | None, str]:
    """The two-sample test, or why there is none."""
    try:
        with_vectors = _with_vectors(pair, asked, machine, progress)
    except MissingExtraError as error:
        return None, f"{error}. {error.hint}"
    if isinstance(with_vectors, str):
        return None, with_vectors
    held = [side.vectors for side in with_vectors if side.vectors is not None]
    (one, of_one), (other, of_other) = held
    if one.shape[1] != other.shape[1]:
        raise InputError(
            "The embeddings of the two sides are of different models",
            f"they have {one.shape[1]} and {other.shape[1]} numbers",
            "Make both with one model.",
        )
    groups = ([pair[0].groups[at] for at in of_one], [pair[1].groups[at] for at in of_other])
    found = measures.two_sample(one, other, groups, seed=asked.seed)
    return found, "" if found else "a side has fewer than two groups of photos"


def _with_vectors(
    pair: tuple[Side, Side], asked: Asked, machine: Machine, progress: Callable[[str], Progress]
) -> list[Side] | str:
    """Both sides with vectors of one network, or why that cannot be."""
    made: list[Side] = []
    for side, file, which in zip(pair, asked.files, "ab", strict=True):
        if file is None and side.version is None:
            return f"{side.ref} are records: name their embeddings with --embeddings-{which} FILE"
        if file:
            made.append(inputs.with_file(side, file))
    if len(made) < 2:
        if made and asked.model is None:
            return "name the model of the embeddings, so that the dataset gets the same: --model RUN"
        embedder = embeddings.open_embedder(asked.model, machine)
        _same_model(pair, embedder.digest, asked.model)
        made = [
            inputs.with_file(side, file)
            if file
            else inputs.with_embedder(side, embedder, machine, progress("embedding"))
            for side, file in zip(pair, asked.files, strict=True)
        ]
    return made


def _same_model(pair: tuple[Side, Side], digest: str, model: str | None) -> None:
    for side in pair:
        if side.model and side.model != digest:
            raise InputError(
                f"{side.ref} is of another model",
                f"its records name {side.model[:12]}, and {model} is {digest[:12]}",
                "Name the model that made the records.",
            )


def _gates(columns: Sequence[Column], tested: TwoSample | None, why: str, asked: Asked) -> list[Gate]:
    gates = []
    if asked.max_psi is not None:
        over = [column for column in columns if column.sure and column.index.psi > asked.max_psi]
        named = ", ".join(f"{column.name} {column.index.psi:.3f}" for column in over)
        gates.append(Gate("max_psi", not over, f"{named or 'every index'} against at most {asked.max_psi:g}"))
    if asked.min_p is not None:
        # A test that could not be made is no passed gate.
        said = f"p {tested.p:.4f} against at least {asked.min_p:g}" if tested else f"embeddings not compared: {why}"
        gates.append(Gate("min_p", tested is not None and tested.p >= asked.min_p, said))
    return gates


def as_json(found: Drift) -> dict[str, Any]:
    """The comparison as JSON types."""
    test = found.embeddings
    return {
        "before": found.before,
        "after": found.after,
        "photos": list(found.photos),
        "columns": [
            {
                "name": column.name,
                "kind": column.kind,
                "psi": round(column.index.psi, 6),
                "p": column.index.p,
                "verdict": column.verdict,
                "bins": _bins(column.index),
            }
            for column in found.columns
        ],
        "embeddings": None
        if test is None
        else {
            "mmd2": test.mmd2,
            "p": test.p,
            "bandwidth": test.bandwidth,
            "photos": list(test.photos),
            "groups": list(test.groups),
            "permutations": len(test.null),
            "seed": found.seed,
        },
        "not_compared": dict(found.not_compared),
        "gates": [{"name": gate.name, "passed": gate.passed, "said": gate.said} for gate in found.gates],
    }  # fmt: skip


def _bins(index: Index) -> list[list[Any]]:
    return [list(row) for row in zip(index.bins, index.before, index.after, strict=True)]
