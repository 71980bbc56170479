"""check and clean on photos with planted faults, by the commands that a user types."""

import csv
import json
import re
from pathlib import Path

import polars as pl
import pytest

from plantml import synth
from plantml.curate import check
from plantml.curate import report as page
from plantml.curate.context import Subject
from plantml.curate.findings import Finding, Report
from plantml.data import versions
from plantml.data.manifest import Version
from plantml.settings import machine

KINDS = {
    "zero_bytes": "empty-file",
    "truncated": "truncated",
    "wrong_extension": "wrong-extension",
    "exif_turn": "exif-rotated",
    "exact_duplicate": "exact-duplicates",
    "near_duplicate": "near-duplicates",
    "conflicting_label": "conflicting-labels",
    "flip": "turned-duplicates",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Photos with planted faults, and what they are."""
    folder = tmp_path_factory.mktemp("faulty")
    synth.write(synth.SynthSpec(images=160, seed=3, size=128, defects=0.3), str(folder), workers=1)
    return folder


@pytest.fixture
def dataset(faulty, tmp_path, cli):
    url = str(tmp_path / "dataset")
    assert cli("dataset", "import", faulty / "labels.csv", url, "--reference", "-q").code == 0
    return url


def planted(faulty):
    with Path(faulty, "truth.csv").open() as file:
        return list(csv.DictReader(file))


def test_planted_faults_are_found(faulty, dataset, cli, tmp_path):
    html, table = tmp_path / "report.html", tmp_path / "findings.parquet"
    done = cli(
        "dataset", "check", dataset, "--json", "--html", html, "--findings", table,
        "--only", "files,pictures,duplicates,groups,labels",
    )  # fmt: skip
    assert done.code == 0, done.err
    reported = {(finding["code"], name) for finding in done.json["findings"] for name in finding["images"]}
    rows = pl.read_parquet(table)
    assert set(rows.select("code", "name").drop_nulls().iter_rows()) == reported
    for fault in planted(faulty):
        if fault["defect"] in KINDS:
            assert (KINDS[fault["defect"]], fault["image"]) in reported, fault
    content = html.read_text()
    assert not re.search(r"(src|href)=[\"'](https?:)?//", content)
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', content, re.DOTALL)[1]
    assert len(json.loads(data)["findings"]) == len(done.json["findings"])


def test_findings_end_with_a_gate_if_they_are_asked_to(dataset, cli):
    known = ("dataset", "check", dataset, "--only", "files")
    assert cli(*known).code == 0
    failed = cli(*known, "--fail-on", "error", "--json")
    assert failed.code == 4
    assert failed.json["failing"] > 0
    assert cli(*known, "--fail-on", "blurry").code == 0
    assert cli(*known, "--fail-on", "nonsense").code == 2
    assert cli("dataset", "check", dataset, "--only", "nonsense").code == 2


def test_a_check_changes_nothing(faulty, dataset, cli, contents):
    before, source = contents(dataset), contents(faulty)
    cli("dataset", "check", dataset, "--only", "files,pictures,duplicates,labels,boxes")
    assert (contents(dataset), contents(faulty)) == (before, source)


def test_cleaning_leaves_out_what_it_says_and_checks_are_content_then(faulty, dataset, cli):
    codes = "empty-file,truncated,exact-duplicates,near-duplicates,turned-duplicates,conflicting-labels,wrong-extension"
    dry = cli("dataset", "clean", dataset, "--apply", codes, "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert versions.numbers(dataset) == [1]
    done = cli("dataset", "clean", dataset, "--apply", codes, "--json")
    same = ("excluded", "review", "mended")
    assert [done.json[key] for key in same] == [dry.json[key] for key in same]
    rows = versions.load(dataset).rows
    by_name = {row["name"]: row for row in rows.iter_rows(named=True)}
    for fault in planted(faulty):
        if fault["defect"] in {"zero_bytes", "truncated"}:
            assert by_name[fault["image"]]["reason"].startswith("cleaned ")
        if fault["defect"] == "exact_duplicate":
            pair = [by_name[fault["image"]]["status"], by_name[fault["of"]]["status"]]
            assert pair.count("ok") <= 1
        if fault["defect"] == "conflicting_label":
            assert by_name[fault["image"]]["reason"].startswith("review conflicting-labels")
            assert by_name[fault["of"]]["reason"].startswith("review conflicting-labels")
    left = cli("dataset", "check", dataset, "--only", "files,duplicates", "--json").json["counts"]
    assert not set(codes.split(",")) & set(left)
    again = cli("dataset", "clean", dataset, "--apply", codes, "--json")
    assert not again.json["changed"]
    back = cli("dataset", "import", faulty / "labels.csv", dataset, "--reference", "--json")
    assert back.json["added"] == 0


def test_copies_with_different_labels_are_never_guessed(dataset, cli):
    done = cli("dataset", "clean", dataset, "--apply", "exact-duplicates", "--json")
    assert done.json["undecided"] > 0
    counts = cli("dataset", "check", dataset, "--only", "duplicates", "--json").json["counts"]
    assert counts["conflicting-labels"] > 0


def test_codes_that_cannot_be_cleaned_say_what_to_do(dataset, cli):
    assert cli("dataset", "clean", dataset, "--apply", "imbalance").code == 2
    assert cli("dataset", "clean", dataset, "--apply", "nonsense").code == 2


def test_checks_that_look_at_photos_run_with_any_network(dataset, cli, embedder):
    pytest.importorskip("cleanlab")
    done = cli("dataset", "check", dataset, "--only", "suspicious,outliers,shortcuts", "--model", embedder, "--json")
    assert done.code == 0, done.err
    assert done.json["not_checked"] == {}
    assert any("linear probe" in note for note in done.json["notes"])
    assert any("8 pixels of the border" in note for note in done.json["notes"])


def test_what_cannot_be_checked_says_how_to_get_it(dataset, cli, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.model_selection", None)
    done = cli("dataset", "check", dataset, "--only", "shortcuts,files", "--json")
    assert done.code == 0
    assert "pip install 'plantml[curate]'" in done.json["not_checked"]["shortcuts"]
    assert done.json["checked"] == ["files"]


def test_a_page_with_any_text_and_many_findings_is_sound(make_rows, looked):
    names = ["</script><img src=x onerror=alert(1)>.jpg", "a\u2028b.jpg", "'\"&.jpg"]
    version = Version("mem", 1, make_rows([looked(n, name=name) for n, name in enumerate(names)]), ())
    many = [Finding("blurry", (n % 3,), f"evidence {n} </script>") for n in range(50_000)]
    report = Report(version, many, ["pictures"], {}, [])
    content = page.render(report, Subject(version, machine())).decode()
    assert len(content) < 10_000_000
    assert content.count("</script>") == 3
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', content, re.DOTALL)[1]
    assert len(json.loads(data)["findings"]) == 50_000


def test_boxes_that_store_the_centre_are_mended(photos, tmp_path, cli):
    url = str(tmp_path / "apples")
    cli("dataset", "import", photos / "apple_boxes" / "instances_centre_as_topleft.json", url, "--reference")
    counts = cli("dataset", "check", url, "--only", "boxes", "--json").json["counts"]
    assert counts["boxes-centre-as-corner"] == 1
    assert "box-outside" not in counts
    cli("dataset", "clean", url, "--apply", "boxes-centre-as-corner")
    assert "boxes-centre-as-corner" not in cli("dataset", "check", url, "--only", "boxes", "--json").json["counts"]
    right = str(tmp_path / "right")
    cli("dataset", "import", photos / "apple_boxes" / "instances.json", right, "--reference")
    mine, theirs = (
        {row["name"].rpartition("/")[2]: row["boxes"] for row in versions.load(ref).rows.iter_rows(named=True)}
        for ref in (url, right)
    )
    for name, boxes in mine.items():
        pairs = zip(boxes or [], theirs[name] or [], strict=True)
        assert all(abs(one[key] - two[key]) <= 1 for one, two in pairs for key in "xywh")


def test_plantvillage_holds_what_is_known_of_it(plantvillage):
    report = check.run(plantvillage, machine(), only=["files", "duplicates"])
    counts = report.counts()
    assert counts["empty-file"] == 2
    copies = [finding.rows for finding in report.findings if finding.code == "exact-duplicates"]
    names = [sorted(report.name(row) for row in rows) for rows in copies]
    assert len(names) == 104
    for one, two in names:
        assert two.rpartition(".")[0].endswith("_1")
        assert one.rpartition(".")[0] == two.rpartition("_1.")[0]


def test_odd_photos_are_described_as_they_are(photos, tmp_path, cli):
    url = str(tmp_path / "odd")
    cli("dataset", "import", photos / "odd", url, "--reference")
    counts = cli("dataset", "check", url, "--only", "files", "--json").json["counts"]
    assert {key: counts[key] for key in ("empty-file", "not-an-image", "wrong-extension", "extreme-aspect")} == {
        "empty-file": 1, "not-an-image": 2, "wrong-extension": 2, "extreme-aspect": 1,
    }  # fmt: skip
