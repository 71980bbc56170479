"""Predictions as tables, for other tools."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from plantml.model.pipeline import Prediction
from plantml.targets import Target
from plantml.validate.predictions import Answers
from plantml.validate.selection import DATASET, Photos

if TYPE_CHECKING:
    from plantml.validate.validate import Work


def write(work: "Work") -> dict[str, bytes]:
    """Predictions, and the photos that two models answer differently, as Parquet and CSV."""
    table = predictions(work.selected, work.answers, work.theirs)
    made = {"predictions": table}
    comparison = work.result.comparison
    if comparison:
        places = [work.answered[at] for at in comparison.changed]
        said = ["|".join(targets) for targets in comparison.changed.values()]
        made["changed"] = table[places].with_columns(pl.Series("changed", said, dtype=pl.String))
    return {file: data for name, found in made.items() for file, data in files(name, found).items()}


def files(name: str, table: pl.DataFrame) -> dict[str, bytes]:
    """A table as Parquet and as CSV, by the names of the files."""
    parquet, text = io.BytesIO(), io.BytesIO()
    table.write_parquet(parquet)
    table.write_csv(text)
    return {f"{name}.parquet": parquet.getvalue(), f"{name}.csv": text.getvalue()}


def predictions(
    selected: Photos, answers: Answers, theirs: tuple[Answers, Sequence[Target]] | None = None
) -> pl.DataFrame:
    """One row a photo: who it is, the truth, the answer, another model's, and every class's probability."""
    rows, predictions = selected.rows, answers.predictions
    table = rows.select(DATASET, "source", "name", "image_id", "group", "split")
    columns: dict[str, pl.Series] = {
        "decision": pl.Series([found.record.decision for found in predictions], dtype=pl.String),
        "unknown": pl.Series([found.record.unknown for found in predictions], dtype=pl.Float64),
        "failure": pl.Series([found.record.failure for found in predictions], dtype=pl.String),
    }
    other = {target.name: target for target in theirs[1]} if theirs else {}
    for target in selected.targets:
        truth = rows[target.name]
        columns[f"{target.name}_true"] = truth.list.join("|") if target.kind == "multilabel" else truth
        dtype = pl.Float64 if target.kind == "value" else pl.String
        columns[f"{target.name}_predicted"] = pl.Series([_said(target, found) for found in predictions], dtype=dtype)
        if theirs and target.name in other:
            said = [_said(other[target.name], found) for found in theirs[0].predictions]
            columns[f"{target.name}_other"] = pl.Series(said, dtype=dtype)
        for number, name in enumerate(target.classes):
            numbers = [
                None if found.probabilities is None else float(found.probabilities[target.name][number])
                for found in predictions
            ]
            columns[f"{target.name}[{name}]"] = pl.Series(numbers, dtype=pl.Float32)
    return table.with_columns(series.alias(name) for name, series in columns.items())


def _said(target: Target, found: Prediction) -> Any:
    if found.record.targets is None:
        return None
    answer = found.record.targets[target.name]
    if target.kind == "class":
        return answer["label"]
    return answer["value"] if target.kind == "value" else "|".join(name for name, _ in answer["labels"])
