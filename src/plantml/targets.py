"""Targets: what is predicted, and of which kind. Classes are always matched by name.

plantml knows the meaning of three targets: `category` (which plant), `health` and `disease`.
Users may define any others.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plantml.errors import InputError

Kind = Literal["class", "multilabel", "value"]

HEALTHY, DISEASED, NO_DISEASE = "healthy", "diseased", "none"
"""The words that tie `health` and `disease` together: a healthy plant has the disease `none`."""

RESERVED = frozenset(
    {"image", "image_id", "width", "height", "model", "targets", "boxes", "decision", "unknown", "failure"}
)
"""Keys of a record; a target cannot have such a name."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to predict.

    Attributes:
        name: lower-case letters, digits and underscores.
        kind: `class` (one of n), `multilabel` (any of n), `value` (a number).
        classes: names in the order of the model's outputs; empty for a value.
        unit: of a value (`fraction`, `days`…); empty otherwise.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...] = ()
    unit: str = ""

    @property
    def size(self) -> int:
        """Number of outputs."""
        return 1 if self.kind == "value" else len(self.classes)

    def encode(self, labels: Sequence[Any]) -> NDArray[Any]:
        """Labels as numbers, matched by class name.

        Args:
            labels: one per photo; `None` means not labelled.

        Returns:
            `class`: int64 [N], -1 where not labelled. `multilabel`: float32 [N, classes], and
            `value`: float32 [N], both NaN where not labelled.

        Raises:
            InputError: a label is not one of the classes.
        """
        if self.kind == "value":
            return np.array([np.nan if label is None else label for label in labels], np.float32)
        index = {name: number for number, name in enumerate(self.classes)}
        if self.kind == "class":
            return np.array([-1 if label is None else self._index(index, label) for label in labels], np.int64)
        hot = np.full((len(labels), len(self.classes)), np.nan, np.float32)
        for row, names in zip(hot, labels, strict=True):
            if names is not None:
                row[:] = 0
                row[[self._index(index, name) for name in names]] = 1
        return hot

    def labelled(self, encoded: NDArray[Any]) -> NDArray[np.bool_]:
        """Which photos have a label: bool [N], from the result of `encode`."""
        if self.kind == "class":
            return np.asarray(encoded >= 0, np.bool_)
        return np.asarray(~np.isnan(encoded).any(axis=tuple(range(1, encoded.ndim))), np.bool_)

    def _index(self, index: Mapping[str, int], label: str) -> int:
        try:
            return index[label]
        except KeyError:
            raise InputError(
                f"{self.name} {label!r} is not a class of this model or dataset",
                f"it has {', '.join(self.classes)}",
                "Rename the class (validate: --map), or train on a version that has it.",
            ) from None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The score from which a target's prediction is accepted, and its risk on the photos that set it.

    Attributes:
        score: the threshold; `metrics.calibration.NOTHING` if no score is good enough.
        coverage: share of the photos that are accepted.
        risk: share of wrong predictions among the accepted ones; 0 if there are none.
        bound: what the true risk does not exceed with a probability of 95 %, the search for the threshold paid
            for as in the paper's algorithm SGR (see `metrics.selective.risk_bound`); 1 if nothing is accepted.
        photos: labelled photos that it was set on.
        provisional: true if they are fewer than `metrics.calibration.ENOUGH`.
    """

    score: float
    coverage: float
    risk: float
    bound: float
    photos: int
    provisional: bool


def check_name(name: str, reserved: Iterable[str] = ()) -> str:
    """`name` if it is a valid target name. Raises `InputError` if not."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"A target cannot be named {name!r}",
            "names are lower-case letters, digits and underscores",
            "Write it like leaf_count.",
        )
    if name in RESERVED or name in reserved:
        raise InputError(
            f"A target cannot be named {name!r}",
            "datasets or records have a column of that name",
            "Choose another name.",
        )
    return name


def is_target(name: str, reserved: Iterable[str] = ()) -> bool:
    """Whether `name` is a valid target name."""
    return bool(_NAME.fullmatch(name)) and name not in RESERVED and name not in reserved


def valid_combinations(health: Target, disease: Target) -> NDArray[np.bool_]:
    """Which pairs of health and disease are consistent: bool [health classes, disease classes].

    `healthy` allows only the disease `none`; `diseased` allows every disease except `none`.
    Other states (`stressed`, `dead`) allow every disease.
    """
    no_disease = np.array([name == NO_DISEASE for name in disease.classes])
    rows = []
    for state in health.classes:
        if state == HEALTHY:
            rows.append(no_disease)
        elif state == DISEASED:
            rows.append(~no_disease)
        else:
            rows.append(np.ones_like(no_disease))
    return np.array(rows)


def tied(targets: Sequence[Target]) -> tuple[Target, Target] | None:
    """The health and disease targets, if both exist with the classes that tie them together."""
    by_name = {target.name: target for target in targets}
    health, disease = by_name.get("health"), by_name.get("disease")
    if health is None or disease is None or health.kind != "class" or disease.kind != "class":
        return None
    if HEALTHY not in health.classes or NO_DISEASE not in disease.classes or len(disease.classes) < 2:
        return None
    return health, disease
