import gc
import hashlib
import io
import itertools
import json
import shutil
import weakref
from pathlib import Path

import pytest

import plantml
from plantml.errors import NotFoundError, PlantmlError, UsageError
from plantml.model.bundle import find


@pytest.fixture(scope="module")
def model(trained):
    return plantml.load(trained.run, threads=2, batch=4)


@pytest.fixture(scope="module")
def leaves(trained):
    return [str(file) for file in sorted(Path(trained.photos).rglob("*.jpg"))[:9]]


def test_a_model_knows_its_contract_and_name(trained, model):
    assert model.contract == find(trained.run).contract
    assert model.digest == find(trained.run).digest


def test_what_is_in_use_is_not_loaded_again(trained, model):
    again = plantml.load(trained.run, threads=1, top_k=1)
    assert again.pipeline.runtime is model.pipeline.runtime
    assert (again.pipeline.threads, model.pipeline.threads) == (1, 2)


def test_a_changed_file_is_verified_again(trained, tmp_path):
    shutil.copytree(f"{trained.run}/bundle", tmp_path / "bundle")
    model = plantml.load(tmp_path / "bundle")
    file = tmp_path / "bundle" / "model.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(PlantmlError, match=r"model\.onnx"):
        plantml.load(tmp_path / "bundle")
    assert model.digest


def test_a_session_ends_with_the_last_model_that_uses_it(trained, tmp_path):
    shutil.copytree(f"{trained.run}/bundle", tmp_path / "bundle")
    runtime = weakref.ref(plantml.load(tmp_path / "bundle").pipeline.runtime)
    gc.collect()
    assert runtime() is None


def test_records_are_those_that_detect_writes(trained, cli, model, leaves, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    paths = [*leaves, str(tmp_path / "empty.jpg"), str(tmp_path / "gone.jpg")]
    cli("detect", *paths, "--model", trained.run, "--out", tmp_path / "records.jsonl")
    written = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert model.predict(paths).records == written
    assert [record["image"] for record in written] == paths
    assert sum(record["failure"] is not None for record in written) == 2


def test_one_image_may_be_text_a_path_or_bytes(model, leaves):
    (as_text,) = model.predict(leaves[0]).records
    (as_path,) = model.predict(Path(leaves[0])).records
    (as_bytes,) = model.predict(Path(leaves[0]).read_bytes()).records
    assert as_text["image"] == leaves[0]
    assert as_path == as_text
    assert as_bytes == as_text | {"image": ""}


def test_a_mixture_keeps_its_order(model, leaves):
    data = [Path(leaf).read_bytes() for leaf in leaves]
    mixed = [data[0], leaves[1], Path(leaves[2]), data[3], data[4], leaves[5], b"no image"]
    ids = [hashlib.sha256(part).hexdigest() for part in [*data[:6], b"no image"]]
    records = model.predict(mixed).records
    assert [record["image_id"] for record in records] == ids
    assert [record["failure"] is None for record in records] == [True] * 6 + [False]


def test_nothing_gives_nothing(model):
    assert model.predict([]).records == []


def test_a_stream_does_not_wait_for_its_end(trained, leaves):
    small = plantml.load(Path(trained.run), threads=1, batch=1)
    first = next(small.stream(itertools.repeat(leaves[0])))
    assert first.image == leaves[0]


def test_top_k_is_how_many_classes_are_named(trained, leaves):
    (record,) = plantml.load(trained.run, top_k=1).predict(leaves[0]).records
    assert [len(record["targets"][name]["top"]) for name in ("category", "disease")] == [1, 1]


def test_the_file_alone_says_the_same(trained, model, leaves):
    alone = plantml.load(f"{trained.run}/bundle/model.onnx")
    assert alone.predict(leaves).records == model.predict(leaves).records


def test_batch_and_threads_change_nothing(trained, model, leaves):
    assert plantml.load(trained.run, threads=3, batch=2).predict(leaves).records == model.predict(leaves).records


@pytest.mark.parametrize("name", ["threads", "batch", "top_k"])
@pytest.mark.parametrize("number", [0, -1, 2.5, "2"])
def test_numbers_that_cannot_be_are_refused(trained, name, number):
    with pytest.raises(UsageError, match=f"{name} is"):
        plantml.load(trained.run, **{name: number})


@pytest.mark.parametrize("thing", [None, 3, {"a.jpg": 1}, [None], [3], io.BytesIO(b"a\nb")])
def test_what_is_no_image_is_wrong_usage(model, thing):
    with pytest.raises(UsageError, match="is not an image"):
        model.predict(thing)


def test_one_image_may_come_in_any_container_of_bytes_and_as_a_stream(model, leaves):
    data = Path(leaves[0]).read_bytes()
    assert model.predict(bytearray(data)).records == model.predict(memoryview(data)).records
    assert model.predict(bytearray(data)).records == model.predict(data).records
    assert [each.image for each in model.stream(leaves[0])] == [leaves[0]]


def test_what_cannot_be_loaded_says_why(trained, tmp_path):
    with pytest.raises(NotFoundError, match="no model"):
        plantml.load(tmp_path)
    with pytest.raises(UsageError, match="abacus"):
        plantml.load(trained.run, runtime="abacus")
