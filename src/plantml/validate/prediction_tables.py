"""Predictions as tables for other tools."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from plantml.data.tables import to_parquet
from plantml.model.pipeline import Prediction
from plantml.targets import Target
from plantml.validate.predictions import Predictions
from plantml.validate.results import OtherModel, Validation
from plantml.validate.scoring import Outcomes
from plantml.validate.selection import DATASET, Photos


def write(validation: Validation[Outcomes]) -> dict[str, bytes]:
    """Predictions, and the photos that two models predict differently, as Parquet and CSV."""
    table = predictions(validation.photos, validation.predictions, validation.other)
    tables = {"predictions": table}
    comparison = validation.result.comparison
    if comparison:
        places = [validation.readable[at] for at in comparison.changed]
        changed = ["|".join(targets) for targets in comparison.changed.values()]
        tables["changed"] = table[places].with_columns(pl.Series("changed", changed, dtype=pl.String))
    return {file: data for name, each in tables.items() for file, data in files(name, each).items()}


def files(name: str, table: pl.DataFrame) -> dict[str, bytes]:
    """A table as Parquet and as CSV, by file name."""
    return {f"{name}.parquet": to_parquet(table), f"{name}.csv": table.write_csv().encode()}


def predictions(photos: Photos, ours: Predictions, other: OtherModel[Outcomes] | None = None) -> pl.DataFrame:
    """One row per photo: its identity, the label, the prediction, another model's, and every class's probability."""
    rows, items = photos.rows, ours.items
    table = rows.select(DATASET, "source", "name", "image_id", "group", "split")
    columns: dict[str, pl.Series] = {
        "decision": pl.Series([each.record.decision for each in items], dtype=pl.String),
        "unknown": pl.Series([each.record.unknown for each in items], dtype=pl.Float64),
        "failure": pl.Series([each.record.failure for each in items], dtype=pl.String),
    }
    their_targets = {target.name: target for target in other.targets} if other else {}
    for target in photos.targets:
        truth = rows[target.name]
        columns[f"{target.name}_true"] = truth.list.join("|") if target.kind == "multilabel" else truth
        columns[f"{target.name}_predicted"] = _predicted(target, items)
        if other and target.name in their_targets:
            columns[f"{target.name}_other"] = _predicted(their_targets[target.name], other.predictions.items)
        for number, name in enumerate(target.classes):
            scores = [
                None if each.probabilities is None else float(each.probabilities[target.name][number]) for each in items
            ]
            columns[f"{target.name}[{name}]"] = pl.Series(scores, dtype=pl.Float32)
    return table.with_columns(series.alias(name) for name, series in columns.items())


def _predicted(target: Target, items: Sequence[Prediction]) -> pl.Series:
    values = [_value(target, (each.record.targets or {}).get(target.name)) for each in items]
    return pl.Series(values, dtype=pl.Float64 if target.kind == "value" else pl.String)


def _value(target: Target, predicted: Mapping[str, Any] | None) -> Any:
    if predicted is None:
        return None
    if target.kind == "class":
        return predicted["label"]
    return predicted["value"] if target.kind == "value" else "|".join(name for name, _ in predicted["labels"])
