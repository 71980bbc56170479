"""`plantml detect`."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import AllowRoot
from plantml.cli.command import ConfigFile, PrintConfig, Sets, command, show_config
from plantml.cli.console import Console, Page, count
from plantml.errors import FailuresError, UsageError

if TYPE_CHECKING:
    from plantml.detect.config import DetectConfig
    from plantml.detect.results import DetectionResult, Extras
    from plantml.detect.shards import MergeResult
    from plantml.detect.similar import Similar
    from plantml.detect.sources import Sources
    from plantml.model.bundle import Bundle
    from plantml.model.pipeline import Pipeline

EXAMPLES = [
    "plantml detect photos/ --model runs/first --out records.jsonl",
    "plantml detect 'photos/*.jpg' s3://bucket/new/ field.zip --model s3://bucket/runs/first --out records.parquet",
    "find . -name '*.jpg' -print0 | plantml detect - --model leaf.onnx > records.jsonl",
    "plantml detect beans@3 --split test --model runs/first --out test.csv --where 'decision == \"review\"'",
    "plantml detect photos/ --model runs/first --out records.jsonl --annotate drawn/ --sort-into sorted/",
    "plantml detect trays/ --model runs/first --out trays.jsonl --tile 640 --overlap 0.2 --annotate maps/",
    "plantml detect inbox/ --model runs/first --out line.jsonl --watch",
    "plantml detect inbox/ --model s3://bucket/models/leaf@production --out line.jsonl --watch",
    "plantml detect s3://season --model runs/first --shard 2/8 --out part-2.jsonl",
    "plantml detect part-*.jsonl --merge --out records.jsonl",
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "detect", examples=EXAMPLES)(detect)


def detect(
    console: Console,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Files, folders, globs, URLs, lists, tables, datasets, zip or tar archives; - is a list on stdin.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="M", help="Run, bundle, exported file or REGISTRY/NAME@ALIAS.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Output: .jsonl, .csv, .parquet, or - for JSON Lines. [default: -]"),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="F", help="jsonl, csv, parquet, coco, megadetector. [default: by extension]"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of datasets: only this split.")] = None,
    column: Annotated[str | None, typer.Option(metavar="NAME", help="Of tables: the column of paths or URLs.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Of folders and globs: files changed since 24h, 7d, or a date.")
    ] = None,
    allow_root: AllowRoot = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Write only records that fit: 'decision == \"review\"'.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Classes named for each target. [default: 5]")] = None,
    tta: Annotated[
        bool | None, typer.Option("--tta", help="Average over mirrored and turned forms; 4 or 8 times as slow.")
    ] = None,
    tile: Annotated[int | None, typer.Option(metavar="PIXELS", help="Also answer for each tile of this size.")] = None,
    overlap: Annotated[float | None, typer.Option(help="Share that neighbouring tiles share. [default: 0.2]")] = None,
    similar: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Add the nearest photos of a dataset to each record.")
    ] = None,
    neighbours: Annotated[int | None, typer.Option(help="How many of them. [default: 5]")] = None,
    advice: Annotated[
        str | None, typer.Option(metavar="YAML", help="Add texts by target and label; see configs/advice.yaml.")
    ] = None,
    embeddings: Annotated[
        str | None, typer.Option(metavar="URL", help="Write the images' embeddings: .parquet or .npy.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(metavar="PNG", help="Draw a contact sheet of the first answers.")] = None,
    annotate: Annotated[
        str | None, typer.Option(metavar="DIR", help="Draw each photo with its answers, boxes and tiles.")
    ] = None,
    sort_into: Annotated[str | None, typer.Option(metavar="DIR", help="Put photos into a folder a label.")] = None,
    sort_by: Annotated[
        str | None, typer.Option(metavar="TARGET", help="Whose labels. [default: the first class target]")
    ] = None,
    sort_how: Annotated[str | None, typer.Option(metavar="HOW", help="link or copy. [default: link]")] = None,
    max_failures: Annotated[
        str | None,
        typer.Option(metavar="N|N%", help="Failed images that still end with exit code 0. [default: 0]"),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a call of the model. [default: 8, or measured]")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Images worked on at once. [default: all cores, or measured]")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, onnxruntime, torch, openvino. [default: auto]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or as torch names it. [default: cpu]")] = None,
    retry_failed: Annotated[
        bool | None,
        typer.Option("--retry-failed", help="Look again at images that failed in an earlier run."),
    ] = None,
    changed_only: Annotated[
        bool | None, typer.Option("--changed-only", help="Write only what is new since --out was last written.")
    ] = None,
    journal: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the journal is. [default: beside --out]")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier run wrote to --out.")] = False,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Do only part I of N machines'.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="SOURCEs are parts of --shard: put them together.")] = False,
    watch: Annotated[bool | None, typer.Option("--watch", help="Take files as they arrive, until stopped.")] = None,
    interval: Annotated[
        str | None, typer.Option(metavar="TIME", help="Between two looks of --watch: 5s, 1m. [default: 5s]")
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    print_config: PrintConfig = False,
) -> None:
    """Say of every image what it shows.

    One record an image, in the order of the sources; an image that cannot be read gets a record with the
    reason. Killed and repeated, the command goes on where it was; new images are added.
    """
    from plantml import settings
    from plantml.concurrency import Stop
    from plantml.detect import detect as run
    from plantml.detect.config import DetectConfig
    from plantml.detect.sources import check_apart

    flags = {
        "model": model,
        "out": out,
        "format": form,
        "split": split,
        "column": column,
        "since": since,
        "allow_root": allow_root or None,
        "where": where,
        "top_k": top_k,
        "tta": tta,
        "tile": tile,
        "overlap": overlap,
        "similar": similar,
        "neighbours": neighbours,
        "advice": advice,
        "embeddings": embeddings,
        "sheet": sheet,
        "annotate": annotate,
        "sort_into": sort_into,
        "sort_by": sort_by,
        "sort_how": sort_how,
        "max_failures": max_failures,
        "batch": batch,
        "threads": threads,
        "runtime": runtime,
        "device": device,
        "retry_failed": retry_failed,
        "changed_only": changed_only,
        "journal": journal,
        "shard": shard,
        "watch": watch,
        "interval": interval,
    }
    resolved = settings.resolve(DetectConfig, "detect", flags=flags, sets=sets or (), file=config)
    if print_config:
        show_config(console, resolved.lines())
        return
    chosen = resolved.value
    if merge:
        _merge(console, sources, chosen)
        return
    if chosen.model is None:
        raise UsageError("No model is named", "", "Name one: --model RUN")
    if chosen.out == run.STDOUT and console.json:
        raise UsageError("--json and records on stdout do not go together", "", "Name a file: --out records.jsonl")
    pipeline, extras = _open(console, chosen, chosen.model)
    check_apart(sources, (chosen.annotate, chosen.sort_into, chosen.sheet))
    look = partial(_look, console, sources, chosen)
    found = None if chosen.watch else look()
    for note in found.notes if found else ():
        console.say(note)
    pipeline = _tuned(console, pipeline, chosen, 0 if found is None else len(found.photos))
    streams = console.streams
    stdout = streams.json_stdout() if chosen.out == run.STDOUT else streams.stdout
    with Stop() as stop:
        if found is None:
            from plantml.detect.alias_watcher import AliasWatcher
            from plantml.detect.watch import watch as watching

            watcher = AliasWatcher(pipeline.bundle, chosen, partial(_open, console, chosen), console.say)
            done = watching(
                look, pipeline, chosen, stdout=stdout, stop=stop, fresh=fresh, extras=extras,
                say=console.say, new_model=watcher,
            )  # fmt: skip
            _tell(console, done)
            raise stop.error(f"Watching stopped after {count(done.images, 'image')}", "Repeat the command to go on.")
        done = run.detect(
            found,
            pipeline,
            chosen,
            stdout=stdout,
            stop=stop,
            fresh=fresh,
            progress=console.progress("detecting"),
            extras=extras,
        )
        if stop:
            raise stop.error(
                f"Detection stopped after {done.images} of {len(found.photos)} images",
                "Repeat the same command to go on." if done.out != run.STDOUT else "",
            )
    _tell(console, done)
    if done.failed > done.allowed:
        raise FailuresError(
            f"{done.failed} of {done.images} images failed, {done.allowed} were allowed",
            ", ".join(f"{reason} {number}" for reason, number in done.failures.items()),
            "Their records say why; --max-failures allows more.",
        )


def _open(console: Console, chosen: "DetectConfig", model: str) -> "tuple[Pipeline, Extras]":
    """What answers for a model, and what its records hold more."""
    from plantml.detect import detect as run
    from plantml.registry.references import open_model

    bundle, opened = open_model(model, runtime=chosen.runtime, device=chosen.device, cache=console.machine.cache())
    run.check(chosen, bundle)
    threads = chosen.threads or console.machine.threads
    console.detail(f"{opened.name} on {chosen.device}")
    pipeline = run.build_pipeline(bundle, opened, chosen, threads)
    return pipeline, _extras(console, chosen.model_copy(update={"model": model}), bundle)


def _tuned(console: Console, pipeline: "Pipeline", chosen: "DetectConfig", images: int) -> "Pipeline":
    """The pipeline with the fastest threads and batch size."""
    from plantml.model import autotune

    setting = autotune.choose(
        pipeline, console.machine, images, threads=chosen.threads, batch=chosen.batch, device=chosen.device
    )
    console.detail(f"{count(setting.threads, 'thread')}, batches of {setting.batch} ({setting.why})")
    return replace(pipeline, threads=setting.threads, batch=setting.batch)


def _look(console: Console, names: list[str], chosen: "DetectConfig") -> "Sources":
    from plantml.detect.sources import Selection, collect, parse_since
    from plantml.storage.addresses import Trust

    since = None if chosen.since is None else parse_since(chosen.since)
    trust = Trust.of(chosen.allow_root, offline=console.machine.offline)
    selection = Selection(chosen.split, chosen.column, since, trust)
    # A night without new photos is no mistake.
    empty = chosen.watch or chosen.changed_only or since is not None
    return collect(names, console.streams.stdin, selection, may_be_empty=empty)


def _extras(console: Console, chosen: "DetectConfig", bundle: "Bundle") -> "Extras":
    from plantml.detect.results import Extras

    texts = None
    if chosen.advice is not None:
        from plantml.detect import advice

        advice.check_free([target.name for target in bundle.contract.targets])
        texts = advice.read(chosen.advice, bundle.contract)
        if texts.unused:
            console.detail(f"The model does not know {', '.join(texts.unused)} of {chosen.advice}")
    return Extras(None if chosen.similar is None else _similar(console, chosen), texts)


def _similar(console: Console, chosen: "DetectConfig") -> "Similar":
    """The dataset's photos as this model sees them."""
    from plantml.curate import similar
    from plantml.detect.similar import Similar

    progress = console.progress("looking at the dataset")
    known = similar.embed(str(chosen.similar), console.machine, model=chosen.model, progress=progress)
    version = known.version
    names = [target.name for target in version.targets]
    rows = {row["image_id"]: row for row in version.usable().iter_rows(named=True)}
    photos = [
        {
            "name": rows[image_id]["name"],
            "url": version.image_url(rows[image_id]["path"]),
            "labels": {name: rows[image_id][name] for name in names if rows[image_id][name] is not None},
        }
        for image_id in known.ids
    ]
    return Similar(version.ref, photos, known.vectors, chosen.neighbours)


