"""The validation report as one self-contained HTML page: scores, curves, and the worst photos."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from plantml import imaging
from plantml.concurrency import Progress, in_threads, silent
from plantml.data import photos
from plantml.metrics import ClassReport, Interval, ValueReport, calibration, higher_is_better, selective
from plantml.metrics.bootstrap import LEVEL
from plantml.model.pipeline import Prediction
from plantml.reporting import charts, documents
from plantml.targets import Target, Threshold
from plantml.validate import occlusion, review
from plantml.validate.compare import percent, predicted_labels
from plantml.validate.predictions import measured
from plantml.validate.results import Validation, ValidationResult
from plantml.validate.scoring import Outcomes

Of = TypeVar("Of")

_SIDE = 200
_WORST, _FURTHEST, _CHANGED, _NEXT, _SLICES = 12, 6, 12, 12, 25
"""Photos and slices that are shown."""

_RISK = 0.05
"""Risk that is drawn where the contract names none."""

_WORDS = {
    "joint_accuracy": "all targets correct",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "top3_accuracy": "top-3 accuracy",
    "top5_accuracy": "top-5 accuracy",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
    "aurc": "area under risk-coverage (AURC)",
    "coverage_at_1pct": "coverage at 1 % risk",
    "coverage_at_5pct": "coverage at 5 % risk",
    "average_precision": "average precision",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "mse": "mean squared error",
    "anomaly.auroc": "AUROC, normal against anomalous",
    "anomaly.average_precision": "average precision",
    "anomaly.sensitivity": "sensitivity: anomalous photos found",
    "anomaly.false_alarms": "false alarms among normal photos",
    "boxes.ap": "average precision (AP)",
    "boxes.macro_ap": "AP with the right class, mean of targets",
    "boxes.ap50": "AP at IoU 0.50",
    "boxes.ap75": "AP at IoU 0.75",
    "boxes.ap_small": "AP of small boxes",
    "boxes.ap_medium": "AP of medium boxes",
    "boxes.ap_large": "AP of large boxes",
    "boxes.precision": "precision",
    "boxes.recall": "recall",
    "boxes.f1": "F1",
    "boxes.count_bias": "count bias per photo",
    "boxes.count_mae": "count error (MAE) per photo",
    "boxes.count_exact": "photos with the exact count",
    "boxes.ece": "calibration error (ECE)",
}


@dataclass(frozen=True)
class Photo:
    """One photo of the page, as data URLs that are empty if it cannot be shown; `looked_at` has its occlusion map."""

    name: str
    picture: str
    looked_at: str
    lines: Sequence[tuple[str, str]]
    badge: str = ""


def pictures(validation: Validation[Outcomes]) -> dict[str, bytes]:
    """All charts as PNG, by file name."""
    files: dict[str, bytes] = {}
    for report in validation.result.reports:
        if isinstance(report, ClassReport):
            files[f"confusion_{report.target}.png"] = charts.confusion(report)
    for target in validation.photos.targets:
        files |= {f"{name}_{target.name}.png": drawn for name, drawn in _curves(validation, target).items()}
    if validation.result.robustness:
        files["robustness.png"] = charts.robustness(
            validation.result.robustness.score, validation.result.robustness.scores
        )
    return files


def _curves(validation: Validation[Outcomes], target: Target) -> dict[str, bytes]:
    outputs, labels = validation.outcomes.outputs[target.name], validation.outcomes.truth[target.name]
    if target.kind == "value":
        known = validation.outcomes.known(target)
        if not known.any():
            return {}
        return {"agreement": charts.agreement(target.name, target.unit, labels[known], outputs[known, 0])}
    confidence, right = calibration.confidences(target, outputs, labels)
    scores, good = calibration.judged(target, outputs, labels)
    contract, curve = validation.pipeline.bundle.contract, selective.risk_coverage(scores, good)
    applied = threshold_on(contract.thresholds.get(target.name), scores, good)
    marked = applied if applied and applied.score > confidence.min(initial=1.0) else None  # else it is off the picture
    after = calibration.reliability(confidence, right)
    return {
        "reliability": charts.reliability(target.name, (confidence, right), None, after, marked),
        "risk_coverage": charts.risk_coverage(target.name, curve, contract.target_risk or _RISK, applied),
    }


def threshold_on(score: float | None, scores: Any, right: Any) -> Threshold | None:
    """The model's own threshold on these photos. It was fixed before, so its bound needs no correction for a search."""
    if score is None:
        return None
    accepted = scores >= score
    count, errors = int(accepted.sum()), int((~right[accepted]).sum())
    return Threshold(
        score=score,
        coverage=count / max(1, len(scores)),
        risk=errors / max(1, count),
        bound=selective.risk_bound(errors, count),
        photos=len(scores),
        provisional=len(scores) < calibration.ENOUGH,
    )


