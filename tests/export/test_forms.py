"""Every form answers as the bundle does, wherever it is used, and a spoilt one is not published."""

import functools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load, save

import plantml
from plantml.errors import Exit, PlantmlError
from plantml.export import onnx as onnx_form
from plantml.export import openvino as openvino_form
from plantml.export.forms import FORMS
from plantml.export.pt2 import to_pt2
from plantml.model import bundle as bundles
from plantml.model import file_formats, runtimes, torch_programs

pytest.importorskip("openvino")
NAMES = list(FORMS)
EXACT = [name for name, form in FORMS.items() if form.exact]


@pytest.fixture
def publish(cli, trained, ready, untimed, tmp_path):
    """`publish(name, files)`: the result of exporting, and where to."""

    def export(name, files=None, *options):
        ready(name, files)
        to = tmp_path / "out" / FORMS[name].file
        return cli("export", trained.run, "--to", to, "--format", name, "--json", *options), to

    return export


# --- every form is used by all commands -------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_detect_and_validate_say_the_same_of_a_form(cli, trained, publish, name, tmp_path):
    result, to = publish(name)
    assert result.code == Exit.DONE, result.err
    assert not [path for path in to.parent.iterdir() if path.suffix not in FORMS[name].kind.extensions]
    opened, _ = runtimes.open_model(str(to))
    leaves = sorted(Path(trained.photos).rglob("*.jpg"))[:24]
    records = tmp_path / "records.jsonl"
    assert cli("detect", *leaves, "--model", to, "--out", records).code == Exit.DONE
    outcome = {Path(record["image"]).name: record for record in map(json.loads, records.read_text().splitlines())}
    assert {record["model"] for record in outcome.values()} == {opened.digest}
    if FORMS[name].exact:
        assert labels(list(outcome.values())) == labels(plantml.load(trained.run).predict(leaves).records)
        assert opened.digest == plantml.load(trained.run).digest
    validated = cli("validate", trained.data, "--model", to, "--split", "all", "--out", tmp_path / "judged", "--json")
    assert validated.code == Exit.DONE, validated.err
    assert labels(list(outcome.values())) == validated_labels(tmp_path / "judged", outcome)


def labels(records):
    return [
        {name: answer["label"] for name, answer in record["targets"].items() if "label" in answer} for record in records
    ]


def validated_labels(folder, records):
    import polars as pl

    table = {row["image_id"]: row for row in pl.read_parquet(folder / "predictions.parquet").to_dicts()}
    rows = [table[record["image_id"]] for record in records.values()]
    return [{name: row[f"{name}_predicted"] for name in ("category", "health", "disease")} for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_the_proof_is_inside_the_file(publish, name):
    result, to = publish(name)
    data = to.read_bytes()
    if to.suffix == ".onnx":
        notes = runtimes.OnnxRuntime(data).metadata
    elif to.suffix == ".xml":
        notes = runtimes.OpenVinoRuntime(data, to.with_suffix(".bin").read_bytes()).metadata
    else:
        notes = torch_programs.unpack(str(to), data).notes
    messages = json.loads(notes[runtimes.PROOF_KEY])
    assert messages["photos"] == result.json["photos"] > 0
    assert messages["agreement"] == result.json["agreement"]
    assert messages["format"] == name
    assert set(messages["speed"]) == {"1", "32"}
    assert b"/plantml/network.py" not in data, "the file names places of the machine that made it"


def test_a_benchmark_prints_all_and_writes_nothing(cli, trained, ready, untimed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        ready(name)
    result = cli("export", trained.run, "--benchmark")
    assert result.code == Exit.DONE, result.err
    for name in ("bundle", *NAMES):
        assert f" {name} " in result.out
    assert not list(tmp_path.iterdir())


# --- sabotage ---------------------------------------------------------------------------------


def tensor(model, ending):
    return next(entry for entry in model.graph.initializer if entry.name.endswith(ending))


def change(model, ending, work):
    entry = tensor(model, ending)
    entry.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(work(numpy_helper.to_array(entry))), entry.name))


def swap_classes(model):
    for target in ("category", "health"):
        for part in ("weight", "bias"):
            change(model, f"net.heads.{target}.{part}", lambda numbers: numbers[::-1])


def lose_a_class(model):
    for name in ("net.heads.category.weight", "net.heads.category.bias", "bias_category"):
        change(model, name, lambda numbers: numbers[:1])
    answer = next(output for output in model.graph.output if output.name == "target.category")
    answer.type.tensor_type.shape.dim[1].dim_value = 1
    del model.graph.value_info[:]


