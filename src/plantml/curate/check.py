"""The table of checks, and running them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from plantml.concurrency import Progress, silent
from plantml.curate.checks import boxes, duplicates, files, labels, pictures, probes
from plantml.curate.context import Subject
from plantml.curate.findings import CODES, SEVERITIES, Finding, Report, in_order
from plantml.data import versions
from plantml.errors import InputError, MissingExtraError, UsageError
from plantml.settings import Machine

CHECKS: Mapping[str, Callable[[Subject], Iterable[Finding]]] = {
    "files": files.check,
    "pictures": pictures.check,
    "duplicates": duplicates.check,
    "groups": duplicates.check_groups,
    "labels": labels.check,
    "boxes": boxes.check,
    "shortcuts": probes.check_shortcuts,
    "suspicious": probes.check_labels,
    "outliers": probes.check_outliers,
    "crops": duplicates.check_crops,
}
"""Every check; a new one is one more line here, and its codes in `findings.CODES`."""


def run(
    ref: str,
    machine: Machine,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    model: str | None = None,
    progress: Callable[[str], Progress] = lambda _: silent,
) -> Report:
    """Check a version of a dataset; nothing is changed.

    Args:
        ref: the dataset.
        machine: whose threads and cache are used.
        only: names of `CHECKS` to run; all if empty.
        skip: names of `CHECKS` to leave out.
        model: whose embeddings are used; see `embeddings.open_embedder`.
        progress: gives a progress for a named part of the work.

    Raises:
        UsageError: there is no check of that name.
        InputError: there is no such dataset.
    """
    for name in (*only, *skip):
        if name not in CHECKS:
            raise UsageError(f"There is no check {name!r}", "", f"Checks: {', '.join(CHECKS)}.")
    if not [name for name in CHECKS if name not in skip and (not only or name in only)]:
        raise UsageError("No check is left to run", f"all that are named are skipped: {', '.join(skip)}")
    version = versions.load(ref)
    subject = Subject(version, machine, model, progress)
    findings: list[Finding] = []
    checked, not_checked = [], {}
    for name, check in CHECKS.items():
        if name in skip or (only and name not in only):
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
    """Raise `MissingExtraError` if a check could not run: for those who need the answer, not the attempt."""
    for name, why in report.not_checked.items():
        raise MissingExtraError(f"The check {name} cannot run", why, "plantml dataset check shows what is missing.")


def levels(text: str) -> tuple[str, ...]:
    """`error`, `warning` or codes, separated by commas. Raises `UsageError` for an unknown word."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in words:
        if word not in CODES and word not in SEVERITIES:
            raise UsageError(f"--fail-on does not know {word!r}", "", f"Severities or codes: {', '.join(CODES)}.")
    return words


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Several checks may find one group: the same code for the same rows is told once."""
    found: dict[tuple[str, tuple[int, ...], str], Finding] = {}
    for finding in findings:
        rows = tuple(sorted(finding.rows))
        key = (finding.code, rows, "" if len(rows) > 1 else finding.evidence)
        have = found.get(key)
        if have is None:
            found[key] = finding
        elif finding.evidence != have.evidence:
            found[key] = replace(have, evidence=f"{have.evidence}; {finding.evidence}")
    return list(found.values())
