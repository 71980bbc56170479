"""Contracts for models that a test makes up."""

from typing import Any

from plantml.imaging import Fit
from plantml.model.contract import Architecture, Contract, Origin
from plantml.targets import Target


def make_contract(*targets: Target, embedding: int = 1, **changes: Any) -> Contract:
    """A contract of a model for photos of 8 x 8 pixels; `changes` replace other fields."""
    architecture = Architecture(backbone="none", embedding=embedding, mean=(0.5,) * 3, std=(0.5,) * 3, bank=1)
    fields = {
        "input": Fit(8, 8),
        "architecture": architecture,
        "temperatures": {},
        "thresholds": {},
        "unknown_threshold": 0.5,
        "dataset": Origin(url="data", version=1, fingerprint=""),
        "metrics": {},
        "seed": 0,
        "versions": {},
    }
    return Contract(targets=targets, **(fields | changes))
