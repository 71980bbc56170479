"""The report on a model of anomalies."""

import contextlib
import functools
from collections.abc import Mapping

import numpy as np

from plantml import imaging
from plantml.concurrency import Progress, silent
from plantml.data import photos
from plantml.imaging.heat import draw_heat
from plantml.metrics.anomaly import NAME
from plantml.model.contract import ANOMALY
from plantml.model.records import heat_of
from plantml.reporting import anomaly_charts, documents
from plantml.validate import report
from plantml.validate.anomalies.scoring import KIND, AnomalyOutcomes
from plantml.validate.report import Photo
from plantml.validate.results import Validation

_WORST, _FOUND = 8, 8
"""Photos of each sort that are shown."""

_SIDE = 320


def pictures(validation: Validation[AnomalyOutcomes]) -> dict[str, bytes]:
    """All charts as PNG, by file name."""
    outcomes, scores = validation.outcomes, validation.result.scores
    values, truth = outcomes.outputs[ANOMALY.name][:, 1], outcomes.truth[ANOMALY.name]
    files = {"scores_anomaly.png": anomaly_charts.histogram(values, truth, outcomes.kinds)}
    if f"{NAME}.auroc" in scores:
        files["roc_anomaly.png"] = anomaly_charts.roc(values, truth, scores[f"{NAME}.auroc"])
    return files


def render(validation: Validation[AnomalyOutcomes], drawn: Mapping[str, bytes], progress: Progress = silent) -> bytes:
    """The page as UTF-8 bytes, with charts as `pictures` gives them."""
    result = validation.result
    rows = [
        (kind, [(f"{NAME}.{score}[{kind}]", row[score]) for score in ("auroc", "sensitivity")], int(row["support"]))
        for kind, row in result.anomalies.items()
    ]
    return report.fill(
        result,
        drawn,
        headline=report.headline(result, result.scores),
        targets=[{"name": ANOMALY.name, "unit": "", "head": ["AUROC", "sensitivity"], "rows": rows}],
        worst=_worst(validation, progress),
        furthest=[],
        changed=report.changed(validation),
        next=[],
    )


def _worst(validation: Validation[AnomalyOutcomes], progress: Progress) -> list[Photo]:
    """Normal photos with the highest scores, anomalous ones with the lowest, then the clearest finds."""
    values, truth = validation.outcomes.outputs[ANOMALY.name][:, 1], validation.outcomes.truth[ANOMALY.name]
    order = np.argsort(-values, kind="stable")
    wrong = [(at, "false alarm") for at in order if truth[at] == 0 and values[at] > 0.5][:_WORST]
    wrong += [(at, "missed") for at in order[::-1] if truth[at] == 1 and values[at] <= 0.5][:_WORST]
    todo = wrong + [(at, "found") for at in order if truth[at] == 1 and values[at] > 0.5][:_FOUND]
    return report.draw_photos(functools.partial(_photo, validation), todo, validation.pipeline.threads, progress)


def _photo(validation: Validation[AnomalyOutcomes], one: tuple[int, str]) -> Photo:
    """A photo with its heat map beside it."""
    at, badge = one
    place = validation.readable[at]
    row = validation.photos.rows.row(place, named=True)
    record = validation.predictions.items[place].record
    picture = looked_at = ""
    with contextlib.suppress(*photos.UNREADABLE):
        small = imaging.thumbnail(photos.read(row["image_id"], row["url"], validation.photo_cache), _SIDE)
        picture = documents.jpeg_url(small)
        if record.heat_map is not None:
            sides = [record.heat_map[side] * small.width / row["width"] for side in "xywh"]
            looked_at = documents.jpeg_url(draw_heat(small, heat_of(record.heat_map), sides))
    score = float(validation.outcomes.outputs[ANOMALY.name][at, 1])
    lines = [("label", str(row[KIND] or row[ANOMALY.name])), ("score", f"{score:.3f}")]
    return Photo(row["name"], picture, looked_at, lines, badge)
