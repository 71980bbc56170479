"""Findings, the table of their codes with severity, meaning and remedy, and findings for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import polars as pl

from plantml.data import tables
from plantml.data.manifest import Version

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Code:
    """One kind of finding, which `clean --apply CODE` can fix if it `cleans`.

    An `error` corrupts metrics or breaks training, a `warning` costs accuracy, an `info` is worth knowing.
    """

    check: str
    severity: Severity
    title: str
    remedy: str
    cleans: bool = False


_EXCLUDE = "`clean` excludes the photo."
_BEST = "`clean` keeps the best copy and excludes the others."
_LOOK = "Review the photos; `clean` excludes them."

CODES: Mapping[str, Code] = {
    "missing": Code("files", "error", "missing file",
        "Restore the file and import it again, or exclude it with `clean`.", cleans=True),
    "empty-file": Code("files", "error", "empty file", _EXCLUDE, cleans=True),
    "truncated": Code("files", "error", "truncated file", "Copy it from the camera again; " + _EXCLUDE, cleans=True),
    "not-an-image": Code("files", "error", "not an image file", _EXCLUDE, cleans=True),
    "unsupported": Code("files", "error", "unsupported format", "Convert it to JPEG or PNG; " + _EXCLUDE, cleans=True),
    "unreadable": Code("files", "error", "damaged file", _EXCLUDE, cleans=True),
    "wrong-extension": Code("files", "warning", "wrong file extension", "`clean` corrects the extension.", cleans=True),
    "extreme-size": Code("files", "warning", "very small or very large photo", _LOOK, cleans=True),
    "extreme-aspect": Code("files", "warning", "very long and narrow photo", _LOOK, cleans=True),
    "exif-rotated": Code("files", "info", "photo stored rotated",
        "No action needed: plantml rotates it. Check boxes that other tools have drawn."),
    "unusual-mode": Code("files", "info", "unusual colour mode", "No action needed: plantml converts it to 8-bit RGB."),
    "multi-picture": Code("files", "info", "file with several images",
        "No action needed: plantml uses the first image."),
    "blurry": Code("pictures", "warning", "blurry photo", _LOOK, cleans=True),
    "dark": Code("pictures", "warning", "dark photo", _LOOK, cleans=True),
    "overexposed": Code("pictures", "warning", "overexposed photo", _LOOK, cleans=True),
    "low-information": Code("pictures", "warning", "almost empty photo", _LOOK, cleans=True),
    "off-colour": Code("pictures", "warning", "unusual colours", _LOOK, cleans=True),
    "exact-duplicates": Code("duplicates", "warning", "identical files", _BEST, cleans=True),
    "same-pixels": Code("duplicates", "warning", "identical pixels in different files", _BEST, cleans=True),
    "near-duplicates": Code("duplicates", "warning", "near-duplicates: resized, recompressed or brightened",
        _BEST, cleans=True),
    "turned-duplicates": Code("duplicates", "warning", "near-duplicates: flipped or rotated", _BEST, cleans=True),
    "cropped-duplicates": Code("crops", "warning", "crop of another photo", _BEST, cleans=True),
    "overlapping": Code("crops", "warning", "overlapping photos",
        "Keep them in one split: run `split --deep`, or assign a group."),
    "overlap-leak": Code("crops", "error", "overlapping photos in different splits",
        "Run `split --resplit --deep`, or group the tiles of a photo: `split --resplit --group-by REGEX`."),
    "large-group": Code("duplicates", "warning", "implausibly large group of similar photos",
        "Check the dataset: these are too many to be copies."),
    "conflicting-labels": Code("duplicates", "error", "copies with different labels",
        "Correct the wrong label with `relabel`; `clean` excludes the whole group for review.", cleans=True),
    "split-leak": Code("duplicates", "error", "copies in different splits",
        "Run `split --resplit`; `clean` excludes the copies outside the test set.", cleans=True),
    "torn-group": Code("groups", "error", "group in different splits", "Run `split --resplit`."),
    "similar-classes": Code("labels", "warning", "classes with almost the same name",
        "Join them with `rename-class`; `clean` joins names that differ only in case, separators or a count.",
        cleans=True),
    "no-photos": Code("labels", "error", "no usable photos",
        "Import photos, or go back to an older version with `restore`."),
    "single-class": Code("labels", "warning", "target with a single class",
        "Add photos of other classes: there is nothing to distinguish."),
    "tiny-class": Code("labels", "warning", "class with very few photos",
        "Collect more photos, or merge the class into another with `rename-class`."),
    "imbalance": Code("labels", "info", "very unequal classes",
        "Training weights them; check the metrics of the small classes."),
    "impossible-labels": Code("labels", "error", "contradictory labels",
        "Correct them with `relabel`; `clean` excludes the photos for review.", cleans=True),
    "missing-labels": Code("labels", "info", "photos without a label",
        "Label them with `relabel`; training ignores them for this target."),
    "same-name": Code("labels", "warning", "file name in several classes",
        "Check whether one of the files is in the wrong folder."),
    "suspicious-label": Code("suspicious", "warning", "label that contradicts the photo",
        "Review and `relabel`; `clean` excludes the photos for review.", cleans=True),
    "annotated-size": Code("boxes", "warning", "annotation for another photo size",
        "Check the boxes on the photo: they may be scaled."),
    "boxes-centre-as-corner": Code("boxes", "error", "box centres stored as corners",
        "`clean` moves the boxes by half their size.", cleans=True),
    "boxes-normalised": Code("boxes", "error", "normalised box coordinates stored as pixels",
        "`clean` multiplies them by the photo size.", cleans=True),
    "boxes-unrotated": Code("boxes", "error", "boxes of the photo before rotation",
        "`clean` rotates the boxes with the photo.", cleans=True),
    "box-outside": Code("boxes", "warning", "box outside the photo",
        "`clean` clips the box to the photo.", cleans=True),
    "box-degenerate": Code("boxes", "warning", "box without area", "`clean` removes the box.", cleans=True),
    "box-duplicate": Code("boxes", "warning", "box drawn twice", "`clean` removes the duplicate.", cleans=True),
    "box-missing": Code("box-labels", "warning", "object without a box", "Draw the box."),
    "box-extra": Code("box-labels", "warning", "box where nothing is", "Delete the box."),
    "box-displaced": Code("box-labels", "warning", "box beside its object", "Draw the box anew."),
    "box-mislabelled": Code("box-labels", "warning", "box whose label contradicts the photo", "Correct its label."),
    "shortcut-border": Code("shortcuts", "warning", "label predictable from the border",
        "Photograph every class in every place; test on photos from elsewhere."),
    "shortcut-file": Code("shortcuts", "warning", "label predictable from file properties",
        "Mix cameras, sizes and sources in every class; test on photos from elsewhere."),
    "outlier": Code("outliers", "warning", "unlike all other photos", _LOOK, cleans=True),
    "unlike-class": Code("outliers", "info", "unlike the other photos of its class", "Check the label."),
}  # fmt: skip
"""All codes of findings, in the order of reports. Codes are stable."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, or something worth knowing.

    Attributes:
        code: one of `CODES`.
        rows: numbers of the affected rows of the version; of copies, the first is the one to keep.
        evidence: a phrase with the numbers behind it.
        score: 0 to 1, certainty or seriousness, for sorting; `None` if there is none.
        facts: the evidence for programs.
    """

    code: str
    rows: tuple[int, ...]
    evidence: str
    score: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> Severity:
        """The severity of the code."""
        return CODES[self.code].severity


@dataclass(frozen=True)
class Report:
    """The result of checking a version. Notes are results that are not findings, such as the accuracy of a probe."""

    version: Version
    findings: Sequence[Finding]
    checked: Sequence[str]
    not_checked: Mapping[str, str]
    notes: Sequence[str]

    def name(self, row: int) -> str:
        """Return the name of a row's photo."""
        return str(self.version.rows["name"][row])

    def counts(self) -> dict[str, int]:
        """Count findings by code, errors first, then in the order of `CODES`."""
        counts = dict.fromkeys(sorted(CODES, key=lambda code: SEVERITIES.index(CODES[code].severity)), 0)
        for finding in self.findings:
            counts[finding.code] += 1
        return {code: number for code, number in counts.items() if number}

    def failing(self, levels: Sequence[str]) -> list[Finding]:
        """Return findings with one of the given codes, or at least as severe as one of the given severities."""
        named = set(levels)
        for place, severity in enumerate(SEVERITIES):
            if severity in levels:
                named.update(SEVERITIES[:place])
        return [finding for finding in self.findings if finding.code in named or finding.severity in named]


