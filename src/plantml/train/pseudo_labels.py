"""The labels that a training gives to unlabelled photos: a file of the run, so that a resumed run has the same."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import storage
from plantml.data import manifest
from plantml.targets import Target
from plantml.train.batches.loader import Photos
from plantml.train.label_propagation import propagate
from plantml.train.plan import Plan
from plantml.train.prepare import TrainingData
from plantml.train.run_folder import PSEUDO_LABELS, RunFolder

Embed = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def complete(data: TrainingData, plan: Plan, run: RunFolder, embed: Embed) -> tuple[Photos, dict[str, int]]:
    """Photos with pseudo-labels beside the labelled ones, and how many have got one, by target.

    The labels are read from the run if an earlier call has written them.

    Args:
        data: the labelled photos, and which ones are not.
        plan: of the training.
        run: keeps the labels.
        embed: gives the embeddings of some rows, float32 [N, D].
    """
    photos, rows, image_ids = data.train, data.unlabelled, data.image_ids

    def find() -> pl.DataFrame:
        ids = pl.Series("image_id", [image_ids[row] for row in rows])
        return _labels(photos, rows, plan, embed).insert_column(0, ids)

    table = kept(run, find)
    saved = {image_id: number for number, image_id in enumerate(table["image_id"])}
    rows = np.array([row for row in rows if image_ids[row] in saved], np.int64)
    table = table[[saved[image_ids[row]] for row in rows]]
    labels, learnt = dict(photos.labels), np.zeros(len(rows), np.bool_)
    for target in plan.targets:
        encoded = target.encode(table[target.name].to_list())
        labels[target.name] = labels[target.name].copy()
        labels[target.name][rows] = encoded
        learnt |= target.labelled(encoded)
    counts = {target.name: table.height - table[target.name].null_count() for target in plan.targets}
    return replace(photos, labels=labels, rows=np.concatenate([photos.rows, rows[learnt]])), counts


def kept(run: RunFolder, find: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """What the unlabelled photos of a run were given, a row each; found and written if the run lacks that table."""
    url = storage.join(run.url, PSEUDO_LABELS)
    if storage.exists(url):
        return pl.read_parquet(io.BytesIO(storage.read(url)))
    table, buffer = find(), io.BytesIO()
    table.write_parquet(buffer)
    run.write(PSEUDO_LABELS, buffer.getvalue())
    return table


def _labels(photos: Photos, rows: NDArray[np.int64], plan: Plan, embed: Embed) -> pl.DataFrame:
    """The pseudo-labels of rows, by name: a column per target."""
    both = np.concatenate([photos.rows, rows])
    known = {name: values[both] for name, values in photos.labels.items()}
    completed = propagate(plan.targets, embed(both), known, plan.pseudo_threshold)
    columns = {}
    for target in plan.targets:
        encoded = completed[target.name][len(photos.rows) :]
        columns[target.name] = _names(target, encoded)
    return pl.DataFrame(columns)


def _names(target: Target, encoded: NDArray[Any]) -> pl.Series:
    """Encoded labels as in a manifest."""
    names: list[Any] = [None] * len(encoded)
    for row in np.flatnonzero(target.labelled(encoded)).tolist():
        if target.kind == "class":
            names[row] = target.classes[encoded[row]]
        elif target.kind == "multilabel":
            names[row] = [target.classes[index] for index in np.flatnonzero(encoded[row])]
    return pl.Series(names, dtype=manifest.schema_of([target])[target.name])
