"""Faster forms of a bundle: added with their proof, checked when opened, and never mixed with float32."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import plantml
from plantml import imaging, registry, settings
from plantml.data import versions
from plantml.errors import Exit, GateError, InputError, MissingExtraError, PlantmlError, UsageError
from plantml.export import bundle_forms
from plantml.export.forms import FORMS_IN_BUNDLES
from plantml.model import bundle as bundles
from plantml.model import proven_forms
from plantml.model.runtimes import OpenVinoRuntime, open_form
from plantml.registry import evidence, ledger
from plantml.serve.config import ServeConfig
from plantml.serve.models.model_pool import ModelPool


def _names(onnx):
    try:
        OpenVinoRuntime(onnx, bfloat16=True)
    except (MissingExtraError, UsageError):
        return ["int8"]
    return ["int8", "bfloat16"]


@pytest.fixture(scope="module")
def formed(cli, trained, every_form, untimed, tmp_path_factory):
    """A copy of the run with all forms that this machine computes, and the command's result."""
    run = shutil.copytree(Path(trained.run, "bundle"), tmp_path_factory.mktemp("formed") / "run" / "bundle").parent
    names = _names(Path(run, "bundle", "model.onnx").read_bytes())
    int8 = replace(FORMS_IN_BUNDLES["int8"], make=lambda _: every_form.made["onnx-int8"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMS_IN_BUNDLES, "int8", int8)
        flags = [part for name in names for part in ("--form", name)]
        result = cli("export", run, *flags, "--max-drop", 1, "--samples", 24, "--json")
    assert result.code == Exit.DONE, result.err
    return str(run), names, result.json


@pytest.fixture(scope="module", params=["int8", "bfloat16"])
def form(request, formed):
    """The run, and the name of a form in it."""
    run, names, _ = formed
    if request.param not in names:
        pytest.skip(f"{request.param} cannot be computed here")
    return run, request.param


@pytest.fixture(scope="module")
def leaves(trained):
    return sorted(Path(trained.photos).rglob("*.jpg"))[:13]


@pytest.fixture
def copy(formed, tmp_path):
    """A copy of the bundle with forms, to be damaged."""
    return Path(shutil.copytree(Path(formed[0], "bundle"), tmp_path / "bundle"))


def lines(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


# --- adding -----------------------------------------------------------------------------------


def test_forms_are_added_with_their_proof_and_the_model_stays_the_same(trained, formed):
    run, names, result = formed
    before, after = bundles.find(trained.run), bundles.find(run)
    assert set(result["added"]) == set(after.forms) == set(names)
    assert (after.digest, after.contract) == (before.digest, before.contract)
    for form in after.forms.values():
        assert form.derived_from == before.digest
        assert form.digest not in {before.digest, None}
        assert form.proof["photos"] > 0
        assert {"agreement", "decisions", "difference", "noise", "score", "compared_on"} <= set(form.proof)
        assert {"before", "after", "ece", "ece_after"} <= set(form.proof["score"])
    for name in after.files:
        assert after.read(name)
    assert (Path(run, "bundle", "forms", "int8.onnx").exists(), bundles.find(trained.run).forms) == (True, {})


@pytest.mark.usefixtures("untimed")
def test_a_form_that_costs_too_much_is_not_added(cli, trained, every_form, tmp_path, monkeypatch):
    run = shutil.copytree(Path(trained.run, "bundle"), tmp_path / "bundle")
    monkeypatch.setattr("plantml.export.proof.MAX_NOISE", -1)
    int8 = replace(FORMS_IN_BUNDLES["int8"], make=lambda _: every_form.made["onnx-int8"])
    monkeypatch.setitem(FORMS_IN_BUNDLES, "int8", int8)
    result = cli("export", run, "--form", "int8", "--samples", 5)
    assert result.code == Exit.GATE
    assert "Nothing was written" in result.err
    assert not bundles.find(str(run)).forms


@pytest.mark.parametrize(
    "flags", [("--form", "int4"), ("--form", "int8", "--to", "leaf.onnx"), ("--form", "int8", "--benchmark")]
)
def test_contradicting_options_are_refused(cli, formed, flags):
    assert cli("export", formed[0], *flags).code == Exit.USAGE


# --- one form, one answer ---------------------------------------------------------------------


def test_within_a_form_all_ways_to_ask_give_the_same(cli, trained, form, leaves, tmp_path):
    run, name = form
    out = tmp_path / "records.jsonl"
    assert cli("detect", *leaves, "--model", run, "--speed", name, "--out", out).code == Exit.DONE
    records = lines(out)
    bundle = bundles.find(run)
    assert {record["model"] for record in records} == {bundle.forms[name].digest}
    assert all(record["form"] == {"name": name, "of": bundle.digest} for record in records)

    model = plantml.load(run, speed=name)
    assert (model.form, model.digest) == (name, bundle.forms[name].digest)
    assert model.predict(leaves).records == records

    registry.add(run, f"{tmp_path}/models/leaf", by="me")
    pool = ModelPool(f"{tmp_path}/models", ServeConfig(speed=name, threads=1), settings.machine())
    served = pool.get("leaf@1").pipeline.predict_bytes([(str(leaf), leaf.read_bytes()) for leaf in leaves])
    assert [prediction.record.as_json() for prediction in served] == records

    folder, fast = tmp_path / "validation", ("--set", "resamples=100")
    assert cli("validate", trained.data, "--model", run, "--speed", name, "--out", folder, *fast).code == Exit.DONE
    assert json.loads((folder / "metrics.json").read_text())["form"] == {"name": name, "of": bundle.digest}
    table = pl.read_parquet(folder / "predictions.parquet")
    rows = versions.load(trained.data).rows.filter(pl.col("image_id").is_in(table["image_id"].implode()))
    predicted = model.predict([str(Path(trained.data, path)) for path in rows["path"].unique()]).records
    known = {record["image_id"]: record["targets"]["category"] for record in predicted}
    for row in table.iter_rows(named=True):
        answer = known[row["image_id"]]
        assert row["category_predicted"] == answer["label"]
        assert {label: round(row[f"category[{label}]"], 6) for label, _ in answer["top"]} == dict(answer["top"])


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_batch_changes_no_bit_within_a_form(form, leaves, size):
    bundle, runtime = open_form(bundles.find(form[0]), form[1])
    photos = np.stack([imaging.decode(leaf.read_bytes(), bundle.contract.input) for leaf in leaves])
    whole = runtime.run(photos)
    parts = [runtime.run(photos[start : start + size]) for start in range(0, len(photos), size)]
    assert all(np.array_equal(whole[name], np.concatenate([part[name] for part in parts])) for name in whole)


def test_exact_records_do_not_change_when_forms_are_added(cli, trained, formed, leaves, tmp_path):
    for name, run in {"without": trained.run, "with": formed[0]}.items():
        assert cli("detect", *leaves, "--model", run, "--out", tmp_path / f"{name}.jsonl").code == Exit.DONE
    assert (tmp_path / "with.jsonl").read_bytes() == (tmp_path / "without.jsonl").read_bytes()


def test_without_forms_auto_is_exact_and_a_named_form_is_an_error(cli, trained, leaves):
    assert plantml.load(trained.run, speed="auto").predict(leaves[:2]).records == (
        plantml.load(trained.run).predict(leaves[:2]).records
    )
    result = cli("detect", leaves[0], "--model", trained.run, "--speed", "int8")
    assert result.code == Exit.INPUT
    assert "has no form int8" in result.err
    assert "plantml export RUN --form int8" in result.err


def test_forms_are_not_mixed(cli, formed, leaves, tmp_path):
    run, out = formed[0], tmp_path / "records.jsonl"
    assert cli("detect", leaves[0], "--model", run, "--out", out).code == Exit.DONE
    again = cli("detect", *leaves[:2], "--model", run, "--out", out, "--speed", "int8")
    assert again.code == Exit.INPUT
    assert "another detection" in again.err
    assert "form was None and is 'int8'" in again.err
    similar = cli("detect", leaves[0], "--model", run, "--speed", "int8", "--similar", "data")
    assert similar.code == Exit.USAGE
    assert "--speed exact" in similar.err
    torch = cli("detect", leaves[0], "--model", run, "--speed", "int8", "--runtime", "torch")
    assert torch.code == Exit.USAGE


def test_the_file_of_a_form_is_a_model_of_its_own(formed, leaves):
    alone, inside = plantml.load(f"{formed[0]}/bundle/forms/int8.onnx"), plantml.load(formed[0], speed="int8")
    records = [
        {key: value for key, value in record.items() if key != "form"} for record in inside.predict(leaves).records
    ]
    assert alone.predict(leaves).records == records
    with pytest.raises(UsageError, match="is one form"):
        plantml.load(f"{formed[0]}/bundle/forms/int8.onnx", speed="bfloat16")


# --- what opening checks ----------------------------------------------------------------------


def test_an_edited_proof_is_noticed(copy, form):
    content = json.loads((copy / "model.json").read_text())
    content["forms"][form[1]]["proof"]["agreement"] = 1.5
    (copy / "model.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        open_form(bundles.find(str(copy)), form[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda forms: forms.clear(),
        lambda forms: forms["int8"].update(derived_from="ab" * 32),
        lambda forms: forms["int8"].pop("digest"),
        lambda forms: forms.update(int4=forms["int8"]),
        lambda forms: forms.update(int8=5),
    ],
)
def test_malformed_forms_are_refused(copy, change):
    content = json.loads((copy / "model.json").read_text())
    change(content["forms"])
    (copy / "model.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is damaged"):
        bundles.find(str(copy))


def test_another_network_in_the_place_of_a_form_is_noticed(copy):
    (copy / "forms" / "int8.onnx").write_bytes((copy / "model.onnx").read_bytes())
    with pytest.raises(PlantmlError, match=r"int8\.onnx"):
        open_form(bundles.find(str(copy)), "int8")
    plantml.load(str(copy))  # float32 is as it was


# --- registry and packs -----------------------------------------------------------------------


def test_forms_travel_in_packs_and_registries_and_versions_do_not_change(cli, formed, tmp_path):
    run, names, _ = formed
    model, packed = f"{tmp_path}/models/leaf", tmp_path / "leaf.plantml"
    assert cli("models", "pack", run, packed).code == Exit.DONE
    assert cli("models", "add", packed, model).code == Exit.DONE
    shown = cli("models", "show", f"{model}@1", "--json").json
    assert set(shown["forms"]) == set(names)
    assert "int8" in cli("models", "show", f"{model}@1").out
    assert cli("models", "verify", model).code == Exit.DONE
    for ref in (f"{model}@1", f"{model}/0001", packed):
        with pytest.raises(InputError, match="cannot get forms"):
            bundle_forms.add(str(ref), ["int8"], None, machine=settings.machine())


def test_evidence_of_a_form_is_not_evidence_of_the_model(cli, trained, formed, tmp_path):
    run, model = formed[0], f"{tmp_path}/models/leaf"
    registry.add(run, model, by="me")
    result = cli("validate", trained.data, "--model", run, "--speed", "int8", "--json").json
    state = ledger.load(model)
    with pytest.raises(GateError, match="form int8"):
        evidence.check(evidence.read(result), state, state.entry(1), "production")


def lost(_):
    raise InputError("The dataset is gone")


@pytest.mark.usefixtures("untimed")
def test_models_add_puts_forms_beside_float32(cli, trained, every_form, tmp_path, monkeypatch):
    run = shutil.copytree(Path(trained.run, "bundle"), tmp_path / "run" / "bundle").parent
    model, older = f"{tmp_path}/models/leaf", f"{tmp_path}/models/older"
    assert cli("models", "add", run, older).code == Exit.DONE
    int8 = replace(FORMS_IN_BUNDLES["int8"], make=lambda _: every_form.made["onnx-int8"])
    monkeypatch.setitem(FORMS_IN_BUNDLES, "int8", int8)
    monkeypatch.setattr("plantml.export.proof.Proof.costs_too_much", lambda *_: "")
    assert cli("models", "add", run, model, "--form", "int4").code == Exit.USAGE
    with monkeypatch.context() as patched:
        patched.setattr("plantml.export.samples.versions.load", lost)
        result = cli("models", "add", run, model, "--form", "int8")
    assert result.code == Exit.INPUT
    assert "--data DATASET" in " ".join(result.err.split())
    result = cli("models", "add", run, model, "--form", "int8", "--data", tmp_path / "none")
    assert result.code == Exit.INPUT
    assert str(tmp_path / "none") in "".join(result.err.split())
    for _ in range(2):
        result = cli("models", "add", run, model, "--form", "int8", "--json")
        assert (result.code, result.json["version"]) == (Exit.DONE, 1), result.err
    assert set(bundles.find(f"{model}/0001").forms) == {"int8"}
    result = cli("models", "add", run, older, "--form", "int8")
    assert result.code == Exit.INPUT
    assert "has no form int8" in result.err


# --- models of two stages ---------------------------------------------------------------------


def _of_two_stages():
    """A `model.json` with forms of both networks, as far as forms are concerned."""
    model, classifier = "ab" * 32, "cd" * 32
    forms = {}
    for name in ("int8", "bfloat16"):
        second = proven_forms.without_file(name, classifier, {"photos": 3})
        forms[name] = replace(proven_forms.without_file(name, model, {"photos": 2}), classifier=second).as_json()
    return {
        "digest": model,
        "files": {"forms/int8.onnx": "", "classifier/forms/int8.onnx": ""},
        "contract": {"detection": {"classifier": classifier}},
        "forms": forms,
    }


def test_the_name_of_a_form_of_two_stages_covers_both():
    content = _of_two_stages()
    assert not list(proven_forms.faults(content, "classifier/"))
    form = proven_forms.parse(content)["bfloat16"]
    other = replace(form, classifier=proven_forms.without_file("bfloat16", "cd" * 32, {"photos": 4}))
    assert len({form.model, form.digest, form.classifier.model, other.model}) == 4
    assert form.as_json() == content["forms"]["bfloat16"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda content: content["forms"]["int8"].pop("classifier"), "keys"),
        (lambda content: content["forms"]["int8"].update(classifier=7), "keys"),
        (lambda content: content["forms"]["int8"]["classifier"].update(derived_from="ab" * 32), "another model"),
        (lambda content: content["forms"]["bfloat16"]["classifier"].update(proof={"photos": 9}), "was changed"),
        (lambda content: content["files"].pop("classifier/forms/int8.onnx"), "not in files"),
        (lambda content: content.update(contract={"detection": {}}), "keys"),
    ],
)
def test_malformed_forms_of_two_stages_are_refused(change, fault):
    content = _of_two_stages()
    change(content)
    assert fault in next(proven_forms.faults(content, "classifier/"))
