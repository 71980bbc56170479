"""The commands as a user types them, over a model that was really trained."""

import json

import pytest

import plantml
from plantml import storage
from plantml.errors import Exit, InputError
from plantml.registry.references import find


def test_from_a_run_to_service_and_back(cli, trained, tmp_path, s3_url):
    model, shown = f"{s3_url}/models/leaf", tmp_path / "evidence"
    added = cli("models", "add", trained.run, model, "--by", "ann", "--why", "the first", "--json")
    assert added.code == 0, added.err
    digest = find(trained.run).digest
    assert {key: added.json[key] for key in ("command", "version", "digest", "changed")} == {
        "command": "models add", "version": 1, "digest": digest, "changed": True,
    }  # fmt: skip
    again = cli("models", "add", trained.run, model)
    assert "Nothing to do" in again.out
    assert f"Next: plantml validate {trained.data} --model {model}@1 --out evidence" in again.out

    refused = cli("models", "promote", f"{model}@1", "production", "--json")
    assert refused.code == Exit.GATE
    assert refused.json["error"]["why"] == "there is no evidence"
    judged = cli("validate", trained.data, "--model", f"{model}@1", "--out", shown, "--json")
    assert judged.code == 0, judged.err
    assert (judged.json["model"], judged.json["model_ref"]) == (digest, f"{model}@1")
    promoted = cli("models", "promote", f"{model}@1", "production", "--evidence", shown, "--json")
    assert (promoted.code, promoted.json["version"], promoted.json["before"]) == (0, 1, 0)

    listed = cli("models", "list", f"{s3_url}/models", "--json").json["models"]
    assert [(each["model"], each["aliases"]) for each in listed] == [(model, {"production": 1})]
    assert "production" in cli("models", "list", model).out
    details = cli("models", "show", f"{model}@production", "--json").json
    assert (details["digest"], details["lineage"]["dataset"]["version"]) == (digest, 2)
    assert details["config"]["epochs"] == 2
    assert [act["act"] for act in details["acts"]] == ["add", "promote"]
    assert "# " in cli("models", "show", f"{model}@1", "--card").out
    same = cli("models", "diff", f"{model}@1", trained.run)
    assert "the same model" in same.out
    history = cli("models", "history", model).out
    assert "none → 1" in history
    assert "ann" in history

    assert cli("models", "rollback", model).code == Exit.INPUT
    assert cli("models", "remove", f"{model}@1").code == Exit.GATE
    assert cli("models", "verify", model, "--json").json["sound"]
    assert cli("models", "unalias", model, "production", "--why", "over").code == 0
    assert cli("models", "remove", f"{model}@1", "--why", "over").code == 0
    assert "0 files" not in cli("models", "gc", model, "--dry-run", "--min-age", "0").out
    assert cli("models", "gc", model, "--min-age", "0", "--json").json["removed"] == [1]
    assert not storage.exists(f"{model}/0001/model.json")
    assert cli("models", "add", trained.run, model, "--json").json["version"] == 2


@pytest.mark.parametrize("option", [("--data", "leaves"), ("--max-drop", 0)])
def test_models_add_takes_no_option_of_a_comparison_without_a_form(cli, make_bundle, tmp_path, option):
    result = cli("models", "add", make_bundle(1), tmp_path / "models/leaf", *option)
    assert result.code == Exit.USAGE
    assert "Next: Add a form, such as --form int8" in " ".join(result.err.split())
    assert not (tmp_path / "models").exists()


def test_a_damaged_file_fails_the_check(cli, make_bundle, tmp_path):
    model = tmp_path / "models/leaf"
    cli("models", "add", make_bundle(1), model)
    card = model / "0001/README.md"
    card.write_bytes(card.read_bytes() + b"!")
    checked = cli("models", "verify", f"{model}@1", "--json")
    assert (checked.code, checked.json["damaged"]) == (Exit.GATE, ["0001/README.md"])
    (model / "0001/model.onnx").unlink()
    assert cli("models", "verify", model, "--json").json["missing"] == ["0001/model.onnx"]


def test_two_models_beside_each_other(cli, make_bundle, tmp_path):
    model = tmp_path / "models/leaf"
    cli("models", "add", make_bundle(1), model)
    cli("models", "add", make_bundle(2, classes=("bean", "fig"), dataset=("other", 3, "ab")), model)
    difference = cli("models", "diff", f"{model}@1", f"{model}@2", "--json").json
    assert difference["metrics"]["macro_f1"] == [0.501, 0.502]
    assert difference["classes"] == {"category": [["tomato"], ["fig"]]}
    assert not difference["same_data"]
    page = cli("models", "diff", f"{model}@1", f"{model}@2").out
    assert f"category: only {model}@2 knows fig" in page
    assert "+0.0010" in page


