"""`plantml detect`: every source gets its record, and a repeat goes on where the last run ended."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from pydantic import Field

from plantml import storage
from plantml.bundle import Bundle
from plantml.detect import sheet, writers
from plantml.detect.journal import Journal
from plantml.detect.sources import Source, Sources
from plantml.predict.pipeline import Pipeline, Prediction
from plantml.predict.records import allowed_failures
from plantml.settings import Config
from plantml.work import Progress, Stop, silent

STDOUT = "-"


class DetectConfig(Config):
    """What can be set for `plantml detect`."""

    model: str | None = Field(None, description="run, bundle or .onnx file to use")
    out: str = Field(STDOUT, description="URL of the output (.jsonl, .csv, .parquet), or - for JSON Lines on stdout")
    runtime: str = Field("auto", description="auto, onnxruntime or torch")
    device: str = Field("cpu", description="cpu, or a device as torch names it")
    batch: int = Field(8, ge=1, le=1024, description="images a call of the model")
    threads: int | None = Field(None, ge=1, description="images worked on at once; all usable cores if not set")
    top_k: int = Field(5, ge=1, description="classes named for each class target, best first")
    max_failures: int | str = Field("0", description="failed images that still end well: a number, or a share like 2%")
    sheet: str | None = Field(None, description="PNG of a contact sheet of the first images and their answers")
    retry_failed: bool = Field(default=False, description="look again at images that failed in an earlier run")


@dataclass(frozen=True)
class Detected:
    """What a detection came to.

    Attributes:
        out: URL of the output.
        images: records written.
        failures: by reason code.
        decisions: records by decision.
        labels: by class target, records by label.
        resumed: records that an earlier run had made.
        skipped: files passed over, by reason.
        seconds: that the new records took.
        allowed: failures that still end well.
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
    stopped: bool = False

    @property
    def failed(self) -> int:
        """Number of failed images."""
        return sum(self.failures.values())


def detect(
    sources: Sources,
    pipeline: Pipeline,
    config: DetectConfig,
    *,
    stdout: TextIO,
    stop: Stop,
    fresh: bool = False,
    progress: Progress = silent,
) -> Detected:
    """Put every source through the model and write the records.

    To a URL, with a journal beside it: repeating the call goes on. To `-`, as they come, without one.

    Raises:
        UsageError: the output has no known format, or `max_failures` is no number.
        InputError: the journal belongs to another model or other options.
    """
    allowed_failures(config.max_failures, 0)
    tally = _Tally()
    started = time.monotonic()
    if config.out == STDOUT:
        for done, (_, prediction) in enumerate(_predictions(sources.found, pipeline, stop), start=1):
            text = writers.line(prediction.record.as_json())
            print(text, file=stdout)
            tally.count(json.loads(text))
            progress(done, len(sources.found))
        resumed = 0
    else:
        writers.writer_of(config.out)
        journal = Journal.open(
            config.out, _asked(pipeline.bundle, config), fresh=fresh, retry_failed=config.retry_failed
        )
        resumed = _work(sources.found, pipeline, journal, stop, progress)
        if not stop:
            writers.write(config.out, journal.lines(sources.found), pipeline.bundle.contract)
        for text in journal.lines(sources.found):
            tally.count(json.loads(text))
        if config.sheet and not stop:
            records = (json.loads(text) for text in journal.lines(sources.found))
            storage.write(config.sheet, sheet.draw(records))
    return Detected(
        config.out,
        tally.images,
        dict(tally.failures.most_common()),
        dict(tally.decisions.most_common()),
        {name: dict(labels.most_common()) for name, labels in tally.labels.items()},
        resumed,
        dict(sources.skipped),
        time.monotonic() - started,
        allowed_failures(config.max_failures, tally.images),
        bool(stop),
    )


def _asked(bundle: Bundle, config: DetectConfig) -> dict[str, Any]:
    """What decides the content of the records: another answer must not be mixed with these."""
    return {"model": bundle.digest, "runtime": config.runtime, "device": config.device, "top_k": config.top_k}


def _work(sources: Sequence[Source], pipeline: Pipeline, journal: Journal, stop: Stop, progress: Progress) -> int:
    todo = [source for source in sources if source not in journal]
    resumed = len(sources) - len(todo)
    try:
        for done, (source, prediction) in enumerate(_predictions(todo, pipeline, stop), start=1):
            journal.add(source, writers.line(prediction.record.as_json()))
            progress(resumed + done, len(sources))
    finally:
        journal.flush()
    return resumed


def _predictions(sources: Sequence[Source], pipeline: Pipeline, stop: Stop) -> Iterator[tuple[Source, Prediction]]:
    urls = stop.until(source.url for source in sources)
    yield from zip(sources, pipeline.run(urls), strict=False)


class _Tally:
    """Counts records as they go by."""

    def __init__(self) -> None:
        self.images = 0
        self.failures: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.labels: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def count(self, record: Mapping[str, Any]) -> None:
        self.images += 1
        if record["failure"] is not None:
            self.failures[record["failure"].split(":")[0]] += 1
            return
        self.decisions[record["decision"]] += 1
        for name, answer in record["targets"].items():
            if "label" in answer:
                self.labels[name][answer["label"]] += 1
