"""`plantml export`."""

from typing import Annotated

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, Page

EXAMPLES = [
    "plantml export runs/first --to leaf.onnx",
    "plantml export runs/first --to s3://bucket/models/leaf.onnx --data leaves --samples 200",
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "export", examples=EXAMPLES)(export)


def export(
    console: Console,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A run or a bundle.")],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The .onnx file to write, or a folder for it.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Photos to compare on; the model's own dataset if not given."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset to compare on.")] = "test",
    samples: Annotated[int, typer.Option(min=1, help="Photos to compare at most.")] = 500,
) -> None:
    """Write a model as one ONNX file, proven equal.

    The file needs onnxruntime and nothing of ours. It is compared with the network on real photos first. If
    it does not give the same answers, nothing is written and the exit code is 4.
    """
    from plantml.cli.extras import need_train

    need_train()
    from plantml.export import run

    done = run.export(
        bundle,
        to,
        data=data,
        split=split,
        samples=samples,
        cache=console.machine.cache(),
        progress=console.progress("comparing"),
    )
    content = {
        "url": done.url,
        "format": done.format,
        "model": done.model,
        "bytes": done.size,
        "photos": done.proof.photos,
        "agreement": done.proof.agreement,
        "difference": done.proof.difference,
        "compared_on": done.photos,
    }

    def show(page: Page) -> None:
        page.line(f"Wrote {done.url}, {done.size / 1e6:.1f} MB, model {done.model[:12]}", style="bold")
        page.line(
            f"Compared on {done.proof.photos} photos of {done.photos}: {done.proof.agreement:.0%} the same labels,"
            f" scores differ by {done.proof.difference:.1e} at most"
        )
        page.line(f"Next: plantml detect PHOTOS --model {done.url} --out records.jsonl")

    console.result("export", content, show)
