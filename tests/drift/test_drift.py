"""Planted drift is found, none is not; few photos and odd ones say so instead of crying wolf."""

import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from plantml.drift import drift, inputs, measures, report
from plantml.drift.drift import Options
from plantml.errors import Exit, InputError
from plantml.settings import machine


def alone(count):
    return [f"id {number}" for number in range(count)]


def plants(count, size=4):
    return [f"plant {number // size}" for number in range(count)]


def of_plants(rng, groups, spread=1.0):
    """Numbers whose photos of one plant are nearly alike."""
    known = {}
    return np.array([known.setdefault(group, rng.normal(0, spread)) + rng.normal(0, 0.1) for group in groups])


def test_the_index_is_the_formula():
    index = measures.labels_index(["a"] * 60 + ["b"] * 40, ["a"] * 30 + ["b"] * 70, (100, 100))
    before, after = np.array([60.5, 40.5]) / 101, np.array([30.5, 70.5]) / 101
    assert index.psi == pytest.approx(((after - before) * np.log(after / before)).sum())
    assert (index.bins, index.before, index.after) == (("a", "b"), (60, 40), (30, 70))


def test_labels_that_are_new_have_a_bin():
    index = measures.labels_index(["a"] * 50, ["a"] * 25 + ["c"] * 25, (50, 50))
    assert index.bins == ("a", "(new)")
    assert index.psi > measures.LARGE
    assert index.p < 1e-6


@pytest.mark.parametrize("moved", [0.5, -0.5])
def test_a_constant_that_moves_is_seen_to_move(moved):
    same = np.full(80, 3.0)
    assert measures.numbers_index(same, same, (80, 80)).psi == 0
    index = measures.numbers_index(same, same + moved, (80, 80))
    assert index.psi > measures.LARGE
    assert index.p < 1e-6
    assert sum(index.before) == sum(index.after) == 80


def test_numbers_have_ten_bins_of_equal_share_and_ties_one_each():
    rng = np.random.default_rng(0)
    index = measures.numbers_index(rng.normal(size=1000), rng.normal(1, 1, 1000), (1000, 1000))
    assert len(index.bins) == measures.BINS
    assert max(index.before) - min(index.before) <= 2
    tied = measures.numbers_index(np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], 50), (100, 100))
    assert {"0", "1"} <= set(tied.bins)


def test_effective_photos():
    assert measures.effective(alone(12)) == 12
    assert measures.effective(plants(12)) == pytest.approx(3)
    assert measures.effective([]) == 0


@pytest.mark.parametrize("grouped", [False, True])
def test_the_index_cries_wolf_as_rarely_as_it_says(grouped):
    """Of 400 pairs without a change, about 5 % have a p below 0.05; groups make it more careful, not less."""
    rng, wolves = np.random.default_rng(1), 0
    for _ in range(400):
        groups = [plants(n) if grouped else alone(n) for n in (400, 200)]
        numbers = [of_plants(rng, each) for each in groups]
        index = measures.numbers_index(*numbers, tuple(measures.effective(each) for each in groups))
        wolves += index.p < 0.05
    assert wolves / 400 < 0.08
    assert grouped or wolves / 400 > 0.02


def test_without_groups_plants_would_cry_wolf():
    rng = np.random.default_rng(2)
    detected = []
    for _ in range(100):
        numbers = [of_plants(rng, plants(n)) for n in (400, 200)]
        detected.append(measures.numbers_index(*numbers, (400, 200)).p < 0.05)
    assert np.mean(detected) > 0.5


def test_the_kernel_test_finds_what_is_planted():
    rng = np.random.default_rng(3)
    before = rng.normal(size=(120, 16)).astype(np.float32)
    after = rng.normal(0.6, 1, size=(80, 16)).astype(np.float32)
    result = measures.two_sample(before, after, (alone(120), alone(80)), permutations=200)
    assert result.p < 0.01
    assert result.mmd2 > 0
    again = measures.two_sample(before, after, (alone(120), alone(80)), permutations=200)
    assert (again.p, again.mmd2) == (result.p, result.mmd2)


