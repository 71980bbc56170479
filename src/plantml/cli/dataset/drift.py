"""`plantml dataset drift`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import MAX_SEED, Embedding, Html
from plantml.cli.command import command
from plantml.cli.console import Console, Page
from plantml.errors import GateError

if TYPE_CHECKING:
    from plantml.drift.drift import Drift

_SHOWN = 12


@command(
    "plantml dataset drift leaves@3 leaves-of-july --picture drift.png",
    "plantml dataset drift leaves@3 records.jsonl --split train --html drift.html",
    "plantml dataset drift leaves@3 records.jsonl --model runs/june --embeddings-b vectors.parquet",
    "plantml dataset drift june.jsonl july.jsonl --max-psi 0.2   # exit code 4, for cron",
)
def drift(
    console: Console,
    before: Annotated[
        str, typer.Argument(metavar="A", help="Training photos: a dataset, or records of detect (.jsonl, .parquet).")
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="New photos: a dataset or records.")],
    split: Annotated[str | None, typer.Option(help="Use only this split of A. [default: all usable photos]")] = None,
    model: Embedding = None,
    embeddings_a: Annotated[
        str | None, typer.Option(metavar="FILE", help="Embeddings of A, written by detect --embeddings (.parquet).")
    ] = None,
    embeddings_b: Annotated[str | None, typer.Option(metavar="FILE", help="Embeddings of B.")] = None,
    skip_embeddings: Annotated[
        bool, typer.Option("--skip-embeddings", help="Compare only labels, scores and quality.")
    ] = False,
    max_psi: Annotated[
        float | None,
        typer.Option(
            min=0, help="Gate: exit code 4 if a significant stability index exceeds this; 0.1 is a small change."
        ),
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Gate: exit code 4 if the p-value of the embeddings is lower.")
    ] = None,
    picture: Annotated[str | None, typer.Option(metavar="FILE", help="Draw a chart, as PNG.")] = None,
    html: Html = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed of the two-sample test.")] = 0,
) -> None:
    """Compare new photos with the training photos.

    Computes the population stability index of every label, score and quality measure, and a kernel two-sample test on
    embeddings. Photos of one group are not treated as independent.
    """
    from plantml import storage
    from plantml.drift import drift as library
    from plantml.drift import report as pages

    storage.check_output(picture, html)
    options = library.Options(split, model, not skip_embeddings, (embeddings_a, embeddings_b), max_psi, min_p, seed)
    result = library.drift(before, after, options, console.machine, console.progress)
    if picture:
        storage.write(picture, pages.picture(result))
    if html:
        storage.write(html, pages.page(result))
    content = library.as_json(result) | {"picture": picture, "html": html}
    console.result(content, lambda page: _show(page, result, [picture, html]))
    if not result.passed:
        failed = [gate.evidence for gate in result.gates if not gate.passed]
        raise GateError(
            f"{after} differs from {before}",
            "; ".join(failed),
            "Inspect it with --html FILE, and label some of the new photos.",
        )


def _show(page: Page, result: "Drift", written: "list[str | None]") -> None:
    page.line(f"{result.after} ({result.photos[1]} photos) against {result.before} ({result.photos[0]})", style="bold")
    rows = [
        [each.name, each.index.psi, "too few" if each.index.p is None else f"{each.index.p:.2g}", each.verdict]
        for each in result.columns
    ]
    page.table(("column", "PSI", "p", "change"), rows[:_SHOWN])
    if len(rows) > _SHOWN:
        page.line(f"… and {len(rows) - _SHOWN} more; --json lists all")
    test = result.embeddings
    if test is not None:
        detail = f"p {test.p:.3g} by {len(test.null)} permutations of {sum(test.groups)} groups"
        page.line(f"Embeddings: MMD² {test.mmd2:.5f}, {detail}")
    for name, why in result.not_compared.items():
        page.line(f"Not compared: {name} ({why})")
    for gate in result.gates:
        page.line(f"{'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.evidence}")
    for file in written:
        if file:
            page.line(f"Wrote {file}")
