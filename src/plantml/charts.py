"""Pictures of numbers: confusion matrices and curves, as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plantml.metrics import ClassReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#1b5e20"


def confusion(found: ClassReport) -> bytes:
    """The confusion matrix of a class target: shares of each true class as colour, photos as numbers."""
    size = len(found.classes)
    figure = _figure(max(4.0, 0.55 * size + 2.4), max(3.4, 0.5 * size + 2.0))
    axes = figure.subplots()
    support = found.confusion.sum(axis=1, keepdims=True)
    share = found.confusion / np.maximum(support, 1)
    axes.imshow(share, cmap="Greens", vmin=0, vmax=1)
    names = [name.replace("$", r"\$") for name in found.classes]  # text, not formulas
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{found.target}: macro-F1 {found.scores['macro_f1']:.3f}, {found.photos} photos")
    if size <= 30:
        for (row, column), number in np.ndenumerate(found.confusion):
            if number:
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(number), ha="center", va="center", color=colour, fontsize=8)
    return _png(figure)


def learning_curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> bytes:
    """Loss and validation scores by epoch, the chosen one (counted from 0) marked."""
    figure = _figure(9.0, 3.6)
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
    return _png(figure)


def _score_names(history: Sequence[Mapping[str, float]]) -> list[str]:
    names = [name for name in (history[0] if history else {}) if name.endswith(("macro_f1", "r2"))]
    return names if len(names) > 2 else [name for name in names if "." in name] or names


def _figure(width: float, height: float) -> "Figure":
    # Figure without pyplot: no display, no global state, safe in any thread.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
