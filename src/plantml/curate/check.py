"""The table of checks, and the function that runs them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from plantml.concurrency import Progress, silent
from plantml.curate.checks import box_labels, boxes, duplicates, files, labels, pictures, probes
from plantml.curate.context import Subject
from plantml.curate.embeddings import Fill
from plantml.curate.findings import CODES, SEVERITIES, Finding, Report, in_order
from plantml.curate.keypoint_matches import Elsewhere
from plantml.data import versions
from plantml.data.manifest import Version
from plantml.errors import InputError, MissingExtraError, UsageError
from plantml.settings import Machine

CHECKS: Mapping[str, Callable[[Subject], Iterable[Finding]]] = {
    "files": files.check,
    "pictures": pictures.check,
    "duplicates": duplicates.check,
    "groups": duplicates.check_groups,
    "labels": labels.check,
    "boxes": boxes.check,
    box_labels.NAME: box_labels.check,
    "shortcuts": probes.check_shortcuts,
    "suspicious": probes.check_labels,
    "outliers": probes.check_outliers,
    "crops": duplicates.check_crops,
}
"""Every check. To add one, add a line here and its codes to `findings.CODES`."""

_FOLDS = (
    "it compares the boxes with those of models that were trained without the photo",
    "Train one per fold: plantml train DATASET --task boxes --folds 3 --out RUN; then check with --folds RUN.",
)


def run(
    ref: str,
    machine: Machine,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    model: str | None = None,
    folds: str | None = None,
    progress: Callable[[str], Progress] = lambda _: silent,
    fill: Fill | None = None,
    keypoints: Callable[[Subject], Elsewhere] | None = None,
) -> Report:
    """Run the checks named in `only` (all if empty), except those in `skip`; the dataset is not changed.

    Without `folds`, a cross-validation of the dataset, `box-labels` is not among them. `fill` embeds photos elsewhere,
    and what `keypoints` returns compares their keypoints elsewhere.

    Raises:
        UsageError: a check is unknown, lacks `folds`, or none is left to run.
        InputError: there is no such dataset.
    """
    for name in (*only, *skip):
        if name not in CHECKS:
            raise UsageError(f"There is no check {name!r}", "", f"Checks: {', '.join(CHECKS)}.")
    if not [name for name in CHECKS if name not in skip and (not only or name in only)]:
        raise UsageError(
            "No check is left to run", f"--skip excludes every selected check: {', '.join(skip)}", "Skip fewer checks."
        )
    if box_labels.NAME in only and folds is None:
        raise UsageError(f"The check {box_labels.NAME} needs --folds RUN", *_FOLDS)
    version = versions.load(ref)
    bare = version.without_photo().height
    notes = [f"Rows without a photo, not checked: {bare}."] * bool(bare)
    subject = Subject(version, machine, model, progress, notes, folds=folds, fill=fill, keypoints=keypoints)
    findings: list[Finding] = []
    checked, not_checked = [], {}
    for name, check in CHECKS.items():
        if name in skip or (only and name not in only):
            continue
        if name == box_labels.NAME and folds is None:
            if _has_only_boxes(version):
                subject.notes.append(f"{name}: not checked, because {_FOLDS[0]}. {_FOLDS[1]}")
            continue
        try:
            findings += check(subject)
            checked.append(name)
        except MissingExtraError as error:
            not_checked[name] = f"{error}. {error.hint}"
        except InputError as error:
            if subject.pictures.height:
                raise
            not_checked[name] = str(error)
    return Report(version, in_order(_merged(findings)), checked, not_checked, subject.notes)


def raise_missing(report: Report) -> None:
    """Raise `MissingExtraError` if a check could not run, for callers that depend on its result."""
    for name, why in report.not_checked.items():
        raise MissingExtraError(
            f"The check {name} cannot run", why, "Run plantml dataset check to see what is missing."
        )


def _has_only_boxes(version: Version) -> bool:
    """True if there are boxes, and no labels of photos."""
    rows = version.usable()
    labelled = any(rows[target.name].is_not_null().any() for target in version.targets)
    return not labelled and bool(rows["boxes"].list.len().sum())


def levels(text: str, *, folds: str | None = None) -> tuple[str, ...]:
    """Parse comma-separated severities and codes.

    Raises:
        UsageError: a word is unknown, or a code cannot be found without `folds`.
    """
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in words:
        if word not in CODES and word not in SEVERITIES:
            raise UsageError(
                f"--fail-on has an unknown level {word!r}",
                "it is neither a severity nor a code",
                f"Use one of {', '.join((*SEVERITIES, *CODES))}.",
            )
        if word in CODES and CODES[word].check == box_labels.NAME and folds is None:
            raise UsageError(f"--fail-on {word} needs --folds RUN", *_FOLDS)
    return words


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Merge findings of several checks with the same code and rows, so that each is reported once."""
    merged: dict[tuple[str, tuple[int, ...], str], Finding] = {}
    for finding in findings:
        rows = tuple(sorted(finding.rows))
        key = (finding.code, rows, "" if len(rows) > 1 else finding.evidence)
        known = merged.get(key)
        if known is None:
            merged[key] = finding
        elif finding.evidence != known.evidence:
            merged[key] = replace(known, evidence=f"{known.evidence}; {finding.evidence}")
    return list(merged.values())
