"""`plantml dataset info`, `log` and `diff`: read-only commands."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import Dataset
from plantml.cli.command import command
from plantml.cli.console import Console, Page, as_json, count
from plantml.errors import PlantmlError

if TYPE_CHECKING:
    from plantml.data.manifest import Commit
    from plantml.data.summary import Info, VersionDiff
    from plantml.errors import InputError


@command("plantml dataset info leaves", "plantml dataset info leaves@3 --json")
def info(console: Console, dataset: Dataset) -> None:
    """Count the photos of a version by target, class and split."""
    from plantml.data import summary

    result = summary.info(dataset)
    console.result(as_json(result), lambda page: _show_info(page, result))


def _show_info(page: Page, result: "Info") -> None:
    version = result.version
    tags = f"  tags: {', '.join(result.tags)}" if result.tags else ""
    page.line(f"{version.ref}{tags}", style="bold")
    page.line(
        f"{result.rows} rows, {result.usable} usable, {result.distinct} distinct files, {result.bytes / 1e6:.1f} MB"
    )
    page.line(f"fingerprint {version.fingerprint}")
    if result.sizes:
        wide, high = (f"{result.sizes[f'min_{side}']} to {result.sizes[f'max_{side}']}" for side in ("width", "height"))
        formats = ", ".join(f"{name} {number}" for name, number in result.formats.items())
        page.line(f"{wide} pixels wide, {high} high; {formats}")
    if result.without_photo:
        counts = ", ".join(f"{name} {number}" for name, number in result.without_photo.items())
        page.line(f"{count(sum(result.without_photo.values()), 'row')} without a photo: {counts}")
    if result.excluded:
        page.table(("excluded because", "rows"), result.excluded.items())
    splits = list(result.splits)
    for target, classes in result.classes.items():
        rows = [[name, *(by.get(split, 0) for split in splits), sum(by.values())] for name, by in classes.items()]
        if result.unlabelled[target]:
            rows.append(["(not labelled)", *("" for _ in splits), result.unlabelled[target]])
        page.table((target, *splits, "all"), rows)
    for target, values in result.values.items():
        page.table(
            (target, "photos", "min", "mean", "max"), [[version.target(target).unit or "value", *_numbers(values)]]
        )
    if result.boxes:
        page.table(("boxes", "number"), result.boxes.items())
    page.table(("split", "photos"), result.splits.items())


def _numbers(values: Any) -> list[Any]:
    return [int(values["count"]), *(values.get(name) for name in ("min", "mean", "max"))]


@command("plantml dataset log leaves", "plantml dataset log leaves@7   # versions up to that one")
def log(console: Console, dataset: Dataset) -> None:
    """Show the history of a dataset, newest version first."""
    from plantml.data import versions

    records = versions.history(dataset)
    tags: dict[int, list[str]] = {}
    for name, number in versions.tags(versions.parse_reference(dataset)[0]).items():
        tags.setdefault(number, []).append(name)
    content = [_log_entry(number, record, tags.get(number, [])) for number, record in records]
    rows = [_log_row(entry) for entry in content]
    columns = ("version", "time", "operation", "parameters", "rows", "fingerprint", "tags")
    console.result({"versions": content}, lambda page: page.table(columns, rows))


def _log_entry(number: int, record: "Commit | InputError", tags: list[str]) -> dict[str, Any]:
    names = ("operation", "parameters", "time", "plantml", "counts", "fingerprint")
    damage = record.why if isinstance(record, PlantmlError) else None
    known = {name: getattr(record, name, None) for name in names}
    return {"version": number, **known, "tags": tags, "damage": damage}


def _log_row(entry: dict[str, Any]) -> list[Any]:
    if entry["damage"] is not None:
        return [entry["version"], "", "(damaged)", entry["damage"], "", "", ", ".join(entry["tags"])]
    parameters = (f"{key} {value}" for key, value in entry["parameters"].items() if value not in (None, False))
    return [
        *(entry["version"], entry["time"], entry["operation"], ", ".join(parameters)),
        *(sum(entry["counts"].values()), entry["fingerprint"][:12], ", ".join(entry["tags"])),
    ]


@command("plantml dataset diff leaves@1 leaves@2", "plantml dataset diff leaves s3://bucket/leaves")
def diff(
    console: Console,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="A version.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another version, of this or of another dataset.")],
) -> None:
    """Show the differences between two versions."""
    from plantml.data import summary

    result = summary.diff(before, after)
    changed = {
        name: [{"name": key, "before": old, "after": new} for key, old, new in rows]
        for name, rows in result.changed.items()
    }
    console.result(as_json(result) | {"same": result.same, "changed": changed}, lambda page: _show_diff(page, result))


def _show_diff(page: Page, result: "VersionDiff") -> None:
    page.line(f"{result.before} -> {result.after}", style="bold")
    if result.same:
        page.line("No difference.")
    for sign, names in (("+", result.added), ("-", result.removed)):
        if names:
            page.line(f"{sign} {count(len(names), 'row')}, such as {names[0]}")
    for target, changes in result.classes.items():
        page.line(f"{target}: {' '.join(changes) or 'added or removed'}")
    for column, rows in result.changed.items():
        page.table((column, "before", "after"), rows[:8])
        if len(rows) > 8:
            page.line(f"… and {len(rows) - 8} more; --json lists all")