def render(validation: Validation[Outcomes], drawn: Mapping[str, bytes], progress: Progress = silent) -> bytes:
    """The page as UTF-8 bytes, with charts as `pictures` gives them."""
    result = validation.result
    return fill(
        result,
        drawn,
        headline=headline(result, {name: value for name, value in result.scores.items() if "." not in name}),
        targets=[_target(validation, target) for target in validation.photos.targets],
        worst=_worst(validation, progress),
        furthest=[photo for target in validation.photos.targets for photo in _furthest(validation, target)],
        changed=changed(validation),
        next=_next(validation),
    )


def fill(result: ValidationResult, drawn: Mapping[str, bytes], **sections: Any) -> bytes:
    """The page of a result with its charts, by file name, and the sections that depend on the model's task."""
    text = documents.fill(
        "plantml.validate",
        "report.html",
        filters={"bar": _bar, "percent": percent, "number": _number, "interval": _interval},
        result=result,
        config=result.config,
        level=f"{LEVEL:.0%}".replace("%", " %"),
        charts={name: documents.data_url(data, "png") for name, data in drawn.items()},
        slices=result.slices[:_SLICES],
        words=_WORDS,
        **sections,
    )
    return text.encode()


def headline(result: ValidationResult, overall: Mapping[str, float]) -> dict[str, Any]:
    """The scores of the page's head, and those of targets as a table: one row per score, one column per target."""
    reports = result.reports
    names = list(dict.fromkeys(name for report in reports for name in report.scores))
    return {
        "overall": overall,
        "targets": [report.target for report in reports],
        "rows": [
            (
                _WORDS.get(name, name),
                [(f"{report.target}.{name}", report.scores.get(name)) for report in reports],
                higher_is_better(name),
            )
            for name in names
        ],
    }


def _target(validation: Validation[Outcomes], target: Target) -> dict[str, Any]:
    report = next((each for each in validation.result.reports if each.target == target.name), None)
    rows = []
    if report is not None and not isinstance(report, ValueReport):
        for name, row in report.per_class.items():
            scores = {score: value for score, value in row.items() if score != "support"}
            rows.append((name, [(f"{target.name}.{score}[{name}]", v) for score, v in scores.items()], row["support"]))
    head = [key for key in (next(iter(report.per_class.values())) if rows else {}) if key != "support"]  # type: ignore[union-attr]
    return {"name": target.name, "kind": target.kind, "unit": target.unit, "head": head, "rows": rows}


# --- photos -----------------------------------------------------------------------------------


def _worst(validation: Validation[Outcomes], progress: Progress) -> list[Photo]:
    """Wrong predictions, the highest score first, with their occlusion maps."""
    wrong: list[tuple[float, int, Target, int]] = []
    for target in validation.photos.targets:
        if target.kind == "value":
            continue
        known, right = validation.outcomes.known(target), validation.outcomes.right(target)
        for at in np.flatnonzero(known & ~right).tolist():
            scores = validation.outcomes.outputs[target.name][at]
            if target.kind == "multilabel":  # the label that is missed by most
                scores = np.abs(scores - validation.outcomes.truth[target.name][at])
            output = int(scores.argmax())
            wrong.append((float(scores[output]), at, target, output))
    worst: dict[int, tuple[Target, int]] = {}
    for _, at, target, output in sorted(wrong, key=lambda each: (-each[0], each[1])):
        if at not in worst and len(worst) < _WORST:
            worst[at] = (target, output)
    todo = [(at, target, output) for at, (target, output) in worst.items()]
    return draw_photos(functools.partial(_wrong_photo, validation), todo, validation.pipeline.threads, progress)


def draw_photos(draw: Callable[[Of], Photo], todo: Sequence[Of], threads: int, progress: Progress) -> list[Photo]:
    """Photos drawn by a function, in their order."""
    shown = []
    for photo in in_threads(draw, todo, threads):
        shown.append(photo)
        progress(len(shown), len(todo))
    return shown


def _furthest(validation: Validation[Outcomes], target: Target) -> list[Photo]:
    """Photos whose value is furthest from its label, the furthest first."""
    if target.kind != "value":
        return []
    truth, outputs = validation.outcomes.truth[target.name], validation.outcomes.outputs[target.name][:, 0]
    error = np.where(validation.outcomes.known(target), validation.outcomes.quality(target), 0.0)
    shown = []
    for at in np.argsort(-error, kind="stable")[:_FURTHEST].tolist():
        if error[at] > 0:
            text = f"label {truth[at]:.3g}, predicted {outputs[at]:.3g} {target.unit or ''}".rstrip()
            shown.append(_photo(validation, validation.readable[at], [(target.name, text)]))
    return shown


def _photo(validation: Validation[Outcomes], place: int, lines: Sequence[tuple[str, str]], badge: str = "") -> Photo:
    row = validation.photos.rows.row(place, named=True)
    picture = ""
    with contextlib.suppress(*photos.UNREADABLE):
        picture = documents.jpeg_url(
            imaging.thumbnail(photos.read(row["image_id"], row["url"], validation.photo_cache), _SIDE)
        )
    return Photo(row["name"], picture, "", lines, badge)


