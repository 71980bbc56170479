"""The drift report: a PNG picture and an HTML page."""

from typing import TYPE_CHECKING

import numpy as np

from plantml.drift import measures
from plantml.drift.drift import Column, Drift
from plantml.drift.measures import TwoSample
from plantml.reporting import charts, documents

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BEFORE, _AFTER = "#a5d6a7", "#1b5e20"
_COLOURS = {"none": "#a5d6a7", "by chance?": "#bdbdbd", "moderate": "#f9a825", "large": "#c62828"}
_ROWS, _DETAILS, _BARS = 20, 4, 12
_NAME = 22


def picture(result: Drift) -> bytes:
    """Draw all indices, the test of the embeddings, and the columns with the largest change, as PNG."""
    columns = list(result.columns[:_ROWS])
    details = columns[:_DETAILS]
    height = max(3.2, 0.28 * len(columns) + 1.4) + (3.0 if details else 0)
    figure = charts.canvas(11, height)
    grid = figure.add_gridspec(
        2 if details else 1, max(2, len(details)), height_ratios=[height - 3.0, 3.0][: 2 if details else 1]
    )
    half = max(2, len(details)) // 2 + max(2, len(details)) % 2
    _indices(figure.add_subplot(grid[0, :half]), columns)
    _test(figure.add_subplot(grid[0, half:]), result.embeddings, result.not_compared.get("embeddings", ""))
    for number, column in enumerate(details):
        _detail(figure.add_subplot(grid[1, number]), column, legend=number == 0)
    sides = [
        f"{_short(ref)} ({photos} photos)"
        for ref, photos in zip((result.after, result.before), result.photos[::-1], strict=True)
    ]
    figure.suptitle(charts.text(" compared with ".join(sides)), fontsize=11)
    return charts.png(figure)


def _indices(axes: "Axes", columns: list[Column]) -> None:
    at = np.arange(len(columns))[::-1]
    axes.barh(at, [column.index.psi for column in columns], color=[_COLOURS[column.verdict] for column in columns])
    axes.set_yticks(at, [charts.text(column.name) for column in columns], fontsize=8)
    for bound, style in ((measures.MODERATE, ":"), (measures.LARGE, "--")):
        axes.axvline(bound, color="#616161", linestyle=style, linewidth=1)
    for verdict, colour in _COLOURS.items():
        if any(column.verdict == verdict for column in columns):
            axes.barh([0], [0], color=colour, label=verdict)
    if columns:
        axes.legend(title="change", fontsize=8, title_fontsize=8, loc="lower right")
    axes.set_xlabel(f"population stability index (dotted {measures.MODERATE}, dashed {measures.LARGE})", fontsize=9)


def _test(axes: "Axes", test: TwoSample | None, why: str) -> None:
    if test is None:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, charts.text(f"Embeddings not compared:\n{_wrapped(why)}"), ha="center", va="center", fontsize=9
        )
        return
    axes.hist(test.null, bins=40, color=_BEFORE, label=f"without drift: {len(test.null)} group permutations")
    axes.axvline(test.mmd2, color=_COLOURS["large"] if test.p < 0.01 else _AFTER, linewidth=2, label="observed")
    axes.set_xlabel("MMD², embeddings", fontsize=9)
    axes.set_ylabel("permutations", fontsize=9)
    axes.set_title(f"p = {test.p:.3g}; {sum(test.groups)} groups of {sum(test.photos)} photos", fontsize=9)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # leave room for the legend
    axes.legend(fontsize=8, loc="upper right")


def _detail(axes: "Axes", column: Column, *, legend: bool) -> None:
    index = column.index
    order = np.arange(len(index.bins))
    if len(order) > _BARS:  # the bins with the largest change
        moved = np.abs(
            np.array(index.after) / max(1, sum(index.after)) - np.array(index.before) / max(1, sum(index.before))
        )
        order = np.sort(np.argsort(-moved, kind="stable")[:_BARS])
    for counts, shift, colour, name in ((index.before, -0.2, _BEFORE, "before"), (index.after, 0.2, _AFTER, "after")):
        shares = np.array(counts)[order] / max(1, sum(counts))
        axes.bar(np.arange(len(order)) + shift, shares, 0.4, color=colour, label=name)
    names = [charts.text(_cut(index.bins[at])) for at in order]
    axes.set_xticks(range(len(order)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title(charts.text(f"{_cut(column.name)}: {index.psi:.2f}, {column.verdict}"), fontsize=9)
    if legend:
        axes.legend(fontsize=7)
        axes.set_ylabel("share of photos", fontsize=8)


def page(result: Drift) -> bytes:
    """Render the picture and all numbers as one HTML page, UTF-8."""
    drawn = documents.data_url(picture(result), "png")
    return documents.fill("plantml.drift", "report.html", drift=result, picture=drawn).encode()


def _short(ref: str) -> str:
    return ref if len(ref) <= 50 else f"…{ref[-49:]}"


def _cut(text: str) -> str:
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}…"


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 48)
