import csv
import json
import os
from pathlib import Path

import polars as pl
import pytest
from tests.contracts import make_contract

from plantml.detect import writers
from plantml.detect.output_row import OutputRow
from plantml.errors import UsageError
from plantml.model.records import Record, failed
from plantml.targets import Target

CONTRACT = make_contract(
    Target("category", "class", ("bean", "tomato")),
    Target("symptoms", "multilabel", ("spots", "curl")),
    Target("severity", "value", unit="fraction"),
)
COLUMNS = [
    "image", "image_id", "width", "height", "model", "decision", "unknown", "failure",
    "category", "category_score", "symptoms", "severity",
]  # fmt: skip


def record(image, label, score, labels, value, decision="accept"):
    targets = {
        "category": {"label": label, "score": score, "top": [[label, score]]},
        "symptoms": {"labels": labels},
        "severity": {"value": value, "unit": "fraction"},
    }
    return Record(image, "ab" * 32, 4000, 3000, "digest", targets, (), decision, 0.25, None)


RECORDS = [
    record("leaf.jpg", "tomato", 0.97, [["spots", 0.9], ["curl", 0.6]], 0.31).as_json(),
    record('odd, "quoted"\nname.jpg', "bean", 0.5, [], 0.0, "review").as_json(),
    failed("gone.jpg", "digest", "not-found: nobody, nowhere").as_json(),
    record("Blätter/葉.jpg", "bean", 1e-06, [["curl", 0.5]], -2.5, "unknown").as_json(),
]
ROWS = [
    ["leaf.jpg", "ab" * 32, 4000, 3000, "digest", "accept", 0.25, None, "tomato", 0.97, "spots|curl", 0.31],
    ['odd, "quoted"\nname.jpg', "ab" * 32, 4000, 3000, "digest", "review", 0.25, None, "bean", 0.5, "", 0.0],
    ["gone.jpg", None, None, None, "digest", None, None, "not-found: nobody, nowhere", None, None, None, None],
    ["Blätter/葉.jpg", "ab" * 32, 4000, 3000, "digest", "unknown", 0.25, None, "bean", 1e-06, "curl", -2.5],
]


def written(out, records=RECORDS):
    writers.write(str(out), map(OutputRow, records), CONTRACT)
    return out


@pytest.mark.parametrize("name", ["records.jsonl", "records.ndjson", "RECORDS.JSONL"])
def test_json_lines_are_the_records(tmp_path, name):
    text = written(tmp_path / name).read_bytes().decode()
    assert text.endswith("\n")
    assert [json.loads(line) for line in text.splitlines()] == RECORDS
    assert list(json.loads(text.splitlines()[0])) == list(RECORDS[0])
    assert "葉" in text


def test_parquet_has_a_typed_row_a_record(tmp_path):
    table = pl.read_parquet(written(tmp_path / "records.parquet"))
    assert table.columns == COLUMNS
    assert [list(row) for row in table.rows()] == ROWS
    types = dict(table.schema)
    assert {types[name] for name in ("width", "height")} == {pl.Int32}
    assert {types[name] for name in ("unknown", "category_score", "severity")} == {pl.Float64}
    assert {types[name] for name in ("image", "decision", "failure", "category", "symptoms")} == {pl.String}


def test_csv_has_the_same_rows(tmp_path):
    with written(tmp_path / "records.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == COLUMNS
    assert rows == [["" if value is None else str(value) for value in row] for row in ROWS]


@pytest.mark.parametrize("name", ["records.jsonl", "records.csv", "records.parquet"])
def test_no_records_are_a_file_too(tmp_path, name):
    out = written(tmp_path / name, [])
    assert out.exists()
    if out.suffix == ".parquet":
        assert pl.read_parquet(out).schema == pl.read_parquet(written(tmp_path / "full.parquet")).schema


def test_a_table_of_failures_alone_has_the_same_columns(tmp_path):
    lost, full = written(tmp_path / "lost.parquet", [RECORDS[2]]), written(tmp_path / "full.parquet")
    assert pl.read_parquet(lost).schema == pl.read_parquet(full).schema


@pytest.mark.parametrize("name", ["records.jsonl", "records.csv", "records.parquet"])
def test_a_file_name_that_is_no_unicode_is_written(tmp_path, name):
    odd = os.fsdecode(b"caf\xe9.jpg")
    file = written(tmp_path / name, [RECORDS[0] | {"image": odd}])
    assert file.stat().st_size
    if file.suffix == ".jsonl":
        assert json.loads(file.read_text(encoding="utf-8"))["image"] == odd


@pytest.mark.parametrize("name", ["records.jsonl", "records.csv", "records.parquet"])
def test_a_writing_that_breaks_off_leaves_what_was_there(tmp_path, name):
    out = written(tmp_path / name)
    before = out.read_bytes()

    def lines():
        yield OutputRow(RECORDS[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writers.write(str(out), lines(), CONTRACT)
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["records.jsonl", "records.csv", "records.parquet"])
def test_output_may_be_remote(memory_url, tmp_path, name):
    from plantml import storage

    writers.write(f"{memory_url}/{name}", map(OutputRow, RECORDS), CONTRACT)
    assert storage.read(f"{memory_url}/{name}") == Path(written(tmp_path / name)).read_bytes()


@pytest.mark.parametrize(("name", "said"), [("records.xml", ".xml"), ("records", "empty")])
def test_an_unknown_extension_lists_the_formats(name, said):
    with pytest.raises(UsageError, match=said) as error:
        writers.writer_of(name)
    assert ".jsonl, .ndjson, .csv, .parquet" in error.value.hint