def count(number: int, one: str) -> str:
    """Return `1 photo` or `3 photos`."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Sort by code as in `CODES`, most certain first, then by row."""
    place = {code: number for number, code in enumerate(CODES)}
    return sorted(findings, key=lambda finding: (place[finding.code], -(finding.score or 0.0), finding.rows))


_SCHEMA = {
    "finding": pl.Int64,
    "code": pl.String,
    "severity": pl.String,
    "source": pl.String,
    "name": pl.String,
    "image_id": pl.String,
    "evidence": pl.String,
    "remedy": pl.String,
    "score": pl.Float64,
}


def as_json(report: Report, finding: Finding) -> dict[str, Any]:
    """Return a finding as an object of the check's JSON document."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "images": [report.name(row) for row in finding.rows],
        "evidence": finding.evidence,
        "remedy": CODES[finding.code].remedy,
        "score": finding.score,
        "facts": dict(finding.facts),
    }


def to_parquet(report: Report) -> bytes:
    """Return all findings as Parquet, a row per finding and photo. One without photos has one row without a name."""
    photos = report.version.rows.select("source", "name", "image_id").rows()
    records = []
    for number, finding in enumerate(report.findings):
        details = (finding.evidence, CODES[finding.code].remedy, finding.score)
        for row in finding.rows or (None,):
            photo = (None, None, None) if row is None else photos[row]
            records.append((number, finding.code, finding.severity, *photo, *details))
    return tables.to_parquet(pl.DataFrame(records, schema=_SCHEMA, orient="row"))
