"""Fix findings in a new version: exclude rows with a reason, or correct them; nothing is deleted."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from plantml import imaging, storage
from plantml.concurrency import Progress, silent
from plantml.curate import check
from plantml.curate.checks import boxes
from plantml.curate.findings import CODES, SEVERITIES, Finding, Report
from plantml.data import manifest, versions
from plantml.data.manifest import EXCLUDED, Version
from plantml.data.versions import Committed
from plantml.errors import UsageError
from plantml.settings import Machine
from plantml.targets import Target

_COPIES = ("exact-duplicates", "same-pixels", "near-duplicates", "turned-duplicates", "cropped-duplicates")
_REVIEW = ("conflicting-labels", "impossible-labels", "suspicious-label")


@dataclass(frozen=True)
class Cleaned:
    """The number of photos that were excluded, set aside for review, and corrected, by code.

    `undecided` is the number of copies with different labels, which were left unchanged.
    """

    excluded: Mapping[str, int]
    review: Mapping[str, int]
    mended: Mapping[str, int]
    undecided: int


def codes(text: str) -> tuple[str, ...]:
    """Parse comma-separated codes and severities; a severity stands for its fixable codes. Raises `UsageError`."""
    selected: dict[str, None] = {}
    for word in (part.strip() for part in text.split(",") if part.strip()):
        if word in SEVERITIES:
            selected.update(
                dict.fromkeys(code for code, kind in CODES.items() if kind.severity == word and kind.cleans)
            )
        elif word not in CODES:
            raise UsageError(
                f"Unknown code {word!r}", "no finding has it", f"Fixable codes: {', '.join(_cleanable())}."
            )
        elif not CODES[word].cleans:
            raise UsageError(f"{word} cannot be fixed automatically", "it needs a decision", CODES[word].remedy)
        else:
            selected[word] = None
    if not selected:
        raise UsageError(
            "No findings to fix", "no fixable code was given", f"Fixable codes: {', '.join(_cleanable())}."
        )
    return tuple(selected)


def clean(
    ref: str,
    apply: Sequence[str],
    machine: Machine,
    *,
    model: str | None = None,
    dry_run: bool = False,
    progress: Callable[[str], Progress] = lambda _: silent,
) -> Committed[Cleaned]:
    """Fix the findings of the given codes in the newest version, or only count them in a dry run.

    Raises:
        MissingExtraError: a required check cannot run.
    """
    needed = sorted({CODES[code].check for code in apply})

    def fix(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...], Cleaned]:
        report = check.run(version.ref, machine, only=needed, model=model, progress=progress)
        check.raise_missing(report)
        plan = _Plan(report)
        for code in CODES:
            if code in apply:
                for finding in report.findings:
                    if finding.code == code:
                        plan.apply(finding)
        rows = plan.rows()
        targets = manifest.derive_targets(rows, manifest.narrow_targets(rows, version.targets))
        return rows, targets, Cleaned(plan.excluded, plan.review, plan.mended, len(plan.undecided))

    if dry_run:
        version = versions.load(ref)
        return Committed(version, changed=False, report=fix(version)[2])
    return versions.change(ref, "clean", {"apply": ",".join(apply)}, fix)


def _cleanable() -> list[str]:
    return [code for code, kind in CODES.items() if kind.cleans]


@dataclass
class _Plan:
    """The changes to a version, collected finding by finding."""

    report: Report
    excluded: Counter[str] = field(default_factory=Counter)
    review: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    undecided: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._version = self.report.version
        self._out: set[int] = set()
        self._values: dict[str, dict[int, Any]] = {}
        conflicts = [finding.rows for finding in self.report.findings if finding.code == "conflicting-labels"]
        self._conflicting = {row for rows in conflicts for row in rows}

    def apply(self, finding: Finding) -> None:
        code = finding.code
        if code in _COPIES:
            self._keep_best(finding)
        elif code == "split-leak":
            splits = self._version.rows["split"]
            if self._conflicting & set(finding.rows) - self._out:
                self.undecided |= set(finding.rows)
                return
            self._leave_out(code, [row for row in finding.rows if splits[row] != splits[finding.rows[0]]], finding)
        elif code in _MENDERS:
            _MENDERS[code](self, finding)
        else:
            self._leave_out(code, finding.rows, finding)

    def rows(self) -> pl.DataFrame:
        """Return the rows of the version with all changes applied."""
        rows = self._version.rows
        columns: list[pl.Series] = []
        for name, values in self._values.items():
            cells = rows[name].to_list() if name in rows.columns else [None] * rows.height
            for row, value in values.items():
                cells[row] = value
            columns.append(pl.Series(name, cells, dtype=rows.schema.get(name, pl.String)))
        return rows.with_columns(columns).sort(manifest.KEY)

    def get(self, column: str, row: int) -> Any:
        """Return a value, with earlier changes applied."""
        return self._values.get(column, {}).get(row, self._version.rows[column][row])

    def set(self, column: str, row: int, value: Any) -> None:
        """Change a value."""
        self._values.setdefault(column, {})[row] = value

    def _exclude(self, row: int, reason: str) -> None:
        self._out.add(row)
        for column, value in (("status", EXCLUDED), ("reason", reason), ("split", None)):
            self.set(column, row, value)

    def _leave_out(self, code: str, rows: Sequence[int], finding: Finding) -> None:
        counter = self.review if code in _REVIEW else self.excluded
        for row in rows:
            if row not in self._out:
                word = "review" if code in _REVIEW else "cleaned"
                self._exclude(row, f"{word} {code}: {finding.evidence}")
                counter[code] += 1

    def _keep_best(self, finding: Finding) -> None:
        copies = [row for row in finding.rows if row not in self._out]
        if self._conflicting & set(copies):
            self.undecided |= set(copies)
            return
        if len(copies) < 2:
            return
        best, *others = copies
        for target in self._version.targets:
            for other in others:  # keep a label that only a discarded copy has
                if self.get(target.name, best) is None and self.get(target.name, other) is not None:
                    self.set(target.name, best, self.get(target.name, other))
        name = self.report.name(best)
        for row in others:
            self._exclude(row, f"cleaned {finding.code}: a copy of {name}")
            self.excluded[finding.code] += 1


def _rename_class(plan: _Plan, finding: Finding) -> None:
    if finding.facts["sure"]:
        for row in finding.rows:
            plan.set(finding.facts["target"], row, finding.facts["like"])
            plan.mended[finding.code] += 1


def _rename_file(plan: _Plan, finding: Finding) -> None:
    rows = plan.report.version.rows
    (row,) = finding.rows
    name = str(rows["name"][row])
    suffix = imaging.SUFFIXES.get(finding.facts["format"])
    if suffix is None:
        return
    corrected = name[: len(name) - len(storage.suffix(name))] + suffix
    if corrected in set(rows.filter(pl.col("source") == rows["source"][row])["name"]):
        return  # the name is taken: a row's name is its key
    plan.set(manifest.IMPORTED_AS, row, name)
    plan.set("name", row, corrected)
    plan.mended[finding.code] += 1


def _mend_boxes(mend: Callable[[Any, Any, Finding, int], Any]) -> Callable[[_Plan, Finding], None]:
    def change(plan: _Plan, finding: Finding) -> None:
        rows = plan.report.version.rows
        for row in finding.rows:
            value = plan.get("boxes", row)
            drawn = [dict(box) for box in (value if value is not None else [])]
            if not drawn:
                continue
            xywh = np.array([[box["x"], box["y"], box["w"], box["h"]] for box in drawn], np.float64)
            size = np.array([[rows["width"][row], rows["height"][row]]] * len(drawn), np.float64)
            corrected = mend(xywh, size, finding, int(rows["orientation"][row] or 1))
            corrected_boxes = [
                {**box, **dict(zip("xywh", values, strict=True))}
                for box, values in zip(drawn, corrected, strict=True)
                if values is not None
            ]
            plan.set("boxes", row, corrected_boxes)
            plan.mended[finding.code] += 1

    return change


def _shares(xywh: Any, size: Any, finding: Finding, _: int) -> Any:
    scaled = boxes.from_normalised(xywh, size)
    return (boxes.from_centre(scaled) if finding.facts["centred"] else scaled).tolist()


def _cut(xywh: Any, size: Any, _finding: Finding, _: int) -> Any:
    low = np.clip(xywh[:, :2], 0, size)
    high = np.clip(xywh[:, :2] + xywh[:, 2:], 0, size)
    cut = np.concatenate([low, high - low], axis=1)
    return [values if min(values[2:]) >= 1 else None for values in cut.tolist()]


def _with_area(xywh: Any, _size: Any, _finding: Finding, _: int) -> Any:
    return [values if min(values[2:]) >= 1 else None for values in xywh.tolist()]


def _once(xywh: Any, _size: Any, _finding: Finding, _: int) -> Any:
    seen: set[tuple[float, ...]] = set()
    distinct: list[list[float] | None] = []
    for values in xywh.tolist():
        key = tuple(round(value, 1) for value in values)
        distinct.append(None if key in seen else values)
        seen.add(key)
    return distinct


_MENDERS: Mapping[str, Callable[[_Plan, Finding], None]] = {
    "similar-classes": _rename_class,
    "wrong-extension": _rename_file,
    "boxes-centre-as-corner": _mend_boxes(lambda xywh, *_: boxes.from_centre(xywh).tolist()),
    "boxes-normalised": _mend_boxes(_shares),
    "boxes-unrotated": _mend_boxes(lambda xywh, size, _, turned: boxes.turn(xywh, size, turned).tolist()),
    "box-outside": _mend_boxes(_cut),
    "box-degenerate": _mend_boxes(_with_area),
    "box-duplicate": _mend_boxes(_once),
}
