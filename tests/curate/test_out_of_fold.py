"""Boxes checked with the models of a cross-validation, whose answers are written down."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from plantml.curate import out_of_fold
from plantml.curate.out_of_fold import PhotoBoxes
from plantml.data import versions
from plantml.data.boxes import Box
from plantml.data.folds import of_fold
from plantml.errors import Exit, InputError, NotFoundError
from plantml.parsing import dump_yaml
from plantml.settings import machine
from plantml.storage import checksums
from plantml.targets import Target

PHOTOS, TEST = 20, 2
TRUE = [(2, 2, 8, 8, "healthy"), (20, 2, 8, 8, "diseased"), (2, 20, 8, 8, "healthy"), (20, 20, 8, 8, "diseased")]
ANSWERS = [(*sides, 0.9, int(label == "diseased")) for *sides, label in TRUE]
FAULTY = {
    0: ("box-missing", TRUE[1:]),
    1: ("box-extra", [*TRUE, (12, 12, 6, 6, "healthy")]),
    2: ("box-displaced", [(5, 2, 8, 8, "healthy"), *TRUE[1:]]),
    3: ("box-mislabelled", [(*TRUE[0][:4], "diseased"), *TRUE[1:]]),
}
HEALTH = Target("health", "class", ("healthy", "diseased"))


@pytest.fixture
def trays(draw):
    """Trays with a fault of each kind; the last ones are of the test split."""
    drawn = [FAULTY[number][1] if number in FAULTY else TRUE for number in range(PHOTOS)]
    hashes = np.random.default_rng(0).integers(0, 2**62, PHOTOS).tolist()
    splits = ["train"] * (PHOTOS - TEST) + ["test"] * TEST
    return versions.load(draw(drawn, split=splits, phash=hashes))


@pytest.fixture
def cross_validate(trays, finder, tmp_path, monkeypatch):
    """`cross_validate(**changes of the plan)`: a cross-validation of them in two folds."""

    def make(plans=("plan.yaml",), **changes):
        pipelines = {}
        for number in (1, 2):
            plan = {"dataset": trays.url, "dataset_version": trays.number, "fingerprint": trays.fingerprint,
                    "where": "", "seed": 0, "folds": 2, "fold": number, **changes}  # fmt: skip
            run = tmp_path / "run" / f"fold-{number}"
            for name in plans:
                file = run / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(checksums.seal_text(dump_yaml(plan).encode(), "%s"))
            held_out = of_fold(trays, number, 2, 0).usable("val")["image_id"].to_list()
            numbers = [at for at, image_id in enumerate(trays.rows["image_id"]) if image_id in held_out]
            # A photo that it was trained on would be a KeyError.
            pipelines[str(run)] = finder(dict.fromkeys(numbers, ANSWERS), f"fold{number}")

        def open_pipeline(url, cache, threads):
            if url not in pipelines:
                raise NotFoundError("no model", "")
            return pipelines[url]

        monkeypatch.setattr(out_of_fold, "open_pipeline", open_pipeline)
        return str(tmp_path / "run")

    return make


@pytest.mark.parametrize("plans", [("plan.yaml",), ("detector/plan.yaml",)])
def test_planted_faults_are_found_by_the_models_that_were_not_trained_on_them(
    plans, cross_validate, trays, cli, tmp_path, monkeypatch
):
    monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / "cache"))
    html = tmp_path / "report.html"
    options = ("--only", "box-labels", "--folds", cross_validate(plans), "--html", html)
    result = cli("dataset", "check", trays.url, *options, "--json")
    assert result.code == Exit.DONE, result.err
    numbers = {name: number for number, name in enumerate(trays.rows["name"])}
    findings = {numbers[finding["images"][0]]: finding for finding in result.json["findings"]}
    assert {number: finding["code"] for number, finding in findings.items()} == {
        number: code for number, (code, _) in FAULTY.items()
    }
    assert findings[3]["facts"]["label"] == {"health": "diseased"}
    assert findings[3]["facts"]["likely"] == {"health": "healthy"}
    assert "health 'diseased' (9%), more likely 'healthy' (81%), x 2, y 2, 8 x 8" in findings[3]["evidence"]
    assert result.json["checked"] == ["box-labels"]
    assert f"{TEST} annotated photos in no fold" in result.json["notes"][0]
    crops = crops_of(html.read_text())
    assert len(crops) == len(FAULTY)
    assert {crop.size for crop in crops} == {(240, 240)}


def crops_of(page):
    pictures = json.loads(re.search(r'<script id="pictures" type="application/json">(.*?)</script>', page)[1])
    data = {key: base64.b64decode(url.partition(",")[2]) for key, url in pictures.items()}
    return [Image.open(io.BytesIO(each)) for key, each in data.items() if key.startswith("box")]


def test_photos_are_held_out_as_they_were_even_if_the_dataset_changed_since(cross_validate, trays):
    url = cross_validate()
    newer = versions.commit(replace(trays, rows=trays.rows.head(5)), "subset", {}, trays.number)
    held_out = [fold.held_out for fold in out_of_fold.open_folds(url, newer, machine())]
    photos = trays.usable("train")["image_id"]
    assert held_out[0] | held_out[1] == set(photos)
    assert not held_out[0] & held_out[1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"fingerprint": "0" * 64}, "was not trained on"),
        ({"dataset_version": 9}, "has no version 9"),
        ({"fold": 0}, "is not a cross-validation"),
        ({"folds": 3}, "is not a cross-validation"),
    ],
)
def test_other_runs_are_refused(changes, problem, cross_validate, trays):
    with pytest.raises(InputError, match=problem):
        out_of_fold.open_folds(cross_validate(**changes), trays, machine())


def test_an_edited_plan_and_an_unfinished_fold_are_refused(cross_validate, trays, tmp_path, monkeypatch):
    url = cross_validate()
    plan = tmp_path / "run" / "fold-2" / "plan.yaml"
    written = plan.read_bytes()
    for changed in (written.replace(b"seed: 0", b"seed: 1"), written[: written.index(b'"sha256"')]):
        plan.write_bytes(changed)
        with pytest.raises(InputError, match="not as it was written"):
            out_of_fold.open_folds(url, trays, machine())
    plan.write_bytes(written)
    opened = out_of_fold.open_pipeline

    def unfinished(run, **options):
        if run.endswith("fold-2"):
            raise NotFoundError("no model", "")
        return opened(run, **options)

    monkeypatch.setattr(out_of_fold, "open_pipeline", unfinished)
    with pytest.raises(InputError, match="not finished"):
        out_of_fold.open_folds(url, trays, machine())


def test_without_folds_the_check_says_how_to_get_it(trays, cli):
    for options in (("--only", "files,box-labels"), ("--fail-on", "error,box-extra")):
        result = cli("dataset", "check", trays.url, *options)
        assert result.code == Exit.USAGE
        assert "train DATASET --task boxes --folds 3" in result.err
    result = cli("dataset", "check", trays.url, "--skip", "shortcuts,suspicious,outliers,crops", "--json")
    assert "box-labels" not in result.json["checked"]
    assert any("train DATASET --task boxes --folds 3" in note for note in result.json["notes"])


def test_predictions_count_once_per_likely_class_and_boxes_if_they_are_labelled():
    drawn = [Box(0, 0, 9, 9, {"health": "diseased"}), Box(9, 0, 9, 9)]
    model = Target("health", "class", ("diseased", "gone", "healthy"))
    outputs = {
        "boxes": np.array([[0, 0, 9, 9]], np.float32),
        "score": np.array([[0.8]], np.float32),
        "target.health": np.array([[0.7, 0.2, 0.1]], np.float32),
    }
    photos = [PhotoBoxes(0, drawn, outputs, {"health": model}), PhotoBoxes(1, drawn, outputs, {})]
    of_health = out_of_fold.detections_of(photos, HEALTH)
    assert of_health.true_photo.tolist() == [0, 1]
    assert of_health.true_labels.tolist() == [1, 1]
    assert of_health.photo.tolist() == [0, 0]
    assert of_health.labels.tolist() == [1, 0]
    assert of_health.scores.tolist() == pytest.approx([0.56, 0.08])
    located = out_of_fold.detections(photos)
    assert (located.photo.tolist(), located.true_photo.tolist()) == ([0, 1], [0, 0, 1, 1])
