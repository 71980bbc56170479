"""`plantml detect`."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, Page, as_json, count
from plantml.concurrency import Progress
from plantml.detect.config import STDOUT, DetectConfig
from plantml.errors import FailuresError, UsageError
from plantml.loading import without_collection
from plantml.settings import Machine, Resolved

if TYPE_CHECKING:
    from plantml.detect.detect import Fill
    from plantml.detect.results import DetectionResult
    from plantml.detect.session import Session
    from plantml.detect.shards import MergeResult
    from plantml.detect.similar import Similar

_CLASSES = 20
"""Classes of a target in the summary."""


@command(
    "plantml detect photos/ --model runs/first --out records.jsonl",
    "plantml detect 'photos/*.jpg' s3://bucket/new/ field.zip --model s3://bucket/runs/first --out records.parquet",
    "find . -name '*.jpg' -print0 | plantml detect - --model leaf.onnx > records.jsonl",
    "plantml detect beans@3 --split test --model runs/first --out test.csv --where 'decision == \"review\"'",
    "plantml detect photos/ --model runs/first --out records.jsonl --annotate drawn/ --sort-into sorted/",
    "plantml detect trays/ --model runs/first --out trays.jsonl --tile 640 --overlap 0.2 --annotate maps/",
    "plantml detect trays/ --model runs/trays --out boxes.csv --rows boxes --where 'count(\"missing\") > 3'",
    "plantml detect inbox/ --model s3://bucket/models/leaf@production --out line.jsonl --watch",
    "plantml detect s3://season --model s3://models/june --out s3://results/season.jsonl --on ray",
    "plantml detect s3://season --model runs/first --shard 2/8 --out part-2.jsonl",
    "plantml detect part-*.jsonl --merge --out records.jsonl",
    config=DetectConfig,
)
def detect(
    console: Console,
    resolved: Resolved[DetectConfig],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Files, folders, globs, URLs, lists, tables, datasets, zip or tar archives; - reads a list on stdin.",
        ),
    ],
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore the results of earlier runs.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Join the outputs of --shard, given as SOURCE.")] = False,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the Kubernetes Job of --on k8s:N without processing anything.")
    ] = False,
) -> None:
    """Classify images and find plants, one record per image.

    Records are in the order of the sources. An image that cannot be read gets a record with the reason. Repeat an
    interrupted command to resume it; new images are added.
    """
    with without_collection():
        from plantml.detect.session import Session

    config = resolved.value
    if merge:
        _merge(console, sources, config)
        return
    to_stdout = config.out == STDOUT
    if to_stdout and console.json:
        raise UsageError("--json cannot be used with records on stdout", "", "Choose a file: --out records.jsonl")
    session = Session(
        sources, config, console.machine, _find_similar, console.listener,
        stdin=console.streams.stdin, stdout=console.streams.json_stdout() if to_stdout else console.streams.stdout,
        fill=None if config.engine is None or print_ else _filler(console, config, config.engine),
    )  # fmt: skip
    if print_:
        _print_manifest(console, session, config, fresh=fresh)
        return
    result, error = session.run(fresh=fresh)
    if to_stdout:
        console.close()
        console.say(f"{count(result.images, 'record')}, {count(result.failed, 'failure')}")
        for warning in result.warnings:
            console.warn(warning)
    else:
        unused = () if result.covariates else ("covariates",)
        content = as_json(result, "allowed", *unused) | {"seconds": round(result.seconds, 2)}
        console.result(content, lambda page: _show(page, result))
    if error is not None:
        raise error


def _print_manifest(console: Console, session: "Session", config: DetectConfig, *, fresh: bool) -> None:
    from plantml.engines import detection, opening
    from plantml.parsing import dump_yaml

    pods = opening.open_pods(config.engine or "", config.threads)
    job, manifest = detection.manifest(session, pods, console.machine, fresh=fresh)
    print(dump_yaml(manifest), end="", file=console.streams.stdout)
    console.say(f"{count(len(job.sizes), 'part')}. When the Job is complete, repeat the command without --on.")


def _filler(console: Console, config: DetectConfig, name: str) -> "Fill":
    from plantml.engines import detection, opening

    engine = opening.open_engine(name, console.machine, config.threads)
    return detection.filler(engine, console.machine, console.listener)


def _find_similar(config: DetectConfig, machine: Machine, progress: Progress) -> "Similar":
    from plantml.curate import similar  # loads polars

    return similar.for_detection(config, machine, progress)


def _merge(console: Console, shards: list[str], config: DetectConfig) -> None:
    from plantml.detect import options
    from plantml.detect import shards as library
    from plantml.model.records import allowed_failures
    from plantml.registry import references

    if config.out == STDOUT:
        raise UsageError("--merge needs an output file", "", "Choose one: --out records.jsonl")
    contract = None if config.model is None else references.find(config.model).contract
    if contract is not None:
        options.check_output(config, contract)
    merged = library.merge(shards, config.out, contract, config.format, config.rows)
    console.result(as_json(merged), lambda page: _show_merged(page, merged))
    lacking = merged.expected - merged.images
    if lacking + merged.failures > allowed_failures(config.max_failures, merged.expected):
        raise FailuresError(
            f"{lacking} of {merged.expected} images are missing, {merged.failures} failed",
            ", ".join(f"shard {shard}: {number} missing" for shard, number in merged.missing.items()),
            "Repeat the commands of the missing shards, then merge again.",
        )


def _show_merged(page: Page, merged: "MergeResult") -> None:
    page.line(f"{merged.out}: {count(merged.images, 'record')} of {merged.expected}", style="bold")
    for shard, number in merged.missing.items():
        page.line(f"Missing: {count(number, 'image')} of shard {shard}")


def boxes_line(result: "DetectionResult", boxes: int) -> str:
    """`48 boxes in 2 photos: 41 viable, 5 weak, 2 missing`, with the classes of further targets after semicolons."""
    parts = []
    for labels in result.labels.values():
        names = [f"{number} {name}" for name, number in labels.items()]
        rest = [f"{len(names) - _CLASSES} more classes"] if len(names) > _CLASSES else []
        parts.append(", ".join(names[:_CLASSES] + rest))
    text = f"{count(boxes, 'box', 'boxes')} in {count(result.images - result.failed, 'photo')}"
    return f"{text}: {'; '.join(parts)}" if boxes and parts else text


def _show(page: Page, result: "DetectionResult") -> None:
    new = max(0, result.images - result.resumed)
    rate = f", {new / result.seconds:.3g}/s" if new and result.seconds > 0 else ""
    page.line(f"{result.out}: {count(result.written, 'record')}, {new} new{rate}", style="bold")
    if result.written < result.images:
        page.line(f"Filtered out: {count(result.images - result.written, 'record')}")
    if result.boxes is not None:
        page.line(boxes_line(result, result.boxes))
    else:
        for target, labels in result.labels.items():
            page.table((target, "images"), list(labels.items())[:_CLASSES])
    page.line("Decisions: " + (", ".join(f"{name} {number}" for name, number in result.decisions.items()) or "none"))
    for name, coverage in result.covariates.items():
        page.line(f"Covariate {name}: known for {count(coverage['known'], 'photo')}")
    for reason, number in result.failures.items():
        page.line(f"Failed: {count(number, 'image')} ({reason})")
    for reason, number in result.skipped.items():
        page.line(f"Skipped: {count(number, 'file')} ({reason})")
    for warning in result.warnings:
        page.line(f"Warning: {warning}", style="yellow")
    if result.annotated:
        page.line(f"Drawn: {count(result.annotated, 'photo')}")
    for folder, number in result.sorted.items():
        page.line(f"Sorted: {count(number, 'photo')} into {folder}/")
