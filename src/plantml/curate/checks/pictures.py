"""Photo quality: blurry, dark, overexposed, almost empty or off-colour photos.

A measure is compared with fixed limits and with the dataset's median in robust deviations
(1.4826 times the median absolute deviation; Iglewicz and Hoaglin 1993, "How to detect and handle outliers").
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml.curate.context import Subject
from plantml.curate.findings import Finding
from plantml.data import duplicates

Floats = NDArray[np.float64]

_FAR = 4.0
"""Robust deviations from the median that count as unusual."""

_ENOUGH = 20
"""Photos needed to estimate what is usual."""


def check(subject: Subject) -> Iterator[Finding]:
    """Find photos of a quality that even a person could not judge."""
    rows = subject.pictures
    if rows.is_empty():
        return
    empty = duplicates.plain(rows).fill_null(value=False).to_numpy()
    for row, entropy, contrast in rows.filter(pl.Series(empty)).select("row", "entropy", "contrast").iter_rows():
        evidence = f"entropy {entropy:.1f} bits, contrast {contrast:.3f}"
        yield Finding("low-information", (row,), evidence, 1 - entropy / 8)
    rows = rows.filter(pl.Series(~empty))
    numbers = [int(row) for row in rows["row"]]
    for code, bad, reasons, score in (_blurry(rows), _dark(rows), _white(rows), _colour(rows)):
        for at in np.flatnonzero(bad):
            yield Finding(code, (numbers[at],), reasons[at], float(score[at]))


def deviations(values: Floats) -> Floats:
    """Deviation of each value from the median, in robust standard deviations; 0 if there are too few values."""
    if len(values) < _ENOUGH:
        return np.zeros_like(values)
    median = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - median))
    return (values - median) / max(float(spread), 1e-6)


Judged = tuple[str, NDArray[np.bool_], list[str], Floats]


def _column(rows: pl.DataFrame, name: str) -> Floats:
    return rows[name].to_numpy().astype(np.float64)


def _blurry(rows: pl.DataFrame) -> Judged:
    sharpness = _column(rows, "sharpness")
    # Smooth photos have few edges: relate sharpness to the contrast.
    edges = np.log(sharpness + 1) - 2 * np.log(_column(rows, "contrast") * 255 + 1)
    far = deviations(edges)
    usual = float(np.median(sharpness)) if len(sharpness) else 0.0
    bad = ((far < -_FAR) & (sharpness < 0.2 * usual)) | (sharpness < 3.0)
    evidence = [f"sharpness {value:.1f}; the median is {usual:.1f}" for value in sharpness]
    return "blurry", bad, evidence, _score(-far)


def _dark(rows: pl.DataFrame) -> Judged:
    brightness, share = _column(rows, "brightness"), _column(rows, "dark")
    far = deviations(brightness)
    bad = (brightness < 0.08) | ((far < -_FAR) & (brightness < 0.2)) | ((share > 0.85) & (brightness < 0.15))
    median = float(np.median(brightness)) if len(brightness) else 0.0
    evidence = [f"brightness {value:.2f} of 1; the median is {median:.2f}" for value in brightness]
    return "dark", bad, evidence, _score(-far)


def _white(rows: pl.DataFrame) -> Judged:
    share, contrast = _column(rows, "white"), _column(rows, "contrast")
    # On white paper most of a photo is white too, but the leaf has contrast; overexposure bleaches the leaf.
    bad = (share > 0.3) & (contrast < 0.1) | (share > 0.97)
    evidence = [f"{white:.0%} white, contrast {c:.2f}" for white, c in zip(share, contrast, strict=True)]
    return "overexposed", bad, evidence, share


def _colour(rows: pl.DataFrame) -> Judged:
    red, blue = _column(rows, "redness"), _column(rows, "blueness")
    far = np.hypot(deviations(red), deviations(blue))
    away = np.hypot(red - np.median(red), blue - np.median(blue)) if len(red) else red
    middle = (float(np.median(red)), float(np.median(blue))) if len(red) else (0.0, 0.0)
    # A photo that is greener than usual in both is one filled by a leaf.
    leaf = (red < middle[0]) & (blue < middle[1])
    bad = (far > 1.5 * _FAR) & (away > np.where(leaf, 0.4, 0.15))
    evidence = [
        f"red {r:+.2f} and blue {b:+.2f} relative to green; the medians are {middle[0]:+.2f} and {middle[1]:+.2f}"
        for r, b in zip(red, blue, strict=True)
    ]
    return "off-colour", bad, evidence, _score(far)


def _score(far: Floats) -> Floats:
    return np.clip(far / (far + _FAR + 1e-9), 0, 1) * (far > 0)
