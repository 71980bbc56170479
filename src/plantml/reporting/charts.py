"""Charts as PNG bytes: confusion matrices and curves."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import ClassReport
from plantml.metrics.calibration import Reliability
from plantml.metrics.detection import DetectionReport, Detections, true_positives
from plantml.metrics.selective import Curve, Floats
from plantml.metrics.statistics import BINS, calibration_bins
from plantml.targets import Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#1b5e20"
_PALE, _WARN, _GREY = "#a5d6a7", "#c62828", "#616161"

_FEW = 5
"""A bin with fewer predictions is drawn pale."""


def confusion(report: ClassReport) -> bytes:
    """The confusion matrix of a class target: shares of each true class as colour, photos as numbers."""
    title = f"{report.target}: macro-F1 {report.scores['macro_f1']:.3f}, {report.photos} photos"
    return _matrix(report.confusion, report.classes, title)


def box_confusion(name: str, report: DetectionReport) -> bytes:
    """The confusion matrix of boxes: false ones are background in truth, missed ones are predicted as background."""
    title = f"{name}: {report.confusion[:-1].sum()} boxes in {report.photos} photos"
    return _matrix(report.confusion, (*report.classes, "background"), title)


def _matrix(counts: NDArray[np.integer], classes: Sequence[str], title: str) -> bytes:
    size = len(classes)
    figure = canvas(max(4.0, 0.55 * size + 2.4), max(3.4, 0.5 * size + 2.0))
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Greens", vmin=0, vmax=1)
    names = [text(name) for name in classes]
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(text(title))
    if size <= 30:
        for (row, column), number in np.ndenumerate(counts):
            if number:
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(number), ha="center", va="center", color=colour, fontsize=8)
    return png(figure)


def learning_curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> bytes:
    """Loss and validation scores by epoch, the chosen one (counted from 0) marked."""
    figure = canvas(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    for axes, names in ((left, ("train_loss", "val_loss")), (right, _score_names(history))):
        for name in names:
            axes.plot(epochs, [row.get(name, np.nan) for row in history], marker="o", markersize=3, label=name)
        axes.axvline(best_epoch + 1, color=_INK, linestyle=":", label="chosen")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    left.set_title("loss")
    right.set_title("validation")
    right.set_ylim(top=1.02)
    return png(figure)


def reliability(
    target: str,
    predictions: tuple[Floats, NDArray[np.bool_]],
    before: Reliability | None,
    after: Reliability,
    accepted_from: Threshold | None = None,
) -> bytes:
    """A reliability diagram: the share of correct predictions by score, and their number.

    `predictions` are calibrated scores [N] and whether they were correct [N]. The calibration error before is named
    where it is known; the score `accepted_from` is marked.
    """
    confidence, right = predictions
    edges = np.linspace(0, 1, BINS + 1)
    bin_ = calibration_bins(confidence)
    counts = np.bincount(bin_, minlength=BINS)
    there = counts > 0
    share = np.bincount(bin_, weights=right, minlength=BINS)[there] / counts[there]
    named = np.bincount(bin_, weights=confidence, minlength=BINS)[there] / counts[there]
    middle, width = (edges[:-1] + edges[1:])[there] / 2, 0.92 / BINS
    first = int(np.flatnonzero(there)[0]) if there.any() else 0

    figure = canvas(5.4, 6.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bars = upper.bar(middle, share, width, color=_PALE, edgecolor=_INK, linewidth=0.8, label="correct")
    gaps = upper.bar(
        middle,
        np.abs(named - share),
        width,
        bottom=np.minimum(named, share),
        color="none",
        edgecolor=_WARN,
        hatch="////",
        linewidth=0.0,
        label="gap to the score",
    )
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfect")
    upper.set_ylim(0, 1.02)
    upper.set_ylabel("share of correct predictions")
    upper.set_title(_reliability_title(target, before, after), fontsize=9)
    lower.bar(middle, counts[there], width, color=_PALE, edgecolor=_INK, linewidth=0.8)
    for x, number in zip(middle, counts[there], strict=True):
        lower.text(x, number, str(number), ha="center", va="bottom", fontsize=7)
    lower.set_ylim(0, max(1, counts.max()) * 1.25)
    lower.set_ylabel("predictions")
    lower.set_xlabel("calibrated score")
    left = max(0.0, edges[first] - 0.02) if first else 0.0
    if accepted_from is not None and accepted_from.score <= 1:
        inwards = accepted_from.score > (1 + left) / 2
        for axes in (upper, lower):
            axes.axvline(accepted_from.score, color=_INK, linestyle=":", linewidth=1.4)
        lower.text(
            accepted_from.score,
            lower.get_ylim()[1] * 0.93,
            f" threshold {accepted_from.score:.2f} ",
            ha="right" if inwards else "left",
            va="top",
            fontsize=8,
            color=_INK,
        )
    lower.set_xlim(left, 1.005)
    upper.legend(loc="upper left", fontsize=8)
    for bar, gap, number in zip(bars, gaps, counts[there], strict=True):
        if number < _FEW:
            bar.set_alpha(0.3)
            gap.set_alpha(0.3)
    return png(figure)


def _reliability_title(target: str, before: Reliability | None, after: Reliability) -> str:
    was = f", before calibration {before.ece:.3f}" if before else ""
    return (
        f"{text(target)}: calibration error {after.ece:.3f}{was}\n"
        f"{'within' if after.explained_by_chance else 'ABOVE'} the range of a perfectly calibrated model\n"
        f"({after.low:.3f} to {after.high:.3f}, {after.photos} predictions)"
    )


def risk_coverage(target: str, curve: Curve, risk: float, threshold: Threshold | None = None) -> bytes:
    """The risk-coverage curve, with the target risk and the threshold chosen for it."""
    figure = canvas(5.8, 4.2)
    axes = figure.subplots()
    axes.step(curve.coverage, curve.risk, where="post", color=_INK, linewidth=1.6, label="wrong among accepted photos")
    axes.axhline(risk, color=_WARN, linestyle="--", linewidth=1, label=f"target risk {risk:g}")
    top = max(1.6 * risk, float(curve.risk.max(initial=0.0)) * 1.15)
    if threshold is not None and threshold.coverage:
        top = max(top, min(1.0, threshold.bound) * 1.12)
        axes.axvspan(0, threshold.coverage, color=_PALE, alpha=0.25, linewidth=0)
        axes.errorbar(
            [threshold.coverage],
            [threshold.risk],
            yerr=[[0.0], [threshold.bound - threshold.risk]],
            color=_INK,
            marker="o",
            markersize=6,
            capsize=4,
            linewidth=1.2,
            clip_on=False,
            zorder=3,
            label=f"true risk below {threshold.bound:.3f} with 95 % confidence",
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.3 * min(1.0, top))  # room for the legend
    axes.set_xlabel("coverage: share of photos accepted")
    axes.set_ylabel("risk: share of wrong predictions")
    axes.set_title(_selective_title(target, threshold), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    return png(figure)


def _selective_title(target: str, threshold: Threshold | None) -> str:
    if threshold is None or not threshold.coverage:
        return f"{text(target)}: no threshold meets the target risk; nothing is accepted"
    note = f"{threshold.photos} photos" + (", provisional" if threshold.provisional else "")
    return (
        f"{text(target)}: threshold {threshold.score:.3f} accepts {threshold.coverage:.0%},\n"
        f"{threshold.risk:.1%} of them wrong ({note})"
    )


def precision_recall(detections: Detections, threshold: float) -> bytes:
    """Precision over recall of predicted boxes, with the score from which they count marked."""
    figure = canvas(5.4, 4.2)
    axes = figure.subplots()
    order, counted = np.argsort(-detections.scores, kind="stable"), int((detections.scores >= threshold).sum())
    for overlap, colour in ((0.5, _INK), (0.75, "#66bb6a"), (0.9, _GREY)):
        hits = np.cumsum(true_positives(detections, overlap)[order])
        recall, precision = hits / max(1, len(detections.true_boxes)), hits / np.arange(1, len(order) + 1)
        axes.plot(recall, precision, color=colour, label=f"IoU {overlap:.2f}")
        if counted:
            axes.plot(recall[counted - 1], precision[counted - 1], "o", color=colour)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(f"boxes count from a score of {threshold:.3f} (dots)", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return png(figure)


def box_sizes(sides: NDArray[np.float32]) -> bytes:
    """A histogram of the sizes of boxes: the square root of their area in pixels of the input. `sides`: [M, 2]."""
    figure = canvas(5.4, 3.2)
    axes = figure.subplots()
    axes.hist(np.sqrt(sides.prod(axis=1)), bins=30, color=_PALE, edgecolor=_INK, linewidth=0.8)
    axes.set_xlabel("size of the box in the input, pixels")
    axes.set_ylabel("boxes")
    return png(figure)


def text(words: str) -> str:
    """Words that matplotlib draws as they are, and reads no formula in."""
    return words.replace("$", r"\$")


def _score_names(history: Sequence[Mapping[str, float]]) -> list[str]:
    shown = ("macro_f1", "r2", "boxes.ap", "boxes.ap50", "boxes.f1")
    names = [name for name in (history[0] if history else {}) if name.endswith(shown)]
    return names if len(names) > 2 else [name for name in names if "." in name] or names


def canvas(width: float, height: float) -> "Figure":
    """An empty picture of so many inches, 110 dots each."""
    # Figure without pyplot: no display, no global state, safe in any thread.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def png(figure: "Figure") -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def agreement(target: str, unit: str | None, truth: Floats, predicted: Floats, *, of: str = "photos") -> bytes:
    """Predicted values [N] against labels [N], in its unit; on the diagonal both are the same. `of`: what has them."""
    figure = canvas(4.6, 4.2)
    axes = figure.subplots()
    both = np.concatenate([truth, predicted])
    ends = (float(both.min()), float(both.max()))
    axes.plot(ends, ends, color=_GREY, linestyle=":", linewidth=1)
    axes.scatter(truth, predicted, s=14, color=_INK, alpha=max(0.15, min(0.8, 60 / len(truth))), linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")
    in_unit = f" ({text(unit)})" if unit else ""
    axes.set_xlabel(f"label{in_unit}")
    axes.set_ylabel(f"prediction{in_unit}")
    axes.set_title(f"{text(target)}: {len(truth)} {of}", fontsize=10)
    axes.grid(alpha=0.3)
    return png(figure)


def counting(true: NDArray[np.integer], predicted: NDArray[np.integer]) -> bytes:
    """Predicted against annotated number of boxes by photo, int [N]; larger dots are more photos."""
    from matplotlib.ticker import MaxNLocator

    figure = canvas(4.6, 4.2)
    axes = figure.subplots()
    pairs, photos = np.unique(np.stack([true, predicted], axis=1), axis=0, return_counts=True)
    top = int(pairs.max(initial=1)) * 1.05 + 0.5
    axes.plot((0, top), (0, top), color=_GREY, linestyle=":", linewidth=1)
    axes.scatter(pairs[:, 0], pairs[:, 1], s=16 * np.sqrt(photos), color=_INK, alpha=0.6, linewidths=0)
    axes.set_xlim(-0.5, top)
    axes.set_ylim(-0.5, top)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_xlabel("annotated boxes")
    axes.set_ylabel("predicted boxes")
    errors = predicted - true
    axes.set_title(
        f"boxes per photo, {len(true)} photos: bias {errors.mean():+.2f}, MAE {np.abs(errors).mean():.2f}", fontsize=10
    )
    axes.grid(alpha=0.3)
    return png(figure)


def robustness(score: str, scores: Mapping[str, Sequence[float]]) -> bytes:
    """A score under changes of the photos: by change, one number for none, mild and strong."""
    figure = canvas(6.4, 4.2)
    axes = figure.subplots()
    markers = "osD^v<>pX*"
    for number, (name, values) in enumerate(scores.items()):
        axes.plot(
            range(len(values)), values, marker=markers[number % len(markers)], markersize=5, linewidth=1.4, label=name
        )
    axes.set_xticks(range(3), ["unchanged", "mild", "strong"])
    axes.set_xlim(-0.1, 2.1)
    axes.set_ylim(min(0.0, *(min(values) for values in scores.values())), 1.02)
    axes.set_ylabel(score.replace("_", " "))
    axes.set_title("score under perturbations", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=8, ncols=2)
    return png(figure)
