"""`plantml dataset drift`: compare new photos with the training photos."""

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
"""Significance level of an index, divided by the number of columns (Bonferroni)."""


@dataclass(frozen=True)
class Column:
    """The comparison of one label, score or measure of quality; `kind` is `label` or `number`.

    `sure` is true if the population stability index is significant, corrected for the number of columns.
    """

    name: str
    kind: str
    index: Index
    sure: bool

    @property
    def verdict(self) -> str:
        """`none`, `moderate` or `large`; `by chance?` if the index is not significant."""
        if self.index.psi < measures.MODERATE:
            return "none"
        if not self.sure:
            return "by chance?"
        return "large" if self.index.psi >= measures.LARGE else "moderate"


@dataclass(frozen=True)
class Gate:
    """A requested limit, whether it holds, and the numbers."""

    name: str
    passed: bool
    evidence: str


@dataclass(frozen=True)
class Drift:
    """The result of a comparison: significant changes come first, the largest first. `not_compared` has the reasons."""

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
class Options:
    """What to compare, and the gates `max_psi` (of significant indices) and `min_p` (of the embeddings).

    `split` is one of the first side, if it is a dataset; `files` are the embeddings of each side.
    """

    split: str | None = None
    model: str | None = None
    vectors: bool = True
    files: tuple[str | None, str | None] = (None, None)
    max_psi: float | None = None
    min_p: float | None = None
    seed: int = 0


def drift(
    before: str, after: str, options: Options, machine: Machine, progress: Callable[[str], Progress] = lambda _: silent
) -> Drift:
    """Compare the training photos with new photos, each a dataset or records of a detection.

    Raises:
        InputError: a side cannot be read, or has no photos.
    """
    pair = (inputs.read(before, split=options.split if not inputs.is_records(before) else None), inputs.read(after))
    return compare(*pair, options, machine, progress)


def compare(
    before: Side,
    after: Side,
    options: Options,
    machine: Machine,
    progress: Callable[[str], Progress] = lambda _: silent,
) -> Drift:
    """Compare two sides that have been read; see `drift`."""
    columns, missing = _columns(before, after)
    tested, why = _tested((before, after), options, machine, progress) if options.vectors else (None, "not requested")
    if why:
        missing["embeddings"] = why
    return Drift(
        before.ref,
        after.ref,
        (len(before.ids), len(after.ids)),
        columns,
        tested,
        missing,
        _gates(columns, tested, why, options),
        options.seed,
    )


def _columns(before: Side, after: Side) -> tuple[list[Column], dict[str, str]]:
    """Compute the index of all common columns, and the reason why the others have none."""
    indices: list[tuple[str, str, Index]] = []
    missing: dict[str, str] = {}
    for name in dict.fromkeys([*before.labels, *before.numbers, *after.labels, *after.numbers]):
        kinds = [
            "label" if name in side.labels else "number" if name in side.numbers else "" for side in (before, after)
        ]
        if kinds[0] != kinds[1]:
            only = before.ref if not kinds[1] else after.ref
            missing[name] = f"only in {only}" if "" in kinds else "a label on one side, a number on the other"
            continue
        index = _index(name, kinds[0], before, after)
        if index is None:
            missing[name] = "no photo of one side has a value"
        else:
            indices.append((name, kinds[0], index))
    level = LEVEL / max(1, len(indices))
    columns = [Column(name, kind, index, index.p is not None and index.p < level) for name, kind, index in indices]
    return sorted(columns, key=lambda column: (not column.sure, -column.index.psi, column.name)), missing


def _index(name: str, kind: str, before: Side, after: Side) -> Index | None:
    """The index of one column; `None` if no photo of a side has a value."""
    sides = (before, after)
    if kind == "label":
        places = [[at for at, label in enumerate(side.labels[name]) if label is not None] for side in sides]
    else:
        places = [np.flatnonzero(np.isfinite(side.numbers[name])).tolist() for side in sides]
    if not all(places):
        return None
    one, other = (
        measures.effective([side.groups[at] for at in each]) for side, each in zip(sides, places, strict=True)
    )
    if kind == "label":
        labels = [[str(side.labels[name][at]) for at in each] for side, each in zip(sides, places, strict=True)]
        return measures.labels_index(labels[0], labels[1], (one, other))
    numbers = [side.numbers[name][each] for side, each in zip(sides, places, strict=True)]
    return measures.numbers_index(numbers[0], numbers[1], (one, other))


