"""A comparison as a picture, and as a page."""

import base64
import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from plantml.drift import measures
from plantml.drift.measures import TwoSample
from plantml.drift.run import Column, Drift

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BEFORE, _AFTER = "#a5d6a7", "#1b5e20"
_COLOURS = {"none": "#a5d6a7", "by chance?": "#bdbdbd", "moderate": "#f9a825", "large": "#c62828"}
_ROWS, _DETAILS, _BARS = 20, 4, 12
_NAME = 22


def picture(found: Drift) -> bytes:
    """Every index, the test of the embeddings, and the columns that moved most, as PNG."""
    from matplotlib.figure import Figure

    shown = list(found.columns[:_ROWS])
    details = shown[:_DETAILS]
    height = max(3.2, 0.28 * len(shown) + 1.4) + (3.0 if details else 0)
    figure = Figure(figsize=(11, height), dpi=110, layout="constrained")
    grid = figure.add_gridspec(
        2 if details else 1, max(2, len(details)), height_ratios=[height - 3.0, 3.0][: 2 if details else 1]
    )
    half = max(2, len(details)) // 2 + max(2, len(details)) % 2
    _indices(figure.add_subplot(grid[0, :half]), shown)
    _test(figure.add_subplot(grid[0, half:]), found.embeddings, found.not_compared.get("embeddings", ""))
    for number, column in enumerate(details):
        _detail(figure.add_subplot(grid[1, number]), column, legend=number == 0)
    figure.suptitle(
        _text(f"{_short(found.after)} ({found.photos[1]} photos) against {_short(found.before)} ({found.photos[0]})"),
        fontsize=11,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _indices(axes: "Axes", shown: list[Column]) -> None:
    at = np.arange(len(shown))[::-1]
    axes.barh(at, [column.index.psi for column in shown], color=[_COLOURS[column.verdict] for column in shown])
    axes.set_yticks(at, [_text(column.name) for column in shown], fontsize=8)
    for bound, style in ((measures.MODERATE, ":"), (measures.LARGE, "--")):
        axes.axvline(bound, color="#616161", linestyle=style, linewidth=1)
    for verdict, colour in _COLOURS.items():
        if any(column.verdict == verdict for column in shown):
            axes.barh([0], [0], color=colour, label=verdict)
    if shown:
        axes.legend(title="change", fontsize=8, title_fontsize=8, loc="lower right")
    axes.set_xlabel(f"population stability index (dotted {measures.MODERATE}, dashed {measures.LARGE})", fontsize=9)


def _test(axes: "Axes", test: TwoSample | None, why: str) -> None:
    if test is None:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, _text(f"Embeddings were not compared:\n{_wrapped(why)}"), ha="center", va="center", fontsize=9
        )
        return
    axes.hist(test.null, bins=40, color=_BEFORE, label=f"by chance: {len(test.null)} permutations of groups")
    axes.axvline(test.mmd2, color=_COLOURS["large"] if test.p < 0.01 else _AFTER, linewidth=2, label="as it is")
    axes.set_xlabel("MMD², embeddings", fontsize=9)
    axes.set_ylabel("permutations", fontsize=9)
    axes.set_title(f"p = {test.p:.3g}; {sum(test.groups)} groups of {sum(test.photos)} photos", fontsize=9)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
    axes.legend(fontsize=8, loc="upper right")


def _detail(axes: "Axes", column: Column, *, legend: bool) -> None:
    index = column.index
    order = np.arange(len(index.bins))
    if len(order) > _BARS:  # the bins that moved most
        moved = np.abs(
            np.array(index.after) / max(1, sum(index.after)) - np.array(index.before) / max(1, sum(index.before))
        )
        order = np.sort(np.argsort(-moved, kind="stable")[:_BARS])
    for counts, shift, colour, name in ((index.before, -0.2, _BEFORE, "before"), (index.after, 0.2, _AFTER, "after")):
        shares = np.array(counts)[order] / max(1, sum(counts))
        axes.bar(np.arange(len(order)) + shift, shares, 0.4, color=colour, label=name)
    names = [_text(_cut(index.bins[at])) for at in order]
    axes.set_xticks(range(len(order)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title(_text(f"{_cut(column.name)}: {index.psi:.2f}, {column.verdict}"), fontsize=9)
    if legend:
        axes.legend(fontsize=7)
        axes.set_ylabel("share of photos", fontsize=8)


def page(found: Drift) -> bytes:
    """The picture and all numbers as one HTML page, UTF-8."""
    drawn = base64.b64encode(picture(found)).decode()
    rows = "".join(_row(column.name, column.index.psi, column.index.p, column.verdict) for column in found.columns)
    test = found.embeddings
    said = "not compared" if test is None else f"MMD² {test.mmd2:.5f}, p {test.p:.4f} ({len(test.null)} permutations)"
    missing = "".join(f"<li>{_safe(name)}: {_safe(why)}</li>" for name, why in found.not_compared.items())
    gates = "".join(
        f"<li>{'passed' if gate.passed else '<b>FAILED</b>'}: {_safe(gate.said)}</li>" for gate in found.gates
    )
    body = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Drift of {_safe(found.after)}</title>
<style>
body {{ font:15px/1.45 system-ui,sans-serif; max-width:1100px; margin:24px auto; padding:0 16px; color:#1c2a1e }}
img {{ max-width:100% }} table {{ border-collapse:collapse }} td,th {{ padding:3px 14px 3px 0; text-align:left }}
td:nth-child(2),td:nth-child(3) {{ text-align:right; font-variant-numeric:tabular-nums }}
.large {{ color:#c62828 }} .moderate {{ color:#b26a00 }}
</style></head><body>
<h1>Drift</h1>
<p>{_safe(found.after)} ({found.photos[1]} photos) against {_safe(found.before)} ({found.photos[0]}).
Embeddings: {_safe(said)}.</p>
{f"<ul>{gates}</ul>" if gates else ""}
<p><img alt="every index, and the columns that moved most" src="data:image/png;base64,{drawn}"></p>
<table><tr><th>column</th><th>index (PSI)</th><th>p</th><th>change</th></tr>{rows}</table>
{f"<h2>Not compared</h2><ul>{missing}</ul>" if missing else ""}
</body></html>
"""
    return body.encode()


def _row(name: str, psi: float, p: float | None, verdict: str) -> str:
    chance = "" if p is None else f"{p:.2g}"
    kind = verdict if verdict in {"large", "moderate"} else ""
    return f'<tr class="{kind}"><td>{_safe(name)}</td><td>{psi:.4f}</td><td>{chance}</td><td>{_safe(verdict)}</td></tr>'


def _safe(text: Any) -> str:
    return html.escape(str(text))


def _short(ref: str) -> str:
    return ref if len(ref) <= 50 else f"…{ref[-49:]}"


def _cut(text: str) -> str:
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}…"


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 48)


def _text(text: str) -> str:
    return text.replace("$", r"\$")  # text, not formulas