def _wrong_photo(validation: Validation[Outcomes], one: tuple[int, Target, int]) -> Photo:
    at, target, output = one
    row = validation.photos.rows.row(validation.readable[at], named=True)
    prediction = validation.predictions.items[validation.readable[at]]
    picture, looked_at = "", ""
    with contextlib.suppress(*photos.UNREADABLE):
        data = photos.read(row["image_id"], row["url"], validation.photo_cache)
        picture = documents.jpeg_url(imaging.thumbnail(data, _SIDE))
        pixels = imaging.decode(data, validation.pipeline.bundle.contract.input)
        columns = measured(validation.pipeline, validation.photos.rows[[validation.readable[at]]])
        fall = occlusion.occlusion(validation.pipeline.runtime, pixels, target.name, output, columns=columns)
        looked_at = documents.jpeg_url(occlusion.overlay(pixels, fall, _SIDE))
    return Photo(row["name"], picture, looked_at, _lines(validation, at, prediction), prediction.record.decision or "")


def _lines(validation: Validation[Outcomes], at: int, prediction: Prediction) -> list[tuple[str, str]]:
    """Label and prediction of the targets that are wrong; then the correct ones in short."""
    lines, fine = [], []
    for target in validation.photos.targets:
        true = validation.photos.rows[target.name][validation.readable[at]]
        if target.kind == "value" or true is None:
            continue
        predicted = predicted_labels(target, validation.outcomes)[at] or "none"
        if validation.outcomes.right(target)[at]:
            fine.append(f"{target.name} {predicted}")
        elif target.kind == "class":
            score = float(validation.outcomes.outputs[target.name][at].max())
            lines.append((target.name, f"label {true}, predicted {predicted} ({score:.2f})"))
        else:
            lines.append((target.name, f"labels {'|'.join(true) or 'none'}, predicted {predicted}"))
    if fine:
        lines.append(("correct", ", ".join(fine)))
    if prediction.record.unknown is not None:
        lines.append(("unknown", f"{prediction.record.unknown:.3f}"))
    return lines


def changed(validation: Validation[Outcomes]) -> list[Photo]:
    """Photos that two models predict differently, those that this one gets wrong first."""
    comparison = validation.result.comparison
    if comparison is None or validation.other is None:
        return []
    other = {target.name: target for target in validation.other.targets}
    changes = []
    for at, names in comparison.changed.items():
        place = validation.readable[at]
        lost, lines = 0, []
        for target in validation.photos.targets:
            if target.name in names:
                ours = _words(target, validation.predictions.items[place])
                theirs = _words(other[target.name], validation.other.predictions.items[place])
                true = validation.photos.rows[target.name][place]
                true = "|".join(true) if target.kind == "multilabel" and true is not None else true
                lost += (theirs == true) - (ours == true)
                lines.append((target.name, f"label {true or 'missing'}; this model: {ours}, other model: {theirs}"))
        changes.append((-lost, place, lines, "lost" if lost > 0 else "won" if lost < 0 else "changed"))
    changes.sort(key=lambda change: change[:2])
    return [_photo(validation, place, lines, badge) for _, place, lines, badge in changes[:_CHANGED]]


def _next(validation: Validation[Outcomes]) -> list[Photo]:
    """Judged photos that are worth a second look, as `validate --review` chooses them."""
    targets, items = validation.pipeline.bundle.contract.targets, validation.predictions.items
    shown = []
    for pick in review.choose(validation.photos.rows, items, targets, _NEXT):
        lines = [(target.name, _words(target, items[pick.row])) for target in targets]
        how = f"margin {pick.score:.3f}" if pick.why == "uncertain" else f"unknown {pick.score:.3f}"
        shown.append(_photo(validation, pick.row, [*lines, ("why", how)], pick.why))
    return shown


def _words(target: Target, prediction: Prediction) -> str:
    predicted = (prediction.record.targets or {}).get(target.name)
    if predicted is None:
        return "no prediction"
    if target.kind == "class":
        return str(predicted["label"])
    if target.kind == "value":
        return f"{predicted['value']:.3g} {predicted['unit']}"
    return "|".join(name for name, _ in predicted["labels"])


# --- words of the page ------------------------------------------------------------------------


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(interval: Interval | None) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}" if interval else ""


def _bar(interval: Interval | None, value: float | None) -> Mapping[str, str]:
    """Places, in percent, of an interval and its point on a scale from 0 to 1."""
    if value is None:
        return {}
    low, high = (interval.low, interval.high) if interval else (value, value)
    low, high, at = (min(1.0, max(0.0, number)) for number in (low, high, value))
    return {"left": f"{low:.1%}", "width": f"{max(0.004, high - low):.1%}", "at": f"{at:.1%}"}
