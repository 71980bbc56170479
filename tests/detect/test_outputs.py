"""All outputs are written in one pass, and one that fails does not cost those before it."""

import pytest

from plantml.detect.output_row import OutputRow
from plantml.detect.outputs import Sink, feed
from plantml.errors import StorageError

ROWS = [OutputRow({"number": number}) for number in range(333)]


def numbers(rows):
    return [row.record["number"] for row in rows]


def fail(rows):
    next(iter(rows))
    raise StorageError("No space left")


def test_every_sink_gets_every_row_in_order():
    records = []
    sinks = {name: Sink(numbers) for name in ("first", "second")}
    count, results = feed(iter(ROWS), lambda rows: records.extend(numbers(rows)), sinks)
    assert count == len(ROWS)
    assert records == results["first"] == results["second"] == list(range(333))


def test_a_writer_that_needs_few_rows_ends_early():
    _, results = feed(iter(ROWS), list, {"first": Sink(lambda rows: next(rows).record), "all": Sink(numbers)})
    assert results["first"] == {"number": 0}
    assert len(results["all"]) == len(ROWS)


@pytest.mark.parametrize("count", [1, len(ROWS)])  # fails at the end, and on the way
def test_a_sink_that_fails_costs_only_those_after_it(count):
    finished = {}

    def sink(name):
        return Sink(lambda rows: finished.update({name: len(numbers(rows))}))

    sinks = {"before": sink("before"), "broken": Sink(fail), "after": sink("after")}
    with pytest.raises(StorageError, match="No space left"):
        feed(iter(ROWS[:count]), lambda rows: finished.update(records=len(numbers(rows))), sinks)
    assert finished == {"records": count, "before": count}


def test_records_that_cannot_be_written_leave_no_other_output():
    finished = []
    with pytest.raises(StorageError, match="No space left"):
        feed(iter(ROWS), fail, {"sink": Sink(lambda rows: finished.append(numbers(rows)))})
    assert not finished


def test_each_record_is_parsed_once_for_all_outputs(run, paint, tmp_path, monkeypatch):
    for number in range(3):
        photos = paint(f"{number}.png", 255).parent
    parsed = []
    parse = OutputRow.parse
    monkeypatch.setattr(OutputRow, "parse", lambda row: parsed.append(row) or parse(row))
    done, _ = run(photos, out=tmp_path / "out.jsonl", embeddings=tmp_path / "e.npy", sheet=tmp_path / "sheet.png",
                  annotate=tmp_path / "drawn", sort_into=tmp_path / "sorted")  # fmt: skip
    assert (done.annotated, sum(done.sorted.values()), len(parsed)) == (3, 3, 3)