def wrong_mean(model):
    subtraction = next(node for node in model.graph.node if node.op_type == "Sub")
    change(model, subtraction.input[1], lambda numbers: numbers * np.float32(0.1))


def swap_channels(model):
    stem = next(
        entry.name
        for entry in model.graph.initializer
        if entry.name.startswith("net.backbone.conv_stem") and len(entry.dims) == 4
    )
    change(model, stem, lambda numbers: numbers[:, ::-1])


def answer_no_number(model):
    change(model, "net.heads.severity.bias", lambda numbers: numbers * np.float32(np.nan))


SABOTAGE = [swap_classes, lose_a_class, wrong_mean, swap_channels, answer_no_number]


@pytest.fixture(scope="module")
def spoilt(every_form):
    """`spoilt(name, sabotage)`: the files of a form with something wrong in them, each made once."""
    return functools.cache(functools.partial(_spoil, every_form))


def _spoil(every_form, name, sabotage):
    contract, digest = every_form.bundle.contract, every_form.bundle.digest
    files = every_form.made[name].files
    if name == "pt2":
        by_name = {
            swap_classes: ("net.heads.category.weight", lambda numbers: numbers.flip(0)),
            wrong_mean: ("net.mean", lambda numbers: numbers * 0.98),
            swap_channels: ("net.backbone.conv_stem.weight", lambda numbers: numbers.flip(1)),
            answer_no_number: ("net.heads.severity.bias", lambda numbers: numbers * torch.nan),
        }
        if sabotage is lose_a_class:
            state = load(every_form.bundle.read(bundles.WEIGHTS))
            targets = [target for target in contract.targets if target.name != "category"]
            fewer = contract.model_copy(update={"targets": tuple(targets)})
            for key in [key for key in state if key.startswith("net.heads.category")]:
                del state[key]
            archive = to_pt2(fewer, save(state), digest)
            return [torch_programs.annotated(archive, onnx_form.notes_of(contract, digest))]
        return [_with_weight(files[0], every_form.bundle, *by_name[sabotage])]
    model = onnx.load_from_string(every_form.made["onnx"].files[0] if name == "openvino" else files[0])
    sabotage(model)
    data = file_formats.seal(model.SerializeToString())  # what is wrong is not told by the seal already
    return openvino_form.to_openvino(data, onnx_form.notes_of(contract, digest)) if name == "openvino" else [data]


def _with_weight(archive, bundle, key, work):
    """An archive with another tensor of that name, and a seal that fits."""
    members = torch_programs._members(archive)
    config = json.loads(members[torch_programs.WEIGHTS])["config"]
    file = f"data/weights/{config[key]['path_name']}"
    tensor = work(load(bundle.read(bundles.WEIGHTS))[key]).contiguous()
    assert len(members[file]) == tensor.nbytes
    members[file] = tensor.numpy().tobytes()
    return torch_programs.annotated(torch_programs._zipped(members), {})


@pytest.mark.parametrize("sabotage", SABOTAGE)
@pytest.mark.parametrize("name", NAMES)
def test_a_spoilt_form_is_not_published(spoilt, publish, name, sabotage):
    result, to = publish(name, spoilt(name, sabotage))
    assert result.code == Exit.GATE, result.out
    assert not to.parent.exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_form_is_not_published(every_form, publish, name, share):
    files = list(every_form.made[name].files)
    files[-1] = files[-1][: int(len(files[-1]) * share)]
    result, to = publish(name, files)
    assert result.code == Exit.GATE, result.out
    assert not to.parent.exists()


def test_a_refused_export_leaves_the_earlier_one_and_shows_its_numbers(spoilt, publish):
    first, to = publish("onnx")
    before = to.read_bytes()
    result, _ = publish("onnx", spoilt("onnx", swap_classes))
    assert first.code == Exit.DONE
    assert result.code == Exit.GATE
    assert result.json["agreement"] < 1
    assert result.json["refused"]
    assert to.read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_published_file_is_not_opened(publish, name):
    _, to = publish(name)
    last = to.with_suffix(FORMS[name].kind.extensions[-1])
    data = last.read_bytes()
    last.write_bytes(data[: len(data) // 2])
    with pytest.raises(PlantmlError):
        runtimes.open_model(str(to))


@pytest.mark.parametrize("name", EXACT)
def test_a_file_that_lost_a_class_is_not_opened(spoilt, name):
    form = FORMS[name]
    with pytest.raises(PlantmlError):
        form.kind.read("leaf", *spoilt(name, lose_a_class))
