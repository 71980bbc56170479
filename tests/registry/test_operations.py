import json

import polars as pl
import pytest
from tests.contracts import make_contract

from plantml import registry, storage
from plantml.data import manifest, versions
from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.errors import GateError, InputError, UsageError
from plantml.model.contract import Detection
from plantml.model.covariates import Covariate
from plantml.registry import evidence
from plantml.targets import Target

ME = {"by": "me"}
TARGETS = (Target("category", "class", ("bean", "tomato")),)


@pytest.fixture
def dataset(tmp_path, make_rows):
    """URL of a dataset of six photos, two of them for the test."""
    url = str(tmp_path / "data")
    splits = ["train", "train", "train", "val", "test", "test"]
    rows = make_rows([{"category": "bean", "split": split} for split in splits], TARGETS)
    versions.commit(Version(url, 0, rows, TARGETS), "import", {}, 0)
    return url


@pytest.fixture
def model(tmp_path, make_bundle):
    """URL of a model of three versions, the first one in service."""
    url = f"{tmp_path}/models/leaf"
    for seed in (1, 2, 3):
        registry.add(make_bundle(seed), url, **ME)
    registry.promote(url, 1, "production", why="the first", force=True, **ME)
    return url


@pytest.fixture
def judged(model, dataset):
    """`judged(version, against=1, **changes)`: what `validate --out` writes, as far as it matters here."""

    def make(version, opponent=1, **changes):
        state = registry.load(model)
        head = versions.load(dataset)
        content = {
            "plantml_metrics": 2,
            "datasets": [{"ref": head.ref, "fingerprint": head.fingerprint, "photos": 2}],
            "split": "test",
            "where": None,
            "model": state.entries[version].digest,
            "scores": {"macro_f1": 0.9},
            "against": {"model": state.entries[opponent].digest, "differences": []} if opponent else None,
            "gates": [{"name": "category.macro_f1", "max_drop": 0.01, "value": 0.0, "passed": True}],
        }
        return content | changes

    return make


def test_a_passed_comparison_promotes_and_is_kept(model, judged, tmp_path):
    shown = judged(2)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/metrics.json").write_text(json.dumps(shown))
    done = registry.promote(model, 2, "production", evidence=str(tmp_path / "evidence"), expected=1, **ME)
    assert (done.number, done.before, done.changed) == (2, 1, True)
    stored = registry.history(model)[-1].content["evidence"]
    assert json.loads(storage.read(f"{model}/evidence/{stored['sha256']}.json")) == shown
    assert stored["test_sets"][0]["ref"].endswith("data@1")
    assert not registry.promote(model, 2, "production", evidence=shown, expected=1, **ME).changed