def test_a_copy_and_a_pack_go_elsewhere(cli, make_bundle, tmp_path, url):
    model, pack = tmp_path / "models/leaf", tmp_path / "leaf.plantml"
    cli("models", "add", make_bundle(1), model, "--alias", "challenger")
    copied = cli("models", "copy", f"{model}@challenger", f"{url}/there/leaf", "--json")
    assert (copied.code, copied.json["version"]) == (0, 1)
    packed = cli("models", "pack", f"{url}/there/leaf@1", pack, "--json")
    assert packed.json["digest"] == copied.json["digest"]
    taken = cli("models", "add", pack, f"{url}/third/leaf", "--json")
    assert taken.json["digest"] == copied.json["digest"]
    assert cli("models", "copy", tmp_path, f"{url}/third/leaf").code == Exit.INPUT


def test_the_one_who_comes_late_is_told(cli, make_bundle, tmp_path):
    model = tmp_path / "models/leaf"
    for seed in (1, 2):
        cli("models", "add", make_bundle(seed), model)
    force = ("--force", "--why", "a test", "--by", "ann")
    assert cli("models", "promote", f"{model}@1", "production", *force, "--expect", 0).code == 0
    late = cli("models", "promote", f"{model}@2", "production", *force, "--expect", 0)
    assert late.code == Exit.GATE
    assert "was moved in the meantime" in late.err
    assert "by ann" in late.err
    without = cli("models", "promote", f"{model}@2", "production", "--force")
    assert without.code == Exit.USAGE


def test_what_is_missing_is_told_with_the_next_step(cli, tmp_path):
    for words in (("list", tmp_path / "none"), ("history", tmp_path / "none"), ("show", tmp_path / "none@1")):
        done = cli("models", *words)
        assert done.code == Exit.INPUT, words
        assert "Next:" in done.err or "Nothing found" in done.err
    assert cli("models", "list", tmp_path, "--json").json["models"] == []
    assert json.loads(cli("models", "promote", "none@1", "production", "--json").out)["error"]["exit_code"] == 3


def exchanged(url):
    """Two classes of a bundle change places in its contract, which nothing else says."""
    content = json.loads(storage.read(f"{url}/model.json"))
    target = content["contract"]["targets"][0]
    target["classes"] = target["classes"][::-1]
    storage.write(f"{url}/model.json", json.dumps(content).encode())


def test_every_command_refuses_a_model_whose_contract_was_edited(cli, make_bundle, photo, tmp_path):
    model, bundle_url = tmp_path / "models/leaf", make_bundle(1)
    assert cli("models", "add", bundle_url, model).code == 0
    (tmp_path / "photo.jpg").write_bytes(photo())
    exchanged(bundle_url)
    exchanged(f"{model}/0001")
    for ref in (bundle_url, f"{model}@1", f"{model}/0001"):
        for command in (
            ("detect", tmp_path / "photo.jpg", "--model", ref),
            ("detect", tmp_path / "photo.jpg", "--model", ref, "--runtime", "torch"),
            ("detect", tmp_path / "photo.jpg", "--model", ref, "--runtime", "openvino"),
            ("validate", tmp_path, "--model", ref),
            ("export", ref, "--to", tmp_path / "leaf.onnx"),
            ("models", "add", ref, tmp_path / "models/other"),
            ("models", "pack", ref, tmp_path / "leaf.plantml"),
            ("models", "show", ref),
        ):
            ended = cli(*command)
            assert (ended.code, "holds another contract" in ended.err) == (Exit.INPUT, True), (command, ended.err)
        with pytest.raises(InputError, match="holds another contract"):
            plantml.load(ref)
    assert cli("models", "promote", f"{model}@1", "staging").code == Exit.INPUT
    assert not cli("models", "verify", model, "--json").json["sound"]


def test_a_version_that_was_replaced_is_not_the_model_that_was_added(cli, make_bundle, bundle_files, tmp_path):
    model = tmp_path / "models/leaf"
    cli("models", "add", make_bundle(1), model)
    storage.publish(f"{model}/0001", bundle_files(2))
    ended = cli("models", "show", f"{model}@1")
    assert (ended.code, "is not the model that was added" in ended.err) == (Exit.INPUT, True)
