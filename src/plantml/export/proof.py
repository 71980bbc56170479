"""Is it the same model? Two runtimes answer for the same photos, and their answers are compared."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plantml.bundle import Contract
from plantml.errors import GateError
from plantml.images import Pixels
from plantml.runtime import Runtime

MAX_DIFFERENCE = 1e-4
"""Largest difference of a probability that rounding explains."""


@dataclass(frozen=True)
class Proof:
    """How far two runtimes agree.

    Attributes:
        photos: compared.
        agreement: share of photos with the same labels and the same side of the unknown threshold.
        difference: largest difference of any probability, value or unknown score.
    """

    photos: int
    agreement: float
    difference: float

    @property
    def holds(self) -> bool:
        """True if both are the same model."""
        return self.photos > 0 and self.agreement == 1.0 and self.difference <= MAX_DIFFERENCE


def compare(contract: Contract, reference: Runtime, candidate: Runtime, batches: Iterable[Pixels]) -> Proof:
    """Let both answer for batches of photos, uint8 RGB [N, H, W, 3].

    Raises:
        GateError: the candidate does not even give the outputs that the contract promises.
    """
    photos = same = 0
    difference = 0.0
    for batch in batches:
        first, second = reference.run(batch), candidate.run(batch)
        for name, answer in first.items():
            if name not in second or second[name].shape != answer.shape:
                raise GateError(f"The export has no output {name} of shape {answer.shape}", "it is another model")
        agree = np.ones(len(batch), bool)
        for target in contract.targets:
            name = f"target.{target.name}"
            a, b = first[name], second[name]
            difference = max(difference, _difference(a, b))
            if target.kind == "class":
                agree &= a.argmax(axis=1) == b.argmax(axis=1)
            elif target.kind == "multilabel":
                agree &= ((a >= 0.5) == (b >= 0.5)).all(axis=1)
        a, b = first["unknown"], second["unknown"]
        difference = max(difference, _difference(a, b))
        agree &= (a > contract.unknown_threshold) == (b > contract.unknown_threshold)
        photos += len(batch)
        same += int(agree.sum())
    return Proof(photos, same / photos if photos else 0.0, difference)


def _difference(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """The largest difference, of large values in parts of their size; infinite where one is not a number."""
    gaps = np.abs(reference - candidate) / np.maximum(1, np.abs(reference))
    return float(gaps.max(initial=0)) if np.isfinite(gaps).all() else np.inf


def require(proof: Proof, what: str) -> Proof:
    """The proof if it holds. Raises `GateError` that says what was found if not."""
    if not proof.holds:
        raise GateError(
            f"{what} is not the same model",
            f"of {proof.photos} photos {proof.agreement:.1%} have the same labels, and scores differ by up to"
            f" {proof.difference:.2g}; allowed are 100 % and {MAX_DIFFERENCE:g}",
            "Nothing was published. This is a bug in the exporter or a broken installation; please report it.",
        )
    return proof