def test_the_estimate_is_that_of_the_paper():
    """Lemma 6 of Gretton et al. 2012, written as its sums."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(9, 3)).astype(np.float32)
    result = measures.two_sample(rows[:5], rows[5:], (alone(5), alone(4)), permutations=10)
    distance = ((rows[:, None] - rows[None]) ** 2).sum(axis=2).astype(float)
    scale = np.median(distance[np.triu_indices(9, 1)])
    kernel = np.exp(-distance / (2 * scale))
    one = sum(kernel[i, j] for i in range(5) for j in range(5) if i != j) / 20
    other = sum(kernel[i, j] for i in range(5, 9) for j in range(5, 9) if i != j) / 12
    assert result.mmd2 == pytest.approx(one + other - 2 * kernel[:5, 5:].mean(), abs=1e-6)
    assert result.bandwidth == pytest.approx(np.sqrt(scale), rel=1e-5)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_kernel_test_cries_wolf_as_rarely_as_it_says(grouped):
    """Photos of a plant have nearly the same embedding; the groups are what keeps the level."""
    rng, wolves, blind = np.random.default_rng(5), 0, 0
    for _ in range(150):
        groups = [plants(n) if grouped else alone(n) for n in (60, 40)]
        known: dict = {}
        sides_ = [
            np.stack([known.setdefault((at, group), rng.normal(size=8)) + rng.normal(0, 0.1, 8) for group in each])
            for at, each in enumerate(groups)
        ]
        pair = [side.astype(np.float32) for side in sides_]
        wolves += measures.two_sample(*pair, tuple(groups), permutations=99).p <= 0.05
        blind += measures.two_sample(*pair, (alone(60), alone(40)), permutations=99).p <= 0.05
    assert 0.005 < wolves / 150 < 0.11
    assert not grouped or blind / 150 > 0.3  # what a test without groups would have said


def test_many_photos_are_drawn_from_and_few_say_nothing():
    rng = np.random.default_rng(6)
    many = rng.normal(size=(measures.MOST + 500, 4)).astype(np.float32)
    result = measures.two_sample(many, many[:50], (alone(len(many)), alone(50)), permutations=20)
    assert result.photos == (measures.MOST, 50)
    assert measures.two_sample(many[:1], many, (alone(1), alone(len(many)))) is None
    assert measures.two_sample(many[:9], many, (["one plant"] * 9, alone(len(many)))) is None
    same = np.ones((6, 4), np.float32)
    assert measures.two_sample(same, same, (alone(6), alone(6)), permutations=20).p == 1


# --- from files -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory, cli):
    """Two datasets alike, a third in the dark with another disease, records and embeddings."""
    home = tmp_path_factory.mktemp("drift")
    rng = np.random.default_rng(0)
    for name, light, diseases in (("a", 130, "xy"), ("b", 130, "xy"), ("c", 50, "yz")):
        (home / name).mkdir()
        lines = ["image,disease,plant,severity"]
        for number in range(60):
            pixels = np.clip(rng.normal(light, 30, (40, 48, 3)) + rng.normal(0, 15), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / name / f"{number}.png")
            lines.append(f"{number}.png,{diseases[number % 2]},{name}{number // 2},{rng.uniform():.3f}")
        (home / name / "list.csv").write_text("\n".join(lines) + "\n")
        result = cli("dataset", "import", home / name / "list.csv", home / f"data-{name}", "--group-column", "plant",
                     "--target", "disease", "--target", "severity:value")  # fmt: skip
        assert result.code == 0, result.err
    return home


def record(number, label, score, failure=None):
    targets = {"disease": {"label": label, "score": score, "top": []}, "severity": {"value": score, "unit": ""}}
    record = {"image": f"{number}.jpg", "model": "m", "boxes": [], "failure": failure}
    if failure:
        return record | dict.fromkeys(("image_id", "targets", "decision", "unknown"))
    return record | {"image_id": f"{number:064x}", "targets": targets, "decision": "accept", "unknown": 0.1}


def write_records(file, labels, scores):
    rows = [record(number, *both) for number, both in enumerate(zip(labels, scores, strict=True))]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, record(len(rows), "", 0, "truncated")]))
    return file


def test_datasets_alike_pass_their_gates_and_unlike_ones_end_with_exit_code_4(cli, home):
    alike = cli("dataset", "drift", home / "data-a", home / "data-b", "--skip-embeddings", "--max-psi", "0.1", "--json")
    assert alike.code == 0, alike.err
    assert alike.json["gates"][0]["passed"]
    assert alike.json["not_compared"]["embeddings"] == "not requested"
    other = cli("dataset", "drift", home / "data-a", home / "data-c", "--skip-embeddings", "--max-psi", "0.1", "--json")
    assert other.code == Exit.GATE
    verdicts = {column["name"]: column["verdict"] for column in other.json["columns"]}
    assert verdicts["disease"] == verdicts["brightness"] == "large"
    assert verdicts["severity"] in {"none", "by chance?"}
    without = cli("dataset", "drift", home / "data-a", home / "data-c", "--skip-embeddings")
    assert without.code == 0
    assert "large" in without.out


def test_records_against_a_dataset_and_against_records(cli, home, tmp_path):
    rng = np.random.default_rng(0)
    june = write_records(tmp_path / "june.jsonl", rng.choice(["x", "y"], 80), rng.uniform(0.5, 1, 80))
    july = write_records(tmp_path / "july.jsonl", rng.choice(["y", "z"], 80), rng.uniform(0.2, 0.7, 80))
    result = drift.drift(str(june), str(july), Options(), machine())
    by_name = {column.name: column for column in result.columns}
    assert by_name["disease"].verdict == by_name["disease_score"].verdict == "large"
    assert by_name["decision"].verdict == "none"
    assert by_name["decision"].index.bins == ("accept", "failed")
    assert "--embeddings-a" in result.not_compared["embeddings"]
    mixed = drift.drift(f"{home}/data-a", str(june), Options(), machine())
    assert {"disease", "severity"} <= {column.name for column in mixed.columns}
    assert mixed.not_compared["disease_score"].startswith("only ")


def test_records_read_the_same_from_every_format(cli, trained, tmp_path):
    for extension in ("jsonl", "parquet", "csv"):
        options = ("--model", trained.run, "--out", tmp_path / f"r.{extension}", "--embeddings", tmp_path / "e.parquet")
        assert cli("detect", trained.photos, *options, "-q").code == 0
    read = [inputs.records(str(tmp_path / f"r.{extension}")) for extension in ("jsonl", "parquet", "csv")]
    for side in read[1:]:
        assert side.labels == read[0].labels
        assert set(side.numbers) == set(read[0].numbers)
        assert all(np.array_equal(side.numbers[name], read[0].numbers[name]) for name in side.numbers)
    result = drift.drift(
        trained.data, str(tmp_path / "r.jsonl"),
        Options(model=trained.run, files=(None, str(tmp_path / "e.parquet")), min_p=0.01), machine(),
    )  # fmt: skip
    assert result.embeddings.p > 0.5  # the same photos
    assert result.passed
    with pytest.raises(InputError, match="has no embeddings of photos"):
        inputs.with_file(
            inputs.read(str(write_records(tmp_path / "x.jsonl", "xy", [0, 1]))), str(tmp_path / "e.parquet")
        )


def test_embeddings_of_another_model_are_refused(cli, trained, home, tmp_path):
    records = write_records(tmp_path / "r.jsonl", "xyxy", [0.1, 0.2, 0.3, 0.4])
    vectors = {"image_id": [f"{number:064x}" for number in range(4)], "embedding": [[1.0, 0.0]] * 4}
    pl.DataFrame(vectors).write_parquet(tmp_path / "e.parquet")
    asked = Options(model=trained.run, files=(None, str(tmp_path / "e.parquet")))
    with pytest.raises(InputError, match="another model"):
        drift.drift(trained.data, str(records), asked, machine())
    unnamed = drift.drift(trained.data, str(records), Options(files=asked.files, min_p=0.01), machine())
    assert "--model" in unnamed.not_compared["embeddings"]
    assert not unnamed.passed  # a test that was not made is no passed gate


def test_one_photo_and_none(cli, home, tmp_path):
    one = write_records(tmp_path / "one.jsonl", ["x"], [0.9])
    result = drift.drift(f"{home}/data-a", str(one), Options(max_psi=0.0), machine())
    assert result.passed  # one photo is never sure
    assert {column.verdict for column in result.columns} <= {"none", "by chance?"}
    assert report.picture(result).startswith(b"\x89PNG")
    (tmp_path / "none.jsonl").write_text("")
    for name in ("none.jsonl", "absent.jsonl"):
        assert cli("dataset", "drift", home / "data-a", tmp_path / name).code == Exit.INPUT
    assert cli("dataset", "drift", home / "data-a", home / "data-b", "--split", "test").code == Exit.INPUT


def test_drift_needs_no_torch(home, run_python):
    code = "import sys; from plantml.cli.app import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    command = ("dataset", "drift", home / "data-a", home / "data-b", "--skip-embeddings", "--picture", home / "d.png")
    out, err = run_python(code, *command).communicate(timeout=60)
    assert out.splitlines()[-1] == "False", err


def test_picture_and_page(cli, home, tmp_path):
    files = ("--picture", tmp_path / "drift.png", "--html", tmp_path / "drift.html", "--skip-embeddings")
    result = cli("dataset", "drift", home / "data-a", home / "data-c", *files)
    assert result.code == 0, result.err
    with Image.open(tmp_path / "drift.png") as picture:
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(2**24)) > 5
    text = (tmp_path / "drift.html").read_text()
    assert "data:image/png;base64," in text
    assert "<td>brightness</td>" in text


@pytest.mark.parametrize("text", ["3", "{", "[" * 100_000, "9" * 5000, '{"image": "a"}', '{"image": "\\ud800"}'])
def test_a_line_that_is_no_record_is_told(text, tmp_path):
    (tmp_path / "records.jsonl").write_text(text)
    with pytest.raises(InputError, match="Line 1 of"):
        inputs.records(f"{tmp_path}/records.jsonl")


def test_records_whose_columns_are_of_two_kinds_are_told(tmp_path):
    record = {"image": "a", "image_id": "b", "model": "m", "decision": "accept", "targets": None, "width": 3}
    lines = [json.dumps(record | {"width": width}) for width in (3, [1], {"a": "b"})]
    (tmp_path / "records.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="contains no records"):
        inputs.records(f"{tmp_path}/records.jsonl")
