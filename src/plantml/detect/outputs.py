"""Write all outputs of a detection in one pass over its journal, each record parsed once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from plantml import storage
from plantml.detect import writers
from plantml.detect.config import DetectConfig
from plantml.detect.journal import Journal
from plantml.detect.output_row import OutputRow
from plantml.detect.photo_list import Source
from plantml.detect.results import Tally
from plantml.model.contract import Contract

if TYPE_CHECKING:
    from plantml.detect.advice import Advice
    from plantml.detect.shards import Part

_BATCH, _BATCHES = 50, 2
"""Rows that a sink takes at a time, and how many batches wait for its writer."""


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes:
        tally: counts of all records.
        written: records in the output.
        annotated: photos drawn.
        sorted: photos added to each label's folder.
    """

    tally: Tally = field(default_factory=Tally)
    written: int = 0
    annotated: int = 0
    sorted: Mapping[str, int] = field(default_factory=dict)


class Sink:
    """An output that takes row by row. Its writer pulls from an iterator, so it runs in a thread.

    Args:
        write: consumes the rows; `close` returns its result.
    """

    def __init__(self, write: Callable[[Iterator[OutputRow]], Any]) -> None:
        self._write = write
        self._queue: Queue[list[OutputRow] | None] = Queue(_BATCHES)
        self._batch: list[OutputRow] = []
        self._has_ended = self._is_aborted = False
        self._error: BaseException | None = None
        self._result: Any = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, row: OutputRow) -> None:
        """Take a row. Raises what the writer raised."""
        self._batch.append(row)
        if len(self._batch) == _BATCH:
            if self._error is not None:
                raise self._error
            self._queue.put(self._batch)
            self._batch = []

    def close(self) -> Any:
        """Finish the output; returns what the writer returned, or raises what it raised."""
        self._queue.put(self._batch)
        self._end()
        if self._error is not None:
            raise self._error
        return self._result

    def abort(self) -> None:
        """Stop without finishing the output."""
        self._is_aborted = True
        self._end()

    def _end(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._result = self._write(self._rows())
        except BaseException as error:  # noqa: BLE001 - raised again by `add` or `close`
            self._error = error
        while not self._has_ended:  # a writer that ended early must not block `add`
            self._has_ended = self._queue.get() is None

    def _rows(self) -> Iterator[OutputRow]:
        while (batch := self._queue.get()) is not None:
            yield from batch
        self._has_ended = True
        if self._is_aborted:
            raise RuntimeError("aborted")  # so that the writer does not publish an incomplete file


def feed(
    rows: Iterable[OutputRow], write_records: Callable[[Iterator[OutputRow]], None], sinks: Mapping[str, Sink]
) -> tuple[int, dict[str, Any]]:
    """Write the records, and feed each row to the sinks on its way; then close the sinks in their order.

    If the records cannot be written, no sink is completed. If a sink fails, the records and the sinks before it are
    still completed: pictures that cannot be drawn must not cost records.

    Returns:
        The number of rows, and the result of each sink.
    """
    active, count, results = dict(sinks), 0, {}
    failure: Exception | None = None

    def fed() -> Iterator[OutputRow]:
        nonlocal count, failure
        for row in rows:
            count += 1
            for name, sink in active.items():
                try:
                    sink.add(row)
                except Exception as error:  # noqa: BLE001 - raised below
                    failure = error
                    _abort_from(active, name)
                    break
            yield row

    try:
        write_records(fed())
        while active:
            name = next(iter(active))
            results[name] = active.pop(name).close()
    finally:
        for sink in active.values():
            sink.abort()
    if failure is not None:
        raise failure
    return count, results


def _abort_from(active: dict[str, Sink], name: str) -> None:
    names = list(active)
    for each in names[names.index(name) :]:
        active.pop(each).abort()


def with_advice(row: OutputRow, advice: "Advice | None") -> OutputRow:
    """The row with its advice: added late, so that a changed text needs no new predictions."""
    if advice is None:
        return row
    return row.with_record({**row.record, "advice": advice.of(row.record)})


def matching(
    rows: Iterator[OutputRow], config: DetectConfig, contract: Contract, at_once: int = 2000
) -> Iterator[OutputRow]:
    """The rows that match `--where`."""
    if config.where is None:
        return rows
    from plantml.detect import record_filters

    return record_filters.where(rows, config.where, contract, at_once=at_once)


def counted(rows: Iterable[OutputRow], tally: Tally) -> Iterator[OutputRow]:
    """The rows, counted as they pass."""
    for row in rows:
        tally.add(row.record)
        yield row


def publish(
    journal: Journal,
    sources: Iterable[Source],
    config: DetectConfig,
    contract: Contract,
    *,
    advice: "Advice | None" = None,
    part: "Part | None" = None,
    threads: int = 1,
) -> Published:
    """Write every requested output from the journal.

    Args:
        journal: holds the rows.
        sources: images in the order of the output.
        config: names the outputs.
        contract: of the model.
        advice: texts to add to the records.
        part: adds the position in the full list to the records of a shard.
        threads: photos drawn concurrently.
    """
    tally = Tally()
    journaled = journal.rows(sources, after=journal.published if config.changed_only else 0)
    finished = (with_advice(OutputRow.parse(row), advice) for row in journaled)
    rows = matching(counted(finished, tally), config, contract)
    sinks = _open_sinks(config, contract, journal.published, threads)
    written, results = feed(
        part.locate(rows) if part else rows,
        lambda fed: writers.write(config.out, fed, contract, config.format, config.rows),
        sinks,
    )
    journal.mark()
    return Published(tally, written, results.get("annotate", 0), results.get("sort_into", {}))


def _open_sinks(config: DetectConfig, contract: Contract, published: int, threads: int) -> dict[str, Sink]:
    """A sink per requested output beside the records."""
    write: dict[str, Callable[[Iterator[OutputRow]], Any]] = {}
    if config.embeddings:
        from plantml.detect import embedding_files

        size = contract.architecture.embedding
        write["embeddings"] = partial(embedding_files.write, config.embeddings, size=size)
    if sheet := config.sheet:
        from plantml.detect import record_sheet

        write["sheet"] = lambda rows: storage.write(sheet, record_sheet.draw(_records(rows)))
    if folder := config.annotate:
        from plantml.detect import annotate

        write["annotate"] = lambda rows: annotate.write(folder, _undrawn(rows, folder, published), threads=threads)
    if target := config.sort_into:
        from plantml.detect import sorting

        write["sort_into"] = lambda rows: sorting.write(
            target, _records(rows), contract.targets, by=config.sort_by, how=config.sort_how
        )
    return {name: Sink(each) for name, each in write.items()}


def _records(rows: Iterable[OutputRow]) -> Iterator[Mapping[str, Any]]:
    return (row.record for row in rows)


def _undrawn(rows: Iterable[OutputRow], folder: str, published: int) -> Iterator[Mapping[str, Any]]:
    """Records that are new since the output was last written, or whose picture is missing."""
    from plantml.detect import annotate

    for row in rows:
        if row.record["failure"] is None and (
            row.segment > published or not storage.exists(storage.join(folder, annotate.file_name(row.record, ".jpg")))
        ):
            yield row.record