def _tested(
    pair: tuple[Side, Side], options: Options, machine: Machine, progress: Callable[[str], Progress]
) -> tuple[TwoSample | None, str]:
    """Run the two-sample test, or return why it cannot run."""
    try:
        with_vectors = _with_vectors(pair, options, machine, progress)
    except MissingExtraError as error:
        return None, f"{error}. {error.hint}"
    if isinstance(with_vectors, str):
        return None, with_vectors
    vectors = [side.vectors for side in with_vectors if side.vectors is not None]
    (one, of_one), (other, of_other) = vectors
    if one.shape[1] != other.shape[1]:
        raise InputError(
            "The embeddings of the two sides come from different models",
            f"they have {one.shape[1]} and {other.shape[1]} dimensions",
            "Compute both with the same model.",
        )
    groups = ([pair[0].groups[at] for at in of_one], [pair[1].groups[at] for at in of_other])
    test = measures.two_sample(one, other, groups, seed=options.seed)
    return test, "" if test else "a side has fewer than two groups of photos"


def _with_vectors(
    pair: tuple[Side, Side], options: Options, machine: Machine, progress: Callable[[str], Progress]
) -> list[Side] | str:
    """Return both sides with vectors of one network, or why that is impossible."""
    sides: list[Side] = []
    for side, file, which in zip(pair, options.files, "ab", strict=True):
        if file is None and side.version is None:
            return f"{side.ref} contains records: give their embeddings with --embeddings-{which} FILE"
        if file:
            sides.append(inputs.with_file(side, file))
    if len(sides) < 2:
        if sides and options.model is None:
            return "give the model of the embeddings with --model RUN, so that it also embeds the dataset"
        embedder = embeddings.open_embedder(options.model, machine)
        _same_model(pair, embedder.digest, options.model)
        sides = [
            inputs.with_file(side, file)
            if file
            else inputs.with_embedder(side, embedder, machine, progress("embedding"))
            for side, file in zip(pair, options.files, strict=True)
        ]
    return sides


def _same_model(pair: tuple[Side, Side], digest: str, model: str | None) -> None:
    for side in pair:
        if side.model and side.model != digest:
            raise InputError(
                f"{side.ref} comes from another model",
                f"its records state model {side.model[:12]}, and {model} is {digest[:12]}",
                "Give the model that wrote the records with --model.",
            )


def _gates(columns: Sequence[Column], tested: TwoSample | None, why: str, options: Options) -> list[Gate]:
    gates = []
    if options.max_psi is not None:
        over = [column for column in columns if column.sure and column.index.psi > options.max_psi]
        named = ", ".join(f"{column.name} {column.index.psi:.3f}" for column in over)
        gates.append(Gate("max_psi", not over, f"{named or 'all indices pass'}; the limit is {options.max_psi:g}"))
    if options.min_p is not None:
        # A test that could not run does not pass.
        evidence = (
            f"p {tested.p:.4f}; the minimum is {options.min_p:g}" if tested else f"embeddings not compared: {why}"
        )
        gates.append(Gate("min_p", tested is not None and tested.p >= options.min_p, evidence))
    return gates


def as_json(result: Drift) -> dict[str, Any]:
    """Return the comparison as JSON types."""
    test = result.embeddings
    return {
        "before": result.before,
        "after": result.after,
        "photos": list(result.photos),
        "columns": [
            {
                "name": column.name,
                "kind": column.kind,
                "psi": round(column.index.psi, 6),
                "p": column.index.p,
                "verdict": column.verdict,
                "bins": list(zip(column.index.bins, column.index.before, column.index.after, strict=True)),
            }
            for column in result.columns
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
            "seed": result.seed,
        },
        "not_compared": dict(result.not_compared),
        "gates": [vars(gate) for gate in result.gates],
    }  # fmt: skip
