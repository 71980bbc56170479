"""What a check can say: the table of codes, each with its severity, meaning and remedy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from plantml.data.manifest import Version

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Code:
    """One kind of finding.

    Attributes:
        severity: `error` makes scores wrong or training fail, `warning` costs quality, `info` is good to know.
        title: what it is, in a few words.
        remedy: what to do; where `clean` can do it, it says so.
        cleans: true if `clean --apply CODE` knows what to do.
    """

    severity: Severity
    title: str
    remedy: str
    cleans: bool = False


_EXCLUDE = "`clean` leaves the photo out."
_BEST = "`clean` keeps the best copy and leaves the others out."
_LOOK = "Look at them; `clean` leaves them out."

CODES: Mapping[str, Code] = {
    # files
    "missing": Code(
        "error", "photo that cannot be found", "Restore the file and import it anew, or `clean`.", cleans=True
    ),
    "empty-file": Code("error", "file of 0 bytes", _EXCLUDE, cleans=True),
    "truncated": Code("error", "file that was cut off", "Copy it anew from the camera; " + _EXCLUDE, cleans=True),
    "not-an-image": Code("error", "file that is no picture", _EXCLUDE, cleans=True),
    "unsupported": Code("error", "format that is not read", "Convert it to JPEG or PNG; " + _EXCLUDE, cleans=True),
    "unreadable": Code("error", "damaged file", _EXCLUDE, cleans=True),
    "wrong-extension": Code("warning", "extension and content disagree", "`clean` corrects the name.", cleans=True),
    "extreme-size": Code("warning", "very small or very large picture", _LOOK, cleans=True),
    "extreme-aspect": Code("warning", "very long or very tall picture", _LOOK, cleans=True),
    "exif-rotated": Code(
        "info", "photo that is stored turned", "Nothing: plantml turns it. Boxes drawn in other tools may be off."
    ),
    "unusual-mode": Code("info", "unusual colour mode", "Nothing: plantml reads it as 8-bit RGB."),
    "multi-picture": Code("info", "file of several pictures", "Nothing: the first picture counts."),
    # pictures
    "blurry": Code("warning", "blurry picture", _LOOK, cleans=True),
    "dark": Code("warning", "dark picture", _LOOK, cleans=True),
    "overexposed": Code("warning", "overexposed picture", _LOOK, cleans=True),
    "low-information": Code("warning", "picture of next to nothing", _LOOK, cleans=True),
    "off-colour": Code("warning", "colours unlike the other pictures'", _LOOK, cleans=True),
    # duplicates
    "exact-duplicates": Code("warning", "the same file again", _BEST, cleans=True),
    "same-pixels": Code("warning", "the same pixels in another file", _BEST, cleans=True),
    "near-duplicates": Code("warning", "the same picture, resized, compressed or lightened", _BEST, cleans=True),
    "turned-duplicates": Code("warning", "the same picture, flipped or turned", _BEST, cleans=True),
    "cropped-duplicates": Code("warning", "a part of another picture", _BEST, cleans=True),
    "overlapping": Code(
        "warning",
        "pictures that show the same place",
        "Keep them in one split: `split --deep`, or give them a group.",
    ),
    "large-group": Code(
        "warning",
        "very many pictures that look alike",
        "Too many to be copies: look whether the set is what it should be.",
    ),
    "conflicting-labels": Code(
        "error",
        "copies with different labels",
        "Decide which is right (`relabel`); `clean` sets the whole group aside.",
        cleans=True,
    ),
    "split-leak": Code(
        "error",
        "copies in different splits",
        "`split --resplit`; `clean` leaves the copies in training out.",
        cleans=True,
    ),
    "torn-group": Code("error", "one group in different splits", "`split --resplit`."),
    # labels
    "similar-classes": Code(
        "warning",
        "classes whose names are nearly the same",
        "`rename-class`; `clean` does it where they differ by case, separators or a count only.",
        cleans=True,
    ),
    "no-photos": Code("error", "no photo to use", "Import photos, or go back to an older version: `restore`."),
    "single-class": Code("warning", "target with one class only", "There is nothing to tell apart: add other classes."),
    "tiny-class": Code("warning", "class with very few photos", "Collect more, or join it to another: `rename-class`."),
    "imbalance": Code("info", "very unequal classes", "Training weighs them; look at the scores of the small ones."),
    "impossible-labels": Code(
        "error", "labels that cannot be true together", "`relabel`; `clean` sets them aside.", cleans=True
    ),
    "missing-labels": Code(
        "info", "photos without a label", "Label them (`relabel`); training leaves them out for this target."
    ),
    "same-name": Code(
        "warning", "one file name in several classes", "Look whether one of them was put into the wrong folder."
    ),
    "suspicious-label": Code(
        "warning", "label that the picture contradicts", "Look, and `relabel`; `clean` sets them aside.", cleans=True
    ),
    # boxes
    "annotated-size": Code(
        "warning", "the annotation is of another picture size", "Boxes may be scaled: look at them drawn on the photo."
    ),
    "boxes-centre-as-corner": Code(
        "error", "boxes store the centre as the corner", "`clean` moves them by half their size.", cleans=True
    ),
    "boxes-normalised": Code(
        "error", "normalised values read as pixels", "`clean` multiplies them by the picture's size.", cleans=True
    ),
    "boxes-unrotated": Code(
        "error", "boxes of the un-rotated picture", "`clean` turns them with the picture.", cleans=True
    ),
    "box-outside": Code(
        "warning", "box that leaves the picture", "`clean` cuts it at the picture's edge.", cleans=True
    ),
    "box-degenerate": Code("warning", "box without an area", "`clean` removes the box.", cleans=True),
    "box-duplicate": Code("warning", "box drawn twice", "`clean` removes the second.", cleans=True),
    # shortcuts
    "shortcut-border": Code(
        "warning",
        "the border alone tells the label",
        "Photograph all classes in all places; test on photos from elsewhere.",
    ),
    "shortcut-file": Code(
        "warning",
        "the file alone tells the label",
        "Mix cameras, sizes and sources in every class; test on photos from elsewhere.",
    ),
    # outliers
    "outlier": Code("warning", "unlike all other pictures", _LOOK, cleans=True),
    "unlike-class": Code("info", "unlike the other pictures of its class", "Look whether the label is right."),
}
"""Every code that a finding can have, in the order of reports. Codes are stable."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or worth knowing.

    Attributes:
        code: of `CODES`.
        rows: numbers of the version's rows that it is about; the first is the one to keep where copies are meant.
        evidence: a sentence with the numbers that say so.
        score: 0 to 1, how sure or how bad, for sorting; `None` where nothing was weighed.
        facts: the evidence for programs.
    """

    code: str
    rows: tuple[int, ...]
    evidence: str
    score: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> Severity:
        """Of the code."""
        return CODES[self.code].severity


@dataclass(frozen=True)
class Report:
    """What a check of a version came to.

    Attributes:
        version: that was checked.
        findings: in the order of `CODES`, surest first.
        checked: names of the checks that ran.
        not_checked: names of those that did not, and why, with what to do about it.
        notes: results that are no findings, such as how much a probe can tell.
    """

    version: Version
    findings: Sequence[Finding]
    checked: Sequence[str]
    not_checked: Mapping[str, str]
    notes: Sequence[str]

    def name(self, row: int) -> str:
        """What a row is called in reports."""
        return str(self.version.rows["name"][row])

    def counts(self) -> dict[str, int]:
        """Findings by code, errors first, then in the order of `CODES`."""
        counts = dict.fromkeys(sorted(CODES, key=lambda code: SEVERITIES.index(CODES[code].severity)), 0)
        for finding in self.findings:
            counts[finding.code] += 1
        return {code: number for code, number in counts.items() if number}

    def failing(self, levels: Sequence[str]) -> list[Finding]:
        """Findings that `--fail-on` counts: of a code that is named, or at least as severe as one that is."""
        named = set(levels)
        for place, severity in enumerate(SEVERITIES):
            if severity in levels:
                named.update(SEVERITIES[:place])
        return [finding for finding in self.findings if finding.code in named or finding.severity in named]


def count(number: int, one: str) -> str:
    """`1 photo`, `3 photos`."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """By code as in `CODES`, surest first, then by row."""
    place = {code: number for number, code in enumerate(CODES)}
    return sorted(findings, key=lambda finding: (place[finding.code], -(finding.score or 0.0), finding.rows))
