"""`plantml detect`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.command import ConfigFile, PrintConfig, Sets, command, show_config
from plantml.cli.console import Console, Page, count
from plantml.errors import FailuresError, UsageError

if TYPE_CHECKING:
    from plantml.detect.run import Detected

EXAMPLES = [
    "plantml detect photos/ --model runs/first --out records.jsonl",
    "plantml detect 'photos/*.jpg' s3://bucket/new/ --model s3://bucket/runs/first --out s3://bucket/records.parquet",
    "find . -name '*.jpg' -print0 | plantml detect - --model leaf.onnx > records.jsonl",
    "plantml detect photos/ --model runs/first --out records.csv --sheet sheet.png --max-failures 1%",
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "detect", examples=EXAMPLES)(detect)


def detect(
    console: Console,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Files, folders, globs, URLs, .txt lists, or - for a list on stdin."),
    ],
    model: Annotated[str | None, typer.Option(metavar="M", help="Run, bundle or .onnx file.")] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Output: .jsonl, .csv, .parquet, or - for JSON Lines. [default: -]"),
    ] = None,
    sheet: Annotated[str | None, typer.Option(metavar="PNG", help="Draw a contact sheet of the first answers.")] = None,
    max_failures: Annotated[
        str | None,
        typer.Option(metavar="N|N%", help="Failed images that still end with exit code 0. [default: 0]"),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Classes named for each target. [default: 5]")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a call of the model. [default: 8]")] = None,
    threads: Annotated[int | None, typer.Option(help="Images worked on at once. [default: all cores]")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, onnxruntime or torch. [default: auto]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or as torch names it. [default: cpu]")] = None,
    retry_failed: Annotated[
        bool | None,
        typer.Option("--retry-failed", help="Look again at images that failed in an earlier run."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier run wrote to --out.")] = False,
    config: ConfigFile = None,
    sets: Sets = None,
    print_config: PrintConfig = False,
) -> None:
    """Say of every image what it shows.

    One record an image, in the order of the sources; an image that cannot be read gets a record with the
    reason. Killed and repeated, the command goes on where it was; new images are added.
    """
    from plantml import settings
    from plantml.detect import run
    from plantml.detect.run import DetectConfig
    from plantml.detect.sources import collect
    from plantml.predict.pipeline import Pipeline
    from plantml.runtime import open_model
    from plantml.work import Stop

    flags = {
        "model": model,
        "out": out,
        "sheet": sheet,
        "max_failures": max_failures,
        "top_k": top_k,
        "batch": batch,
        "threads": threads,
        "runtime": runtime,
        "device": device,
        "retry_failed": retry_failed,
    }
    resolved = settings.resolve(DetectConfig, "detect", flags=flags, sets=sets or (), file=config)
    if print_config:
        show_config(console, resolved.lines())
        return
    chosen = resolved.value
    if chosen.model is None:
        raise UsageError("No model is named", "", "Name one: --model RUN")
    if chosen.out == run.STDOUT and console.json:
        raise UsageError("--json and records on stdout do not go together", "", "Name a file: --out records.jsonl")
    if chosen.out == run.STDOUT and chosen.sheet:
        raise UsageError("--sheet needs an output file", "", "Name one: --out records.jsonl")
    found = collect(sources, console.streams.stdin)
    bundle, opened = open_model(
        chosen.model, runtime=chosen.runtime, device=chosen.device, cache=console.machine.cache()
    )
    threads_used = chosen.threads or console.machine.threads
    console.detail(f"{opened.name} on {chosen.device}, {threads_used} threads, batches of {chosen.batch}")
    pipeline = Pipeline(bundle, opened, threads=threads_used, batch=chosen.batch, top_k=chosen.top_k)
    with Stop() as stop:
        done = run.detect(
            found,
            pipeline,
            chosen,
            stdout=console.streams.stdout,
            stop=stop,
            fresh=fresh,
            progress=console.progress("detecting"),
        )
        if stop:
            raise stop.error(
                f"Detection stopped after {done.images} of {len(found.found)} images",
                "Repeat the same command to go on." if done.out != run.STDOUT else "",
            )
    _tell(console, done)
    if done.failed > done.allowed:
        raise FailuresError(
            f"{done.failed} of {done.images} images failed, {done.allowed} were allowed",
            ", ".join(f"{reason} {number}" for reason, number in done.failures.items()),
            "Their records say why; --max-failures allows more.",
        )


def _tell(console: Console, done: "Detected") -> None:
    if done.out == "-":
        console.close()
        console.say(f"{count(done.images, 'record')}, {count(done.failed, 'failure')}")
        return
    content = {
        "out": done.out,
        "images": done.images,
        "failures": dict(done.failures),
        "decisions": dict(done.decisions),
        "labels": {name: dict(labels) for name, labels in done.labels.items()},
        "resumed": done.resumed,
        "skipped": dict(done.skipped),
        "seconds": round(done.seconds, 2),
    }
    console.result("detect", content, lambda page: _show(page, done))


def _show(page: Page, done: "Detected") -> None:
    new = done.images - done.resumed
    rate = f", {new / done.seconds:.3g}/s" if new and done.seconds > 0 else ""
    page.line(f"{done.out}: {count(done.images, 'record')}, {new} new{rate}", style="bold")
    for target, labels in done.labels.items():
        page.table((target, "images"), list(labels.items())[:20])
    page.line("Decisions: " + (", ".join(f"{name} {number}" for name, number in done.decisions.items()) or "none"))
    for reason, number in done.failures.items():
        page.line(f"Failed: {count(number, 'image')} ({reason})")
    for reason, number in done.skipped.items():
        page.line(f"Passed over: {count(number, 'file')} ({reason})")