REFUSED = {
    "nothing": (None, "there is no comparison with the version in service"),
    "another model": ({"model": "f" * 64}, "of model ffffffffffff"),
    "another opponent": ({"against": {"model": "e" * 64}}, "compares with eeeeeeeeeeee"),
    "no opponent": ({"against": None}, "compares with no other model"),
    "another split": ({"split": "val"}, "split val"),
    "a part of it": ({"where": "source == 'lab'"}, "where source"),
    "a failed gate": ({"gates": [{"name": "f1", "max_drop": 0.0, "passed": False}]}, "1 of 1 gates failed, such as f1"),
    "no gate of the comparison": ({"gates": [{"name": "f1", "min": 0.1, "passed": True}]}, "no gate"),
    "no dataset": ({"datasets": []}, "no dataset"),
    "photos without an answer": (
        {"failed": [["a.jpg", "truncated"]], "allowed_failures": 0},
        "1 photos failed",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_show_it_does_not_promote(model, judged, name):
    changes, why = REFUSED[name]
    events = len(registry.history(model))
    with pytest.raises(GateError) as error:
        registry.promote(model, 2, "production", evidence=None if changes is None else judged(2, **changes), **ME)
    assert why in str(error.value)
    assert len(registry.history(model)) == events
    assert not storage.exists(f"{model}/evidence")


def test_what_is_no_evidence_is_told(model, tmp_path):
    (tmp_path / "report.html").write_text("<html>")
    (tmp_path / "old.json").write_text('{"plantml_metrics": 1}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    changed = {"plantml_metrics": 2, "model": "m", "datasets": [], "split": "test", "gates": [3], "scores": {}}
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    for name in ("report.html", "old.json", "deep.json", "changed.json"):
        with pytest.raises(InputError, match="is not evidence"):
            registry.promote(model, 2, "production", evidence=str(tmp_path / name), **ME)


def test_the_test_photos_must_be_those_of_today(model, judged, dataset, make_rows):
    shown = judged(2)
    head = versions.load(dataset)
    more = make_rows([{"category": "tomato", "split": "train", "name": "new.jpg"}], TARGETS)
    versions.change(dataset, "add", {}, lambda at: (manifest.conform(at.rows.vstack(more), TARGETS), TARGETS, None))
    registry.promote(model, 2, "production", evidence=shown, **ME)  # more to learn from: the same test
    registry.promote(model, 1, "production", force=True, why="again", **ME)
    shown |= {"seed": 1}
    late = make_rows([{"category": "tomato", "split": "test", "name": "late.jpg", "image_id": "9" * 64}], TARGETS)
    versions.change(dataset, "add", {}, lambda at: (manifest.conform(at.rows.vstack(late), TARGETS), TARGETS, None))
    with pytest.raises(GateError, match="have changed"):
        registry.promote(model, 2, "production", evidence=shown, **ME)
    forged = shown | {"datasets": [{"ref": head.ref, "fingerprint": "0" * 64, "photos": 2}]}
    with pytest.raises(GateError, match="not the evaluated dataset"):
        registry.promote(model, 2, "production", evidence=forged, **ME)


def test_the_covariates_of_the_test_photos_must_be_those_of_today(dataset, judged):
    variety = Covariate(name="variety", kind="class", classes=("Moneymaker", "Roma"))
    contract = make_contract(*TARGETS).model_copy(update={"covariates": (variety,)})
    shown = evidence.read(judged(2))
    evidence.check_test_photos(shown, contract)

    def measured(head):
        return head.rows.with_columns(meta_variety=pl.lit("Roma")), head.targets, None

    versions.change(dataset, "join", {}, measured)
    with pytest.raises(GateError, match="or their covariates have changed"):
        evidence.check_test_photos(shown, contract)


def test_a_class_that_it_does_not_know_is_not_left_out_of_the_judgement(model, judged, dataset, make_rows, make_bundle):
    targets = (Target("category", "class", ("bean", "tomato", "fig")),)
    fig = make_rows([{"category": "fig", "split": "test", "name": "fig.jpg", "image_id": "9" * 64}], targets)
    versions.change(dataset, "add", {}, lambda at: (manifest.conform(at.rows.vstack(fig), targets), targets, None))
    with pytest.raises(
        GateError, match=r"leaves out photos of .*data@2 whose class the model does not know: category fig"
    ):
        registry.promote(model, 2, "production", evidence=judged(2, left_out={"category": 1}), **ME)
    registry.add(make_bundle(4, classes=("bean", "tomato", "fig")), model, **ME)
    registry.promote(model, 4, "production", evidence=judged(4, left_out={"category": 1}), **ME)
    assert registry.aliases(model)["production"] == 4


def test_nor_is_a_class_of_a_box(make_rows, tmp_path):
    fig = Box(0, 0, 4, 4, {"category": "fig"}).as_row()
    drawn = Version(str(tmp_path), 2, make_rows([{"split": "test", "boxes": [fig]}]), ())
    detection = Detection(boxes=4, slope=1, offset=0, threshold=0.5, accept=0.5)
    contract = make_contract(Target("category", "class", ("bean", "tomato")), detection=detection)
    with pytest.raises(GateError, match="category fig"):
        evidence._check_known(drawn, contract)


def test_the_first_promotion_needs_a_validation_or_a_reason(tmp_path, make_bundle, judged, model):
    other = f"{tmp_path}/models/other"
    registry.add(make_bundle(1), other, **ME)
    with pytest.raises(GateError, match="not promoted"):
        registry.promote(other, 1, "production", **ME)
    with pytest.raises(UsageError, match="reason"):
        registry.promote(other, 1, "production", force=True, **ME)
    done = registry.promote(other, 1, "production", evidence=judged(1, opponent=None, gates=[]), expected=0, **ME)
    assert (done.number, done.before) == (1, 0)


def test_other_aliases_are_free_and_those_of_production_are_not(model):
    registry.promote(model, 2, "challenger", **ME)
    registry.promote(model, 3, "challenger", **ME)
    with pytest.raises(GateError):
        registry.promote(model, 3, "production-eu", **ME)
    assert dict(registry.aliases(model)) == {"production": 1, "challenger": 3}


def test_who_did_not_know_of_another_promotion_is_told(model, judged):
    shown = judged(2)
    registry.promote(model, 3, "production", force=True, why="an emergency", by="ann")
    for expected in (1, registry.load(model).entries[1].digest, 0, ""):
        with pytest.raises(GateError, match="moved in the meantime") as error:
            registry.promote(model, 2, "production", force=True, why="mine", expected=expected, by="bob")
        assert "by ann" in error.value.why
    with pytest.raises(GateError, match="not promoted"):
        registry.promote(model, 2, "production", evidence=shown, by="bob")
    with pytest.raises(GateError, match="moved in the meantime"):
        registry.rollback(model, "production", expected=1, by="bob")
    assert registry.aliases(model)["production"] == 3


def test_rollback_goes_back_and_back(model):
    for number in (2, 3):
        registry.promote(model, number, "production", force=True, why="better", **ME)
    assert registry.rollback(model, "production", **ME).number == 2
    done = registry.rollback(model, "production", why="worse after all", expected=2, **ME)
    assert (done.number, done.before) == (1, 2)
    with pytest.raises(InputError, match="no previous version"):
        registry.rollback(model, "production", **ME)
    with pytest.raises(InputError, match="no alias"):
        registry.rollback(model, "challenger", **ME)


def test_evidence_does_not_undo_a_rollback(model, judged):
    shown = judged(2)
    registry.promote(model, 2, "production", evidence=shown, **ME)
    registry.rollback(model, "production", why="takes soil for rust", **ME)
    with pytest.raises(GateError, match=r"already used.*takes soil for rust"):
        registry.promote(model, 2, "production", evidence=shown, **ME)
    registry.promote(model, 2, "production", evidence=judged(2, seed=1), **ME)
    assert registry.aliases(model)["production"] == 2


def test_an_alias_can_be_taken_away(model):
    registry.promote(model, 2, "challenger", **ME)
    assert registry.unalias(model, "challenger", **ME).before == 2
    assert not registry.unalias(model, "challenger", **ME).changed
    with pytest.raises(UsageError, match="reason"):
        registry.unalias(model, "production", **ME)
    assert list(registry.aliases(model)) == ["production"]
