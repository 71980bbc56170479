"""`plantml detect`: every source gets its record, and a repeat goes on where the last run ended."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, TextIO

from plantml import storage
from plantml.concurrency import Progress, Stop, silent
from plantml.detect import writers
from plantml.detect.config import STDOUT, DetectConfig
from plantml.detect.journal import Journal, Row, pack
from plantml.detect.photo_list import Listing, Source
from plantml.detect.sources import Sources
from plantml.errors import UsageError
from plantml.model.bundle import Bundle
from plantml.model.pipeline import BATCH, Pipeline, Prediction
from plantml.model.records import allowed_failures, failed
from plantml.model.runtimes import Runtime

if TYPE_CHECKING:  # one photo's answer does not wait for what only some options need
    from plantml.detect.advice import Advice
    from plantml.detect.shards import Part
    from plantml.detect.similar import Similar

__all__ = ["STDOUT", "DetectConfig", "Detected", "Extras", "check", "detect", "pipeline_for"]


@dataclass(frozen=True)
class Extras:
    """What records can hold more, ready to be asked."""

    similar: "Similar | None" = None
    advice: "Advice | None" = None


@dataclass(frozen=True)
class Detected:
    """What a detection came to.

    Attributes:
        out: URL of the output.
        images: images that have a record.
        failures: by reason code.
        decisions: records by decision.
        labels: by class target, records by label.
        resumed: records that an earlier run had made.
        skipped: files passed over, by reason.
        seconds: that the new records took.
        allowed: failures that still end well.
        written: records in the output; fewer than `images` where a condition or `changed_only` chose.
        annotated: photos drawn.
        sorted: photos put into each label's folder.
        stopped: true if a signal ended it early; the output is not written then.
    """

    out: str
    images: int
    failures: Mapping[str, int]
    decisions: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    resumed: int
    skipped: Mapping[str, int]
    seconds: float
    allowed: int
    written: int
    annotated: int = 0
    sorted: Mapping[str, int] = field(default_factory=dict)
    stopped: bool = False
    warnings: Sequence[str] = ()

    @property
    def failed(self) -> int:
        """Number of failed images."""
        return sum(self.failures.values())


def pipeline_for(bundle: Bundle, runtime: Runtime, config: DetectConfig, threads: int) -> Pipeline:
    """The pipeline that a configuration asks for."""
    used, batch = runtime, config.batch or BATCH
    if config.tta:
        from plantml.detect.tta import Turned

        used = Turned(runtime)
    if config.tile is None:
        return Pipeline(bundle, used, threads=threads, batch=batch, top_k=config.top_k)
    from plantml.detect.tiles import TiledPipeline, Tiling

    tiling = Tiling(config.tile, config.overlap)
    return TiledPipeline(bundle, used, tiling=tiling, threads=threads, batch=batch, top_k=config.top_k)


def check(config: DetectConfig, bundle: Bundle) -> None:
    """Raise `UsageError` for what makes no sense together, before any image is touched."""
    allowed_failures(config.max_failures, 0)
    if config.out == STDOUT:
        needs = ("sheet", "embeddings", "annotate", "sort_into", "changed_only", "shard", "journal", "retry_failed")
        for name in needs:
            if getattr(config, name):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} needs an output file", "", "Name one: --out records.jsonl")
        if config.format not in {None, "jsonl"}:
            raise UsageError("Standard output takes JSON Lines only", "", "Name a file: --out FILE")
    else:
        writers.writer_of(config.out, config.format)
    if config.shard is not None:
        from plantml.detect.shards import Shard

        Shard.parse(config.shard)
        if writers.writer_of(config.out, config.format) is not writers.FORMATS["jsonl"]:
            raise UsageError("The parts of --shard are JSON Lines", f"{config.out} is not", "--out PART.jsonl")
        if config.where or config.changed_only or config.watch:
            raise UsageError("--shard goes with none of --where, --changed-only and --watch", "a part must be whole")
    if config.watch and (config.changed_only or config.since):
        raise UsageError("--watch goes with neither --changed-only nor --since", "it takes what arrives, once")
    if config.embeddings is not None:
        from plantml.detect import embedding_files

        embedding_files.writer_of(config.embeddings)
    if config.sort_into is not None:
        from plantml.detect import sorting

        sorting.chosen(bundle.contract.targets, config.sort_by)
    if config.where is not None:
        from plantml.detect import record_filters

        record_filters.check(config.where, bundle.contract)


def detect(
    sources: Sources,
    pipeline: Pipeline,
    config: DetectConfig,
    *,
    stdout: TextIO,
    stop: Stop,
    fresh: bool = False,
    progress: Progress = silent,
    extras: Extras | None = None,
) -> Detected:
    """Put every source through the model and write the records.

    To a URL, with a journal beside it: repeating the call goes on. To `-`, as they come, without one.

    Raises:
        UsageError: the configuration makes no sense.
        InputError: the journal belongs to another model or other options.
    """
    check(config, pipeline.bundle)
    work = Detection(pipeline, config, extras or Extras())
    started = time.monotonic()
    if config.out == STDOUT:
        work.print(sources.found, stdout, stop, progress)
        return work.result(sources, 0, time.monotonic() - started, stopped=bool(stop))
    part = _part(sources.found, config.shard) if config.shard else None
    found = part.found if part else sources.found
    journal = work.open_journal(fresh=fresh)
    resumed = work.fill(journal, found, stop, progress)
    seconds = time.monotonic() - started
    if stop:
        work.tally_only(journal, found)
    else:
        work.publish(journal, found, part.placed if part else None)
    return work.result(sources, resumed, seconds, stopped=bool(stop))


class Detection:
    """One detection at work: the steps that a run and a watch are made of.

    Args:
        pipeline: that answers.
        config: what is asked.
        extras: what the records hold more.
    """

    def __init__(self, pipeline: Pipeline, config: DetectConfig, extras: Extras) -> None:
        self._pipeline, self._config, self._extras = pipeline, config, extras
        self._contract = pipeline.bundle.contract
        self._tally = _Tally()
        self._annotated = self._written = 0
        self._sorted: Counter[str] = Counter()
        self._warnings: tuple[str, ...] = ()

    def change_over(self, pipeline: Pipeline, extras: Extras) -> None:
        """Let another model answer from here on."""
        self._pipeline, self._extras, self._contract = pipeline, extras, pipeline.bundle.contract

    def open_journal(self, *, fresh: bool) -> Journal:
        """The journal of the output."""
        asked = _asked(self._pipeline.bundle, self._config, self._extras)
        journal = Journal.open(
            self._config.out,
            asked,
            fresh=fresh,
            retry_failed=self._config.retry_failed,
            place=self._config.journal,
        )
        self._warnings = tuple(journal.damaged)
        return journal

    def print(self, sources: Iterable[Source], stdout: TextIO, stop: Stop, progress: Progress) -> None:
        """Put sources through the model and write the records to a stream as they come."""
        total = len(sources) if isinstance(sources, Sequence) else 0

        def made() -> Iterator[Row]:
            for done, (_, prediction) in enumerate(self._predictions(sources, stop), start=1):
                row = self._finished(Row(self._line(prediction)))
                self._tally.count(row)
                yield row
                progress(done, total)

        for row in self._fitting(made(), at_once=1):
            print(row.record, file=stdout, flush=self._config.watch)
            self._written += 1

    def fill(self, journal: Journal, sources: Listing, stop: Stop, progress: Progress) -> int:
        """Put into the journal what is not there yet; returns how many were there."""
        resumed = sum(source in journal for source in sources)
        todo = (source for source in sources if source not in journal) if resumed else iter(sources)
        keep = self._config.embeddings is not None
        try:
            for done, (source, prediction) in enumerate(self._predictions(todo, stop), start=1):
                journal.add(source, self._line(prediction), pack(prediction.embedding) if keep else b"")
                progress(resumed + done, len(sources))
        finally:
            journal.flush()
        return resumed

    def publish(
        self,
        journal: Journal,
        sources: Iterable[Source],
        placed: Callable[[Iterable[Row]], Iterator[Row]] | None = None,
    ) -> None:
        """Write the output, and all that was asked for beside it, from the journal.

        Args:
            journal: that holds the rows.
            sources: whose rows, in the output's order; gone through several times.
            placed: says of rows where they stand in a whole of several parts.
        """
        config, before = self._config, journal.published
        after = before if config.changed_only else 0
        self._tally, self._written = _Tally(), 0

        def rows(watch: Callable[[Row], None] | None = None) -> Iterator[Row]:
            found = (self._finished(row) for row in journal.rows(sources, after))
            return self._fitting(_watched(found, watch))

        chosen = rows(self._tally.count)
        lines = (row.record for row in (placed(chosen) if placed else chosen))
        writers.write(config.out, self._counted(lines), self._contract, config.format)
        if config.embeddings:
            from plantml.detect import embedding_files

            embedding_files.write(config.embeddings, rows(), self._contract.architecture.embedding)
        if config.sheet:
            from plantml.detect import record_sheet

            storage.write(config.sheet, record_sheet.draw(_records(rows())))
        if config.annotate:
            from plantml.detect import annotate

            undrawn = self._undrawn(rows(), config.annotate, before)
            self._annotated = annotate.write(config.annotate, undrawn, threads=self._pipeline.threads)
        if config.sort_into:
            from plantml.detect import sorting

            targets = self._contract.targets
            self._sorted = sorting.write(
                config.sort_into, _records(rows()), targets, by=config.sort_by, how=config.sort_how
            )
        journal.mark()

    def tally_only(self, journal: Journal, sources: Listing) -> None:
        """Count what is there without writing it."""
        for row in journal.rows(sources):
            self._tally.count(row)

    def result(self, sources: Sources, resumed: int, seconds: float, *, stopped: bool) -> Detected:
        """What it came to."""
        tally = self._tally
        return Detected(
            out=self._config.out,
            images=tally.images,
            failures=dict(tally.failures.most_common()),
            decisions=dict(tally.decisions.most_common()),
            labels={name: dict(labels.most_common()) for name, labels in tally.labels.items()},
            resumed=resumed,
            skipped=dict(sources.skipped),
            seconds=seconds,
            allowed=allowed_failures(self._config.max_failures, tally.images),
            written=self._written,
            annotated=self._annotated,
            sorted=dict(self._sorted),
            stopped=stopped,
            warnings=self._warnings,
        )

    def _line(self, prediction: Prediction) -> str:
        record = prediction.record.as_json() | dict(prediction.more)
        if self._extras.similar is not None:
            vector = prediction.embedding
            record["similar"] = None if vector is None else self._extras.similar.of(vector)
        return writers.line(record)

    def _finished(self, row: Row) -> Row:
        """What is not worth a new look at the photo, as a changed text is, is added late."""
        if self._extras.advice is None:
            return row
        record = json.loads(row.record)
        return replace(row, record=writers.line(record | {"advice": self._extras.advice.of(record)}))

    def _fitting(self, rows: Iterator[Row], at_once: int = 2000) -> Iterator[Row]:
        if self._config.where is None:
            return rows
        from plantml.detect import record_filters

        return record_filters.where(rows, self._config.where, self._contract, at_once=at_once)

    def _counted(self, lines: Iterable[str]) -> Iterator[str]:
        for text in lines:
            self._written += 1
            yield text

    def _undrawn(self, rows: Iterable[Row], folder: str, before: int) -> Iterator[dict[str, Any]]:
        """Records that are new since the output was last written, or whose picture is not there."""
        from plantml.detect import annotate

        for row in rows:
            record = json.loads(row.record)
            if record["failure"] is None and (
                row.segment > before or not storage.exists(storage.join(folder, annotate.file_name(record, ".jpg")))
            ):
                yield record

    def _predictions(self, sources: Iterable[Source], stop: Stop) -> Iterator[tuple[Source, Prediction]]:
        digest = self._pipeline.bundle.digest
        for is_refused, some in groupby(stop.until(sources), lambda source: bool(source.refusal)):
            if is_refused:
                yield from ((each, Prediction(failed(each.url, digest, each.refusal), None, None)) for each in some)
            else:
                yield from self._answered(some)

    def _answered(self, sources: Iterable[Source]) -> Iterator[tuple[Source, Prediction]]:
        under_way: list[Source] = []

        def urls() -> Iterator[str]:
            for source in sources:
                under_way.append(source)
                yield source.url

        for predictions in self._pipeline.run_chunks(urls()):
            yield from zip(under_way, predictions, strict=False)
            del under_way[: len(predictions)]


def _part(whole: Listing, text: str) -> "Part":
    from plantml.detect.shards import Part, Shard

    return Part(whole, Shard.parse(text))


def _asked(bundle: Bundle, config: DetectConfig, extras: Extras) -> dict[str, Any]:
    """What decides the content of the journal: another answer must not be mixed with these."""
    from plantml.detect import alias_watcher

    asked = {"model": bundle.digest, "runtime": config.runtime, "device": config.device, "top_k": config.top_k}
    if alias := alias_watcher.followed(bundle, config):  # its models may change, what they predict may not
        asked |= {"model": alias, "predicts": json.dumps(alias_watcher.shape(bundle, config))}
    if config.tta:
        asked["tta"] = True
    if config.tile is not None:
        asked |= {"tile": config.tile, "overlap": config.overlap}
    if extras.similar is not None:
        asked |= {"similar": extras.similar.ref, "neighbours": config.neighbours}
    if config.embeddings is not None:
        asked["embeddings"] = True
    return asked


def _records(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    return (json.loads(row.record) for row in rows)


def _watched(rows: Iterable[Row], watch: Callable[[Row], None] | None) -> Iterator[Row]:
    for row in rows:
        if watch is not None:
            watch(row)
        yield row


class _Tally:
    """Counts records as they go by."""

    def __init__(self) -> None:
        self.images = 0
        self.failures: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.labels: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def count(self, row: Row) -> None:
        record = json.loads(row.record)
        self.images += 1
        if record["failure"] is not None:
            self.failures[record["failure"].split(":")[0]] += 1
            return
        self.decisions[record["decision"]] += 1
        for name, answer in record["targets"].items():
            if "label" in answer:
                self.labels[name][answer["label"]] += 1