def _merge(console: Console, parts: list[str], chosen: "DetectConfig") -> None:
    from plantml.detect import detect as run
    from plantml.detect import shards
    from plantml.model.records import allowed_failures
    from plantml.registry import references

    if chosen.out == run.STDOUT:
        raise UsageError("--merge needs an output file", "", "Name one: --out records.jsonl")
    contract = None if chosen.model is None else references.find(chosen.model).contract
    done = shards.merge(parts, chosen.out, contract, chosen.format)
    content = {
        "out": done.out,
        "images": done.images,
        "expected": done.expected,
        "missing": dict(done.missing),
        "failures": done.failures,
    }
    console.result("detect", content, lambda page: _show_merged(page, done))
    lacking = done.expected - done.images
    if lacking + done.failures > allowed_failures(chosen.max_failures, done.expected):
        raise FailuresError(
            f"{lacking} of {done.expected} images are missing, {done.failures} failed",
            ", ".join(f"part {part}: {number} missing" for part, number in done.missing.items()),
            "Repeat the commands of the parts that are missing, then merge again.",
        )


def _show_merged(page: Page, done: "MergeResult") -> None:
    page.line(f"{done.out}: {count(done.images, 'record')} of {done.expected}", style="bold")
    for part, number in done.missing.items():
        page.line(f"Missing: {count(number, 'image')} of part {part}")


