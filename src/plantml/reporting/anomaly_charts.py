"""Charts of models that find anomalies, as PNG bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.metrics import ranking
from plantml.metrics.statistics import Floats
from plantml.reporting.charts import canvas, png, text

_NORMAL, _ANOMALOUS, _GREY = "#2e7d32", "#c62828", "#616161"
_BINS = 30

Truth = NDArray[np.integer[Any]]


def roc(scores: Floats, truth: Truth, auroc: float, threshold: float = 0.5) -> bytes:
    """The receiver operating characteristic of photos with both labels.

    Args:
        scores: [N].
        truth: 1 for anomalous, 0 for normal, -1 for unlabelled photos: [N].
        auroc: the area under it.
        threshold: marked.
    """
    known = truth >= 0
    ranked = ranking.ranked(scores[known], truth[known] == 1)
    photos, hits = (each[0] for each in ranked.counted(np.ones((1, int(known.sum())), np.int64)))
    normal, anomalous = scores[truth == 0], scores[truth == 1]
    figure = canvas(4.6, 4.4)
    axes = figure.subplots()
    axes.plot((photos - hits) / max(1, len(normal)), hits / max(1, len(anomalous)), color=_NORMAL, linewidth=1.6)
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    at = float((normal > threshold).mean()), float((anomalous > threshold).mean())
    axes.scatter(*at, color=_ANOMALOUS, zorder=3, label=f"threshold: {at[1]:.0%} found, {at[0]:.1%} false alarms")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("share of normal photos called anomalous")
    axes.set_ylabel("share of anomalous photos found")
    axes.set_title(f"AUROC {auroc:.3f}, {len(normal)} normal and {len(anomalous)} anomalous photos", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return png(figure)


def histogram(scores: Floats, truth: Truth, kinds: Sequence[str | None], threshold: float = 0.5) -> bytes:
    """Scores of normal photos above, of each kind of anomalous ones below; see `roc`."""
    names = np.array([kind or "" for kind in kinds], dtype=object)
    rows = [("normal", scores[truth == 0], _NORMAL)]
    rows += [(kind, scores[(truth == 1) & (names == kind)], _ANOMALOUS) for kind in sorted(set(names[truth == 1]))]
    low, high = min(float(scores.min(initial=1)), threshold), max(float(scores.max(initial=0)), threshold)
    edges = np.linspace(low - 0.01, high + 0.01, _BINS + 1)
    figure = canvas(6.4, 0.9 + 0.85 * len(rows))
    for axes, (name, values, colour) in zip(
        figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0], rows, strict=True
    ):
        axes.hist(values, edges, color=colour, alpha=0.75)
        axes.axvline(threshold, color=_GREY, linestyle=":", linewidth=1.4)
        axes.set_ylabel(text(name or "anomalous"), rotation=0, ha="right", va="center", fontsize=8)
        axes.set_yticks([])
    axes.set_xlabel(f"score; above the line, {threshold:g}, a photo is called anomalous")
    return png(figure)
