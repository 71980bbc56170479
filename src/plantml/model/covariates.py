"""Covariates: measured columns beside a photo, such as temperature or variety, as numbers for the network."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from plantml.errors import UsageError

CovariateKind = Literal["number", "class"]

CovariateRow: TypeAlias = Mapping[str, Any]
"""Values of a photo's covariates by name, as a table has them. A name that is absent, `None` and "" are missing."""

Columns: TypeAlias = NDArray[np.float32]
"""Covariates of N photos, [N, C]: a number in its unit, or the number of a class; NaN where missing."""

_LARGEST = 1e38
"""Size of a number beyond which no more is told apart: differences of two must fit 32 bits."""

VALUES, KNOWN = "covariates", "covariates_known"
"""Inputs of a network beside `image`, float32 [N, C] each: the values, and 1 where a value is known. All zeros: the
photo alone."""


class Covariate(BaseModel):
    """A measured column that a model takes beside the photo."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: CovariateKind
    classes: tuple[str, ...] | None = Field(default=None, description="of a class, in the order of their numbers")
    mean: float | None = Field(default=None, description="of a number, over the training photos")
    std: float | None = None
    low: float | None = Field(default=None, description="smallest in training; the network takes nothing below it")
    high: float | None = None

    def encode(self, value: Any) -> float:
        """A value as the network takes it; NaN if it is missing, or neither a number nor a known class."""
        if is_missing(value):
            return math.nan
        if self.kind == "class":
            text = str(value).strip()
            return float((self.classes or ()).index(text)) if text in (self.classes or ()) else math.nan
        return to_number(value)

    def fault(self) -> str:
        """Why it cannot be; empty if it can."""
        numbers = (self.mean, self.std, self.low, self.high)
        if self.kind == "class":
            classes = self.classes or ()
            is_valid = classes and len(set(classes)) == len(classes) and set(numbers) == {None}
            return "" if is_valid else f"{self.name} needs classes, each once, and nothing else"
        known = [number for number in numbers if number is not None and math.isfinite(number)]
        if len(known) < len(numbers) or self.classes is not None or known[1] <= 0 or known[2] > known[3]:
            return f"{self.name} needs a mean, a deviation above 0, and a range"
        return ""


def is_missing(value: Any) -> bool:
    """True for what a table writes where nothing was measured."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value  # noqa: PLR0124 - NaN


def to_number(value: Any) -> float:
    """A value of a table as a number, at most `_LARGEST` in size; NaN if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return min(max(number, -_LARGEST), _LARGEST) if math.isfinite(number) else math.nan


def check_names(covariates: Sequence[Covariate], rows: Iterable[CovariateRow | None]) -> None:
    """Raise `UsageError` if a row has what the model does not take: a typo would otherwise be a missing value."""
    names = [covariate.name for covariate in covariates]
    for row in rows:
        for name in row or ():
            if name not in names:
                raise UsageError(
                    f"The model takes no {name!r:.80}",
                    f"its covariates are {', '.join(names) or 'none'}",
                    "Leave it out, or correct the name.",
                )


def encode(covariates: Sequence[Covariate], rows: Sequence[CovariateRow | None]) -> Columns:
    """The covariates of photos, [N, C]; `None` has none."""
    columns = np.full((len(rows), len(covariates)), np.nan, np.float32)
    for at, row in enumerate(rows):
        if row:
            columns[at] = [covariate.encode(row.get(covariate.name)) for covariate in covariates]
    return columns


def network_inputs(columns: Columns | None, photos: int, width: int) -> dict[str, NDArray[np.float32]]:
    """The inputs `VALUES` and `KNOWN` of a network.

    Args:
        columns: of the photos; `None` for photos alone.
        photos: number of them.
        width: number of covariates that the network takes; 0 for a network without these inputs.
    """
    if not width:
        return {}
    if columns is None:
        columns = np.full((photos, width), np.nan, np.float32)
    return {VALUES: np.nan_to_num(columns), KNOWN: (~np.isnan(columns)).astype(np.float32)}


@dataclass
class Coverage:
    """How many photos have a covariate.

    Attributes:
        known: with a value that the model takes.
        missing: without one.
        unknown: with a class that the model does not know, or with what is no number; they count as missing.
        outside: known, but outside the range in training, whose nearest end is taken.
    """

    known: int = 0
    missing: int = 0
    unknown: int = 0
    outside: int = 0

    def add(self, covariate: Covariate, value: Any) -> None:
        """Count a photo."""
        number = covariate.encode(value)
        if is_missing(value):
            self.missing += 1
        elif math.isnan(number):
            self.unknown += 1
        else:
            self.known += 1
            if covariate.low is not None and covariate.high is not None:
                self.outside += not covariate.low <= number <= covariate.high


class CovariateCounter:
    """Counts, by name, how many photos have each covariate of a model."""

    def __init__(self, covariates: Sequence[Covariate]) -> None:
        self._covariates = covariates
        self.by_name = {covariate.name: Coverage() for covariate in covariates}

    def add(self, row: CovariateRow | None) -> None:
        """Count a photo."""
        for covariate in self._covariates:
            self.by_name[covariate.name].add(covariate, (row or {}).get(covariate.name))

    def add_all(self, rows: Iterable[CovariateRow | None]) -> None:
        """Count photos, if there is anything to count."""
        if self._covariates:
            for row in rows:
                self.add(row)

    def as_json(self) -> dict[str, dict[str, int]]:
        """Photos by name and by what is known of the covariate."""
        return {name: vars(coverage) for name, coverage in self.by_name.items()}

    def warnings(self) -> list[str]:
        """A sentence for each thing that a user should know."""
        sentences = []
        for covariate in self._covariates:
            coverage = self.by_name[covariate.name]
            photos = coverage.known + coverage.missing + coverage.unknown
            if coverage.missing:
                sentences.append(f"{covariate.name} is missing for {coverage.missing} of {photos} photos")
            if coverage.unknown:
                known = f"the model knows {', '.join(covariate.classes)}" if covariate.classes else "not a number"
                sentences.append(
                    f"{covariate.name} of {coverage.unknown} of {photos} photos counts as missing ({known})"
                )
            if coverage.outside:
                sentences.append(
                    f"{covariate.name} of {coverage.outside} of {photos} photos is outside the range in training,"
                    f" {covariate.low:g} to {covariate.high:g}, whose nearest end is taken"
                )
        return sentences