def _tell(console: Console, done: "DetectionResult") -> None:
    if done.out == "-":
        console.close()
        console.say(f"{count(done.images, 'record')}, {count(done.failed, 'failure')}")
        return
    content = {
        "out": done.out,
        "images": done.images,
        "written": done.written,
        "failures": dict(done.failures),
        "decisions": dict(done.decisions),
        "labels": {name: dict(labels) for name, labels in done.labels.items()},
        "resumed": done.resumed,
        "skipped": dict(done.skipped),
        "annotated": done.annotated,
        "sorted": dict(done.sorted),
        "seconds": round(done.seconds, 2),
        "warnings": list(done.warnings),
    }
    console.result("detect", content, lambda page: _show(page, done))


def _show(page: Page, done: "DetectionResult") -> None:
    new = max(0, done.images - done.resumed)
    rate = f", {new / done.seconds:.3g}/s" if new and done.seconds > 0 else ""
    page.line(f"{done.out}: {count(done.written, 'record')}, {new} new{rate}", style="bold")
    if done.written < done.images:
        page.line(f"Left out by the condition: {count(done.images - done.written, 'record')}")
    for target, labels in done.labels.items():
        page.table((target, "images"), list(labels.items())[:20])
    page.line("Decisions: " + (", ".join(f"{name} {number}" for name, number in done.decisions.items()) or "none"))
    for reason, number in done.failures.items():
        page.line(f"Failed: {count(number, 'image')} ({reason})")
    for reason, number in done.skipped.items():
        page.line(f"Passed over: {count(number, 'file')} ({reason})")
    for warning in done.warnings:
        page.line(f"Warning: {warning}", style="yellow")
    if done.annotated:
        page.line(f"Drawn: {count(done.annotated, 'photo')}")
    for folder, number in done.sorted.items():
        page.line(f"Sorted: {count(number, 'photo')} into {folder}/")
