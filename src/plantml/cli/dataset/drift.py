"""`plantml dataset drift`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import MAX_SEED, Embedding
from plantml.cli.console import Console, Page
from plantml.errors import GateError

if TYPE_CHECKING:
    from plantml.drift.drift import Drift

DRIFT_EXAMPLES = [
    "plantml dataset drift leaves@3 leaves-of-july --picture drift.png",
    "plantml dataset drift leaves@3 records.jsonl --split train --html drift.html",
    "plantml dataset drift leaves@3 records.jsonl --model runs/june --embeddings-b vectors.parquet",
    "plantml dataset drift june.jsonl july.jsonl --max-psi 0.2   # exit code 4, for cron",
]

_SHOWN = 12


def drift(
    console: Console,
    before: Annotated[
        str,
        typer.Argument(metavar="A", help="What was trained on: a dataset, or records of detect (.jsonl, .parquet)."),
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="What comes in: the same.")],
    split: Annotated[str | None, typer.Option(help="Only this split of A; all usable photos if not given.")] = None,
    model: Embedding = None,
    embeddings_a: Annotated[
        str | None, typer.Option(metavar="FILE", help="Embeddings of A, as detect --embeddings writes them (.parquet).")
    ] = None,
    embeddings_b: Annotated[str | None, typer.Option(metavar="FILE", help="Embeddings of B.")] = None,
    skip_embeddings: Annotated[
        bool, typer.Option("--skip-embeddings", help="Compare labels, scores and quality only.")
    ] = False,
    max_psi: Annotated[
        float | None,
        typer.Option(min=0, help="Gate: exit code 4 if an index is larger, and not by chance. 0.1 is a small change."),
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Gate: exit code 4 if the embeddings' p-value is smaller.")
    ] = None,
    picture: Annotated[str | None, typer.Option(metavar="FILE", help="Draw it, as PNG.")] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write it as one HTML page.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the test's draws and permutations.")] = 0,
) -> None:
    """Compare what comes in with what was trained on.

    The population stability index of every label, score and measure of quality, and a kernel two-sample test on
    embeddings. Photos of one group count as what they are: not independent. Changes nothing.
    """
    from plantml import storage
    from plantml.drift import drift as run
    from plantml.drift import report as pages

    asked = run.Options(split, model, not skip_embeddings, (embeddings_a, embeddings_b), max_psi, min_p, seed)
    found = run.drift(before, after, asked, console.machine, console.progress)
    if picture:
        storage.write(picture, pages.picture(found))
    if html:
        storage.write(html, pages.page(found))
    content = run.as_json(found) | {"picture": picture, "html": html}
    console.result("dataset drift", content, lambda page: _show(page, found, [picture, html]))
    if not found.passed:
        failed = [gate.evidence for gate in found.gates if not gate.passed]
        raise GateError(
            f"{after} is unlike {before}",
            "; ".join(failed),
            "Look at it with --html FILE, and label some of the new photos.",
        )


def _show(page: Page, found: "Drift", written: "list[str | None]") -> None:
    page.line(f"{found.after} ({found.photos[1]} photos) against {found.before} ({found.photos[0]})", style="bold")
    rows = [[column.name, column.index.psi, _chance(column.index.p), column.verdict] for column in found.columns]
    page.table(("column", "PSI", "p", "change"), rows[:_SHOWN])
    if len(rows) > _SHOWN:
        page.line(f"… and {len(rows) - _SHOWN} more; --json has them all")
    test = found.embeddings
    if test is not None:
        said = f"p {test.p:.3g} by {len(test.null)} permutations of {sum(test.groups)} groups"
        page.line(f"Embeddings: MMD² {test.mmd2:.5f}, {said}")
    for name, why in found.not_compared.items():
        page.line(f"Not compared: {name} ({why})")
    for gate in found.gates:
        page.line(f"{'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.evidence}")
    for file in written:
        if file:
            page.line(f"Wrote {file}")


def _chance(p: float | None) -> str:
    return "too few" if p is None else f"{p:.2g}"
