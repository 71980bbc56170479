"""Covariates of a training: which columns there are, of which kind, and how they are hidden at random."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

import numpy as np
import polars as pl
import torch
from torch import Tensor

from plantml.data import covariates as dataset_columns
from plantml.data.manifest import SYSTEM, Version
from plantml.errors import InputError
from plantml.model.covariates import Covariate, CovariateKind, encode, is_missing, to_number
from plantml.targets import Target
from plantml.train.config import Task
from plantml.train.plan import Plan
from plantml.train.selection import Selection

COVARIATES = "*covariates"
"""Key of the covariates among labels and in batches: float32 [N, C], NaN where missing. No target has such a name."""

_HIDDEN = 0.2
"""Share of values that training hides at random, so that predictions hold when one is missing."""

_THINNED = 0.5
"""Share of an embedding that is dropped where it is learnt from together with covariates: else the photos' heads soon
know the training photos by heart, and nothing is left for the covariates to explain."""

RATE = 3.0
"""Learning rate of the covariates' layers, as a multiple of the heads'."""

_MOST_CLASSES = 200
"""Classes of a covariate; a column with more names photos rather than describes them."""


def resolve(
    names: Sequence[str], dataset: Selection, targets: Sequence[Target], task: Task, *, bare: pl.DataFrame | None = None
) -> tuple[Covariate, ...]:
    """The covariates of a training, with kind, range and classes from the training photos.

    Args:
        names: `NAME` or `NAME:KIND`; without a kind, a column of numbers is a number.
        dataset: whose metadata, or targets that are not predicted, they are.
        targets: to predict.
        task: must be `image`.
        bare: rows without a photo that are learnt from, too; see `rows_without_photo`.

    Raises:
        InputError: there is no such column, or nothing can be learnt from it.
    """
    if names and task != "image":
        raise InputError(
            "Covariates go with whole photos", f"the task is {task}", "Leave out --covariates, or use --task image."
        )
    rows = dataset.usable("train")
    if bare is not None:
        rows = pl.concat([rows, bare])
    covariates = [_covariate(text, rows, dataset, targets) for text in names]
    seen = {covariate.name for covariate in covariates}
    if len(seen) < len(covariates):
        raise InputError("A covariate is named twice", ", ".join(names), "Name each once.")
    return tuple(covariates)


def _covariate(text: str, rows: pl.DataFrame, dataset: Selection, targets: Sequence[Target]) -> Covariate:
    name, _, kind = text.partition(":")
    metadata = [column.removeprefix("meta_") for column in rows.columns if column.startswith("meta_")]
    predicted = [target.name for target in targets]
    others = [target.name for target in dataset.targets if target.kind != "multilabel" and target.name not in predicted]
    columns = [*metadata, *others]
    if name in predicted and name not in metadata:
        raise InputError(
            f"{name} cannot be a covariate", "it is predicted", "Leave it out, or name the targets: --targets A,B"
        )
    if name not in columns or name in SYSTEM:
        near = get_close_matches(name, columns, n=1)
        raise InputError(
            f"{dataset.ref} has no column {name!r} of measurements",
            f"its columns are {', '.join(columns) or 'none'}",
            f"Did you mean {near[0]!r}?" if near else f"Join a table: plantml dataset join {dataset.url} TABLE",
        )
    if kind and kind not in get_args(CovariateKind):
        raise InputError(
            f"Unknown kind {kind!r} in {text!r}", f"kinds: {', '.join(get_args(CovariateKind))}", "Leave it out."
        )
    column = dataset_columns.column_of(rows, name)
    assert column is not None
    values = [value for value in rows[column].to_list() if not is_missing(value)]
    numbers = np.array([to_number(value) for value in values])
    if not kind:
        kind = "number" if np.isfinite(numbers).all() and not any(map(_is_code, values)) else "class"
    return _of_classes(name, values) if kind == "class" else _of_numbers(name, values, numbers)


def _is_code(value: Any) -> bool:
    """True for text such as `007`, which is a name."""
    return isinstance(value, str) and len(value.strip()) > 1 and value.strip()[0] == "0" and value.strip()[1].isdigit()


def _of_numbers(name: str, values: Sequence[Any], numbers: "np.ndarray[Any, np.dtype[np.float64]]") -> Covariate:
    wrong = [value for value, number in zip(values, numbers, strict=True) if not np.isfinite(number)]
    if wrong:
        raise InputError(f"{name} is not numeric", f"a row has {wrong[0]!r}", f"Read it as classes: {name}:class")
    if len(set(numbers.tolist())) < 2:
        raise _says_nothing(name, "the training rows have fewer than two different values")
    return Covariate(
        name=name,
        kind="number",
        mean=float(numbers.mean()),
        std=float(numbers.std()),
        low=float(numbers.min()),
        high=float(numbers.max()),
    )


def _of_classes(name: str, values: Sequence[Any]) -> Covariate:
    classes = sorted({str(value).strip() for value in values})
    if len(classes) < 2:
        raise _says_nothing(name, "the training rows have fewer than two different values")
    if len(classes) > _MOST_CLASSES:
        raise _says_nothing(name, f"it has {len(classes)} different values, and at most {_MOST_CLASSES} can be learnt")
    return Covariate(name=name, kind="class", classes=tuple(classes))


def _says_nothing(name: str, why: str) -> InputError:
    return InputError(f"Nothing can be learnt from {name}", why, "Leave it out of --covariates.")


def rows_without_photo(version: Version, targets: Sequence[Target]) -> pl.DataFrame:
    """Rows of the train split that have no photo, but a label of a target, in an order that the source does not set."""
    has_label = pl.any_horizontal(*(pl.col(target.name).is_not_null() for target in targets))
    return version.without_photo("train").filter(has_label).sort("name", "source")


def used_without_photo(version: Version, plan: Plan) -> str:
    """A sentence about the rows of a version that have no photo; empty if there are none."""
    used = plan.rows_without_photo
    left = version.without_photo().height - used
    if plan.task != "image":
        why = f"--task {plan.task} learns from photos alone"
    elif not plan.covariates:
        why = "name columns that they have: --covariates A,B"
    elif not plan.without_photo:
        why = "without_photo is false"
    else:
        why = "they are not in train, or have no label to learn"
    sentences = [f"Learning from {used} rows without a photo, too."] if used else []
    return " ".join([*sentences, f"Left out: {left} rows without a photo; {why}."] if left else sentences)


def columns_of(rows: pl.DataFrame, covariates: Sequence[Covariate]) -> dict[str, Any]:
    """The covariates of photos under `COVARIATES`; nothing if there are none."""
    if not covariates:
        return {}
    return {COVARIATES: encode(covariates, dataset_columns.rows_of(rows, [each.name for each in covariates]))}


def hidden_at_random(columns: Tensor, *seed: int) -> Tensor:
    """Columns [N, C] with some values missing, which depend on the seed only."""
    random = np.random.default_rng([*seed, 1]).random(tuple(columns.shape))
    return columns.masked_fill(torch.from_numpy(random < _HIDDEN).to(columns.device), torch.nan)


def thinned_at_random(embedding: Tensor, *seed: int) -> Tensor:
    """Embeddings [N, D] with some features dropped and the others scaled up, which depends on the seed only."""
    random = np.random.default_rng([*seed, 2]).random(tuple(embedding.shape), np.float32)
    kept = torch.from_numpy(random >= _THINNED).to(embedding.device, embedding.dtype)
    return embedding * kept / (1 - _THINNED)
