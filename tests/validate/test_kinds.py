"""Sets of labels and numbers, through everything that is written."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from plantml.targets import Target

SYMPTOMS = Target("symptoms", "multilabel", ("spots", "holes", "dust"))
SEVERITY = Target("severity", "value", unit="fraction")


@pytest.fixture
def data(tmp_path, cli):
    """Eighteen photos with sets of symptoms, a severity, and some of neither."""
    home, rng = tmp_path / "photos", np.random.default_rng(0)
    home.mkdir()
    lines = []
    for number in range(18):
        pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        pixels[12:20, 12:20] = rng.integers(0, 255, 3)
        Image.fromarray(pixels).save(home / f"{number}.png")
        there = [name for name in SYMPTOMS.classes if rng.random() < 0.5]
        line = {"image": f"{number}.png", "symptoms": there, "severity": float(rng.random()), "split": "test"}
        if number == 3:
            del line["symptoms"]
        lines.append(json.dumps(line))
    (home / "labels.jsonl").write_text("\n".join(lines) + "\n")
    options = ("--target", "symptoms:multilabel", "--target", "severity:value:fraction")
    result = cli("dataset", "import", home / "labels.jsonl", tmp_path / "data", *options)
    assert result.code == 0, result.err
    return str(tmp_path / "data")


@pytest.mark.filterwarnings("ignore:No positive class found")
def test_numbers_are_those_of_scikit_learn_and_everything_is_written(data, painted, judged, tmp_path):
    import polars as pl

    model, other = painted([SYMPTOMS, SEVERITY]), painted([SYMPTOMS, SEVERITY], digest="other")
    answer = other.runtime.run
    other.runtime.run = lambda batch: answer(255 - batch)
    result = judged(
        data, model, other, against="old", max_drop=0.5, out=str(tmp_path / "out"), report=str(tmp_path / "r.html"),
        markdown=str(tmp_path / "r.md"), robustness=True, review=3, max=("severity.mae=2",),
    )  # fmt: skip
    table = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    known = table.filter(pl.col("symptoms_true").is_not_null())
    assert known.height == 17
    true = np.array([[name in text.split("|") for name in SYMPTOMS.classes] for text in known["symptoms_true"]])
    probabilities = known.select(f"symptoms[{name}]" for name in SYMPTOMS.classes).to_numpy()
    scores = result.scores
    assert scores["symptoms.accuracy"] == pytest.approx(sk.accuracy_score(true, probabilities >= 0.5))
    macro = sk.f1_score(true, probabilities >= 0.5, average="macro", zero_division=0)
    assert scores["symptoms.macro_f1"] == pytest.approx(macro)
    precision = sk.average_precision_score(true, probabilities, average="macro")
    assert scores["symptoms.average_precision"] == pytest.approx(precision)
    error = sk.mean_absolute_error(table["severity_true"], table["severity_predicted"])
    assert scores["severity.mae"] == pytest.approx(error, abs=1e-5)
    assert scores["severity.r2"] == pytest.approx(
        sk.r2_score(table["severity_true"], table["severity_predicted"]), abs=1e-3
    )
    assert result.intervals["severity.r2"].low < scores["severity.r2"] < result.intervals["severity.r2"].high
    names = {gate.name for gate in result.gates}
    assert {"symptoms.macro_f1", "symptoms.f1[holes]", "severity.r2", "severity.mae"} <= names
    assert result.robustness.score == "macro_f1"
    assert (tmp_path / "out" / "reliability_symptoms.png").exists()
    for name in ("r.html", "r.md", "out/review/interface.xml"):
        assert "symptoms" in (tmp_path / name).read_text()
    page = (tmp_path / "r.html").read_text()
    assert '<figure class="pair">' in page
    assert (tmp_path / "out" / "agreement_severity.png").exists()
    furthest = table.sort((pl.col("severity_true") - pl.col("severity_predicted")).abs())[-1]
    _, _, section = page.partition('<section id="furthest">')
    name, predicted = (
        furthest["name"].item().split("/")[-1],
        f"predicted {furthest['severity_predicted'].item():.3g} fraction",
    )
    assert section.index(name) < section.index(predicted) < section.index("</figure>")


def test_a_value_alone_is_decided_by_r2(data, painted, judged):
    model, other = painted([SEVERITY]), painted([SEVERITY], digest="other")
    answer = other.runtime.run
    other.runtime.run = lambda batch: answer(255 - batch)
    result = judged(data, model, other, against="old", robustness=True)
    assert result.comparison.differences[0].name == "severity.r2"
    assert result.robustness.score == "r2"
    assert result.slices == sorted(result.slices, key=lambda each: (each.photos < 10, -each.gap, -each.photos))
