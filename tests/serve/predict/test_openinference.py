"""The Open Inference Protocol: with plain HTTP, and with a client that others wrote."""

import contextlib
import json

import numpy as np
import pytest
from tests.serve.conftest import TARGETS, listening, sign_in
from tests.serve.detectors import write_detector

from plantml.registry import operations, publishing
from plantml.registry.references import open_model
from plantml.serve.predict import openinference
from plantml.serve.predict.openinference import HEADER, TensorMetadata
from plantml.serve.web.problems import RequestError


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def two_kinds(registry, tmp_path_factory):
    """URL of a registry with a classifier and a detector."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, bundle in (("leaf", f"{registry}/leaf/0001"), ("fruit", write_detector(str(folder / "fruit")))):
        publishing.add(bundle, f"{folder}/models/{name}")
        operations.promote(f"{folder}/models/{name}", 1, operations.GUARDED, why="the first", force=True)
    return f"{folder}/models"


def body(pixels, **more):
    tensor = {"name": "image", "shape": list(pixels.shape), "datatype": "UINT8", "data": pixels.tolist()}
    return {"inputs": [tensor], **more}


def test_the_server_and_its_models_describe_themselves(client):
    headers = sign_in(client, "boss", "admin")
    assert client.get("/v2").json()["name"] == "plantml"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for place, status in (("leaf", 200), ("leaf/versions/2", 200), ("leaf/versions/9", 404), ("other", 404)):
        assert client.get(f"/v2/models/{place}/ready", headers=headers).status_code == status
    metadata = client.get("/v2/models/leaf", headers=headers).json()
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}]
    assert {each["name"]: each["shape"] for each in metadata["outputs"]} == {
        "target.category": [-1, 2], "target.health": [-1, 2], "target.disease": [-1, 3], "embedding": [-1, 3],
        "unknown": [-1],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["leaf", "fruit"])
def test_outputs_are_those_of_the_network(start, two_kinds, pixels, name):
    with start(two_kinds) as client:
        headers = sign_in(client, "boss", "admin")
        answer = client.post(f"/v2/models/{name}/infer", json=body(pixels, id="a"), headers=headers).json()
    _, runtime = open_model(f"{two_kinds}/{name}@1")
    expected = runtime.run(pixels)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a", name, "1")
    assert {each["name"] for each in answer["outputs"]} == set(expected)
    for each in answer["outputs"]:
        assert each["datatype"] == "FP32"
        np.testing.assert_array_equal(np.float32(each["data"]).reshape(each["shape"]), expected[each["name"]])


def test_binary_goes_in_and_out(client, pixels, registry):
    tensor = {
        "name": "image", "shape": [3, 8, 8, 3], "datatype": "UINT8", "parameters": {"binary_data_size": pixels.size},
    }  # fmt: skip
    wanted = [{"name": "unknown", "parameters": {"binary_data": True}}, {"name": "target.health"}]
    header = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    headers = sign_in(client, "boss", "admin") | {HEADER: str(len(header))}
    answer = client.post("/v2/models/leaf/versions/2/infer", content=header + pixels.tobytes(), headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers[HEADER])
    content, expected = json.loads(answer.content[:size]), open_model(f"{registry}/leaf@2")[1].run(pixels)
    assert [each["name"] for each in content["outputs"]] == ["unknown", "target.health"]
    assert content["outputs"][0]["parameters"] == {"binary_data_size": 12}
    np.testing.assert_array_equal(np.frombuffer(answer.content[size:], "<f4"), expected["unknown"])
    np.testing.assert_array_equal(np.float32(content["outputs"][1]["data"]), expected["target.health"].ravel())


def test_what_a_role_does_not_allow_is_not_there(client, pixels):
    headers = sign_in(client, "sorter", "category")
    for text in (
        client.get("/v2/models/leaf", headers=headers).text,
        client.post("/v2/models/leaf/infer", json=body(pixels), headers=headers).text,
    ):
        assert "target.category" in text
        assert not any(word in text for word in ("health", "disease", "embedding"))
    answers = [
        client.post("/v2/models/leaf/infer", json=body(pixels, outputs=[{"name": name}]), headers=headers)
        for name in ("target.disease", "target.weather")
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].text.replace("disease", "weather") == answers[1].text
    stranger = sign_in(client, "stranger", "trainer")
    assert client.post("/v2/models/leaf/infer", json=body(pixels), headers=stranger).status_code == 403
    assert client.post("/v2/models/leaf/infer", json=body(pixels)).status_code == 401


def changed(**changes):
    good = {"name": "image", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": [0] * 192}
    return {"inputs": [{key: value for key, value in (good | changes).items() if value is not None}]}


@pytest.mark.parametrize(
    "content",
    [
        {}, {"inputs": []}, {"inputs": 1}, [], {"inputs": [{}]}, changed(name="pixels"), changed(datatype="FP32"),
        changed(shape=[8, 8, 3]), changed(shape=[0, 8, 8, 3]), changed(shape=[-1, 8, 8, 3]),
        changed(shape=[1, 9, 8, 3]), changed(data=None), changed(data=[0] * 191),
        changed(data=[256] + [0] * 191), changed(data=[-1] + [0] * 191),
        changed(data=[0.5] + [0] * 191), changed(data=["0"] * 192), changed(data=[[0], [0, 1]]),
        changed(data=[10**30] * 192), changed(data=[None] * 192), changed(parameters={"binary_data_size": 192}),
        changed(parameters={"binary_data_size": "x"}), changed() | {"outputs": [{"name": "nothing"}]},
    ],
)  # fmt: skip
def test_a_malformed_request_is_told_why(content):
    assert refusal(json.dumps(content).encode()) == 400


def refusal(body, header=None, most=8):
    """The status of a request for a model of 8 x 8 pixels."""
    image = TensorMetadata(name="image", datatype="UINT8", shape=[-1, 8, 8, 3])
    unknown = TensorMetadata(name="unknown", datatype="FP32", shape=[-1])
    with pytest.raises(RequestError) as error:
        openinference.parse(body, header, image, [unknown], most)
    assert error.value.why
    assert error.value.hint
    return error.value.status


@pytest.mark.parametrize("header", ["-1", "0", "x", "1", "999999", "9" * 5000])
def test_a_wrong_length_of_the_header_is_malformed(header):
    assert refusal(json.dumps(changed()).encode(), header) == 400


def test_too_many_photos_and_a_full_queue_are_refused(client, pixels):
    assert refusal(json.dumps(body(pixels)).encode(), most=2) == 413
    headers = sign_in(client, "boss", "admin")
    answer = client.post("/v2/models/leaf/infer", json=changed(name="pixels"), headers=headers)
    assert answer.status_code == 400
    assert "image" in answer.json()["error"]
    client.service.queue.capacity = 0
    answer = client.post("/v2/models/leaf/infer", json=body(pixels[:1]), headers=headers)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def test_the_client_of_triton_understands_it(client, pixels, registry):
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    headers = sign_in(client, "boss", "admin")
    expected = open_model(f"{registry}/leaf@1")[1].run(pixels)
    with (
        listening(client.app) as url,
        contextlib.closing(triton.InferenceServerClient(url.removeprefix("http://"))) as there,
    ):
        assert there.is_server_live()
        assert there.is_server_ready()
        assert there.is_model_ready("leaf", headers=headers)
        assert there.is_model_ready("leaf", "2", headers=headers)
        assert not there.is_model_ready("leaf", "9", headers=headers)
        assert there.get_server_metadata()["name"] == "plantml"
        assert there.get_model_metadata("leaf", headers=headers)["inputs"][0]["name"] == "image"
        tensor = triton.InferInput("image", list(pixels.shape), "UINT8")
        for in_binary in (True, False):
            tensor.set_data_from_numpy(pixels, binary_data=in_binary)
            wanted = [triton.InferRequestedOutput(f"target.{target.name}", binary_data=in_binary) for target in TARGETS]
            result = there.infer(
                "leaf", [tensor], outputs=wanted, headers={**headers}, request_id="7"
            )  # it adds to them
            for target in TARGETS:
                name = f"target.{target.name}"
                np.testing.assert_array_equal(result.as_numpy(name), expected[name])
            assert result.get_response()["id"] == "7"
        everything = there.infer("leaf", [tensor], headers=headers)
        np.testing.assert_array_equal(everything.as_numpy("embedding"), expected["embedding"])
        with pytest.raises(Exception, match="no version 9"):
            there.infer("leaf", [tensor], model_version="9", headers=headers)
