"""`plantml detect`: write one record per image. A repeated command resumes where the last run ended."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TextIO

from plantml import storage
from plantml.concurrency import Progress, Stop, silent
from plantml.detect import outputs
from plantml.detect.config import STDOUT, DetectConfig
from plantml.detect.journal import Journal
from plantml.detect.options import check, journal_options
from plantml.detect.output_row import OutputRow, to_line
from plantml.detect.outputs import Published
from plantml.detect.photo_list import PhotoList, Source
from plantml.detect.results import DetectionResult, Extras, Tally
from plantml.detect.sources import Sources
from plantml.errors import InputError
from plantml.model import tiled_pipeline
from plantml.model.bundle import Bundle
from plantml.model.covariates import CovariateCounter, CovariateRow
from plantml.model.pipeline import BATCH, Pipeline, Prediction
from plantml.model.records import allowed_failures, failed
from plantml.model.runtimes import Runtime
from plantml.storage.segments import pack

if TYPE_CHECKING:
    from plantml.detect.shards import Part

__all__ = ["STDOUT", "DetectConfig", "Detection", "build_pipeline", "check", "detect", "summarize"]


def build_pipeline(bundle: Bundle, runtime: Runtime, config: DetectConfig, threads: int) -> Pipeline:
    """The pipeline for a configuration."""
    if config.tta:
        from plantml.detect.tta import AveragedRuntime

        runtime = AveragedRuntime(runtime)
    return tiled_pipeline.build_pipeline(
        bundle,
        runtime,
        tile=config.tile,
        overlap=config.overlap,
        threads=threads,
        batch=config.batch or BATCH,
        top_k=config.top_k,
    )


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
    fill: "Fill | None" = None,
) -> DetectionResult:
    """Process every source and write the records.

    With a URL as output, a journal beside it lets a repeated call resume. With `-`, records are printed as they come.
    `fill` processes what the journal lacks; by default this process does (`Detection.fill`).

    Raises:
        UsageError: options contradict each other.
        InputError: the journal belongs to another model or other options.
    """
    check(config, pipeline.bundle)
    detection = Detection(pipeline, config, extras or Extras())
    started = time.monotonic()
    covariates = CovariateCounter(pipeline.bundle.contract.covariates or ())
    if config.out == STDOUT:
        tally = Tally()
        written = detection.print(sources.photos, stdout, stop, progress, tally)
        seconds = time.monotonic() - started
        covariates.add_all(source.covariate_row for source in sources.photos)
        return summarize(config, Published(tally, written), sources, covariates, seconds=seconds)
    part = _part(sources.photos, config.shard) if config.shard else None
    photos = part.photos if part else sources.photos
    journal = detection.open_journal(fresh=fresh)
    resumed = (fill or Detection.fill)(detection, journal, photos, stop, progress)
    seconds = time.monotonic() - started
    published = Published(count(journal, photos)) if stop else detection.publish(journal, photos, part)
    covariates.add_all(source.covariate_row for source in photos)
    return summarize(config, published, sources, covariates, seconds=seconds, resumed=resumed, warnings=journal.damaged)


def _part(photos: PhotoList, shard: str) -> "Part":
    from plantml.detect.shards import Part, Shard

    return Part(photos, Shard.parse(shard))


@dataclass(frozen=True)
class Detection:
    """The steps of a detection, shared by a single run and a watch.

    Attributes:
        pipeline: the model.
        config: the options.
        extras: optional content of the records.
    """

    pipeline: Pipeline
    config: DetectConfig
    extras: Extras

    def open_journal(self, *, fresh: bool) -> Journal:
        """The journal of the output. Raises `InputError` if the output exists and no journal tells who wrote it."""
        out = self.config.out
        if not fresh and storage.exists(out) and not storage.is_dir(self.config.journal or f"{out}.journal"):
            raise InputError(
                f"{out} exists, and no detection is known to have written it",
                "it has no journal",
                "Choose another --out; or replace the file: --fresh",
            )
        return Journal(
            self.config.out,
            journal_options(self.pipeline.bundle, self.config, self.extras),
            fresh=fresh,
            retry_failed=self.config.retry_failed,
            location=self.config.journal,
        )

    def print(self, sources: Iterable[Source], stdout: TextIO, stop: Stop, progress: Progress, tally: Tally) -> int:
        """Process sources, print the records as they come, and count them; returns how many were printed."""
        total = len(sources) if isinstance(sources, Sequence) else 0

        def rows() -> Iterator[OutputRow]:
            for done, (_, prediction) in enumerate(self._predict(sources, stop), start=1):
                yield outputs.with_advice(OutputRow(self._record(prediction)), self.extras.advice)
                progress(done, total)

        written = 0
        contract = self.pipeline.bundle.contract
        for row in outputs.matching(outputs.counted(rows(), tally), self.config, contract, at_once=1):
            print(row.as_line(), file=stdout, flush=self.config.watch)
            written += 1
        return written

    def fill(self, journal: Journal, sources: PhotoList, stop: Stop, progress: Progress) -> int:
        """Process the sources that the journal lacks; returns how many it had."""
        resumed = sum(source in journal for source in sources)
        todo = (source for source in sources if source not in journal) if resumed else iter(sources)
        try:
            for done, row in enumerate(self.rows(todo, stop), start=1):
                journal.add(*row)
                progress(resumed + done, len(sources))
        finally:
            journal.flush()
        return resumed

    def rows(self, sources: Iterable[Source], stop: Stop) -> Iterator[tuple[Source, str, str]]:
        """Process sources: each with its record as a line of JSON and its packed embedding, as a journal takes them."""
        has_embeddings = self.config.embeddings is not None
        for source, prediction in self._predict(sources, stop):
            vector = prediction.embedding if has_embeddings else None
            yield source, to_line(self._record(prediction)), "" if vector is None else pack(vector, "<f2")

    def publish(self, journal: Journal, sources: Iterable[Source], part: "Part | None" = None) -> Published:
        """Write every requested output from the journal."""
        return outputs.publish(
            journal,
            sources,
            self.config,
            self.pipeline.bundle.contract,
            advice=self.extras.advice,
            part=part,
            threads=self.pipeline.threads,
        )

    def _record(self, prediction: Prediction) -> dict[str, Any]:
        record = prediction.record.as_json() | dict(prediction.more)
        if self.extras.similar is not None:
            embedding = prediction.embedding
            record["similar"] = None if embedding is None else self.extras.similar.of(embedding)
        return record

    def _predict(self, sources: Iterable[Source], stop: Stop) -> Iterator[tuple[Source, Prediction]]:
        bundle = self.pipeline.bundle
        for is_refused, group in groupby(stop.until(sources), lambda source: bool(source.refusal)):
            if is_refused:
                for each in group:
                    record = failed(each.url, bundle.digest, each.refusal, form=bundle.form_note)
                    yield each, Prediction(record, None, None)
            else:
                yield from self._predict_readable(group)

    def _predict_readable(self, sources: Iterable[Source]) -> Iterator[tuple[Source, Prediction]]:
        under_way: list[Source] = []

        def photos() -> Iterator[tuple[str, CovariateRow | None]]:
            for source in sources:
                under_way.append(source)
                yield source.url, source.covariate_row

        for predictions in self.pipeline.run_chunks(photos()):
            yield from zip(under_way, predictions, strict=False)
            del under_way[: len(predictions)]


Fill = Callable[[Detection, Journal, PhotoList, Stop, Progress], int]
"""Processes the sources that the journal lacks, as `Detection.fill` does."""


def count(journal: Journal, sources: Iterable[Source]) -> Tally:
    """Counts of the records in the journal, without writing them."""
    tally = Tally()
    for row in journal.rows(sources):
        tally.add(OutputRow.parse(row).record)
    return tally


def summarize(
    config: DetectConfig,
    published: Published,
    sources: Sources,
    covariates: CovariateCounter,
    *,
    seconds: float,
    resumed: int = 0,
    warnings: Sequence[str] = (),
) -> DetectionResult:
    """The result of a detection."""
    tally = published.tally
    return DetectionResult(
        out=config.out,
        images=tally.images,
        failures=dict(tally.failures.most_common()),
        decisions=dict(tally.decisions.most_common()),
        labels={name: dict(labels.most_common()) for name, labels in tally.labels.items()},
        boxes=tally.boxes,
        resumed=resumed,
        skipped=dict(sources.skipped),
        seconds=seconds,
        allowed=allowed_failures(config.max_failures, tally.images),
        written=published.written,
        annotated=published.annotated,
        sorted=dict(published.sorted),
        warnings=(*warnings, *covariates.warnings()),
        covariates=covariates.as_json(),
    )
