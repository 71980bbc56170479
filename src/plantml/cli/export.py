"""`plantml export`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import Forms
from plantml.cli.command import command
from plantml.cli.console import Console, Page
from plantml.errors import UsageError
from plantml.export.config import ExportConfig
from plantml.settings import Resolved

if TYPE_CHECKING:
    from plantml.export.export import Compared, Row


@command(
    "plantml export runs/first --to leaf.onnx",
    "plantml export runs/first --to leaf.int8.onnx --format onnx-int8",
    "plantml export runs/first --to leaf.xml",
    "plantml export runs/first --to s3://bucket/models/leaf.onnx --data leaves --samples 200",
    "plantml export runs/first --form int8 --form bfloat16",
    "plantml export runs/first --benchmark",
    config=ExportConfig,
)
def export(
    console: Console,
    resolved: Resolved[ExportConfig],
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Model: a run, a bundle or REGISTRY/NAME@ALIAS.")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="Output file (.onnx, .xml or .pt2), or a folder for it.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="Format: onnx, onnx-int8, openvino or pt2. [default: by file extension]"
        ),
    ] = None,
    forms: Forms = None,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Compare all formats and print a table; write nothing.")
    ] = False,
) -> None:
    """Export a model to another format, and verify it.

    The file needs its runtime, but not plantml. Its predictions on held-out photos are compared with the network's.
    If they differ (int8: if macro-F1 drops by more than --max-drop), nothing is written and the exit code is 4.
    """
    from plantml.extras import need_train
    from plantml.model import proven_forms

    if benchmark and (to or format_ or forms):
        raise UsageError("--benchmark compares all formats and writes none", "", "Remove --to, --format and --form.")
    if forms and (to or format_):
        raise UsageError("--form adds to the bundle", "--to and --format write a file", "Leave either out.")
    if not benchmark and not to and not forms:
        raise UsageError("No output is given", "", "Choose a file: --to leaf.onnx, or compare all formats: --benchmark")
    proven_forms.check_names(forms or ())
    need_train()
    from plantml.export import bundle_forms
    from plantml.export import export as library

    def show(result: "Compared") -> None:
        console.result(library.as_json(result), lambda page: _show(page, result))

    progress = console.progress("comparing")
    try:
        if forms:
            names = list(dict.fromkeys(forms))
            first, *second = bundle_forms.add(bundle, names, resolved.value, machine=console.machine, progress=progress)
            content = library.as_json(first) | {"added": names}
            if second:
                content["classifier"] = library.as_json(second[0])
            console.result(content, lambda page: _show_added(page, [first, *second], names, bundle))
            return
        show(library.export(bundle, to, resolved.value, form=format_, machine=console.machine, progress=progress))
    except library.RefusedError as error:
        if error.comparison is not None:
            show(error.comparison)
        raise


def _show_added(page: Page, results: Sequence["Compared"], names: Sequence[str], ref: str) -> None:
    page.line(f"Added to the bundle: {', '.join(names)}", style="bold")
    for stage, result in zip(("The detector", "The classifier"), results, strict=False):
        if results[1:]:
            page.line(f"{stage}:")
        _show_comparison(page, result)
    page.next(f"plantml detect PHOTOS --model {ref} --speed auto --out records.jsonl")


def _show(page: Page, result: "Compared") -> None:
    if result.url:
        written = result.rows[-1]
        page.line(f"Wrote {result.url}, {written.size / 1e6:.1f} MB, model {written.model[:12]}", style="bold")
    _show_comparison(page, result)
    if result.url:
        page.next(f"plantml detect PHOTOS --model {result.url} --out records.jsonl")


def _show_comparison(page: Page, result: "Compared") -> None:
    compared = [row for row in result.rows if row.proof is not None]
    if compared and compared[0].proof is not None:
        page.line(f"Compared with the network in torch, on {compared[0].proof.photos} photos of {result.photos}:")
        page.table(
            ("format", "labels", "decisions", "difference", "score", "change", "95 % interval", "MB", ""),
            [_proof_cells(row) for row in result.rows],
        )
    if any(row.speed for row in result.rows):
        page.line(f"Speed, measured alternately; images/s with {result.threads} callers:")
        batches = list(result.rows[0].speed)
        page.table(
            ("format", *(f"{name} at {batch}" for batch in batches for name in ("ms", "images/s", "ratio"))),
            [(row.name, *_speed_cells(row, batches)) for row in result.rows if row.speed],
        )
    for name, why in (result.missing or {}).items():
        page.line(f"{name}: {why}")
    for row in result.rows:
        if "method" in row.settings:
            float_layers = ", ".join(row.settings["in_float"]) or "none"
            page.line(f"{row.name}: ranges by {row.settings['method']}, layers kept in float: {float_layers}")


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
        change.interval if change else None,
        size,
        "refused" if row.refused else "passed",
    )


def _speed_cells(row: "Row", batches: list[int]) -> list[str]:
    return [
        cell
        for batch in batches
        for cell in (f"{row.speed[batch].latency:.1f}", f"{row.speed[batch].rate:.1f}", f"{row.speed[batch].ratio:.2f}")
    ]
