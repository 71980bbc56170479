"""`plantml export`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, Page
from plantml.errors import UsageError

if TYPE_CHECKING:
    from plantml.export.export import Compared, Row

EXAMPLES = [
    "plantml export runs/first --to leaf.onnx",
    "plantml export runs/first --to leaf.int8.onnx --format onnx-int8",
    "plantml export runs/first --to leaf.xml",
    "plantml export runs/first --to s3://bucket/models/leaf.onnx --data leaves --samples 200",
    "plantml export runs/first --benchmark",
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "export", examples=EXAMPLES)(export)


def export(
    console: Console,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A run, a bundle, or REGISTRY/NAME@ALIAS.")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="The file to write (.onnx, .xml, .pt2), or a folder for it."),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="F", help="onnx, onnx-int8, openvino or pt2; by the file's extension if not given."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="Photos to compare on, and to calibrate int8; the model's own if not given."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset to compare on.")] = "test",
    samples: Annotated[int, typer.Option(min=1, help="Photos to compare at most.")] = 500,
    max_drop: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="What int8 may cost: macro-F1, mean over targets.")
    ] = 0.01,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Make and compare all formats, print the table, write nothing.")
    ] = False,
) -> None:
    """Write a model in another form, proven equal.

    The file needs its runtime and nothing of ours. It answers for held-out photos first, beside the network. If
    its answers are not the same (int8: if it costs more than --max-drop), nothing is written and the exit code is 4.
    """
    from plantml.cli.extras import need_train

    if benchmark and (to or format_):
        raise UsageError("--benchmark compares all formats and writes none", "", "Leave out --to and --format.")
    if not benchmark and not to:
        raise UsageError("No target is named", "", "Name a file: --to leaf.onnx, or compare all formats: --benchmark")
    need_train()
    from plantml.export import export as run

    asked: dict[str, Any] = {
        "data": data,
        "split": split,
        "limit": samples,
        "max_drop": max_drop,
        "threads": console.machine.threads,
        "cache": console.machine.cache(),
        "progress": console.progress("comparing"),
    }
    if benchmark or to is None:
        found = run.benchmark(bundle, **asked)
        console.result("export", run.as_json(found), lambda page: _show(page, found))
        return
    try:
        done = run.export(bundle, to, form=format_, **asked)
    except run.RefusedError as error:
        if error.comparison is not None:
            refused = error.comparison
            console.result("export", run.as_json(refused), lambda page: _show(page, refused))
        raise
    console.result("export", run.as_json(done), lambda page: _show(page, done))


def _show(page: Page, found: "Compared") -> None:
    if found.url:
        written = found.rows[-1]
        page.line(f"Wrote {found.url}, {written.size / 1e6:.1f} MB, model {written.model[:12]}", style="bold")
    proven = [row for row in found.rows if row.proof is not None]
    if proven and proven[0].proof is not None:
        page.line(f"Compared on {proven[0].proof.photos} photos of {found.photos}, with the network in torch:")
        page.table(
            ("format", "labels", "decisions", "difference", "score", "change", "95 % interval", "MB", ""),
            [_proof_cells(row) for row in found.rows],
        )
    if any(row.speed for row in found.rows):
        page.line(f"Speed, in turns in one run; images/s with {found.threads} callers:")
        batches = list(found.rows[0].speed)
        page.table(
            ("format", *(f"{name} at {batch}" for batch in batches for name in ("ms", "images/s", "ratio"))),
            [(row.name, *_speed_cells(row, batches)) for row in found.rows if row.speed],
        )
    for name, why in (found.missing or {}).items():
        page.line(f"{name}: {why}")
    for row in found.rows:
        if row.settings:
            kept = ", ".join(row.settings["in_float"]) or "none"
            page.line(f"{row.name}: ranges by {row.settings['method']}, layers left in float: {kept}")
    if found.url:
        page.next(f"plantml detect PHOTOS --model {found.url} --out records.jsonl")


def _proof_cells(row: "Row") -> tuple[Any, ...]:
    size, proof = f"{row.size / 1e6:.1f}", row.proof
    if proof is None:
        return (row.name, *[None] * 6, size, "refused" if row.refused else "")
    change = proof.change
    return (
        row.name,
        f"{proof.agreement:.1%}",
        f"{proof.decisions:.1%}",
        f"{proof.difference:.1e}",
        f"{change.after:.4f}" if change else None,
        f"{change.change:+.4f}" if change else None,
        f"{change.low:+.4f} to {change.high:+.4f}" if change else None,
        size,
        "refused" if row.refused else "passed",
    )


def _speed_cells(row: "Row", batches: list[int]) -> list[str]:
    return [
        cell
        for batch in batches
        for cell in (
            f"{row.speed[batch].latency:.1f}",
            f"{row.speed[batch].rate:.1f}",
            f"{row.speed[batch].ratio:.2f}",
        )
    ]
