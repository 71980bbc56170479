"""`POST /v1/predict`: the records of detect, narrowed to what the caller may see; and their history."""

import io
import json
from datetime import timedelta

import polars as pl
import pytest
from PIL import Image
from sqlalchemy import update
from tests.serve.conftest import TARGETS, sign_in, write_bundle
from tests.serve.detectors import write_detector, write_tray

from plantml.concurrency import Stop
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.detect.config import DetectConfig
from plantml.detect.detect import build_pipeline, detect
from plantml.detect.sources import collect
from plantml.errors import InputError, RefusedError
from plantml.model.bundle import Bundle
from plantml.registry import operations, publishing
from plantml.registry.references import open_model
from plantml.serve.database import HistoryEntry, User, now
from plantml.serve.photos import fetching
from plantml.serve.users.visibility import narrowed


@pytest.fixture(scope="module")
def all_models(registry, tmp_path_factory):
    """URL of a registry with a classifier, a detector, one of tiles, and a tray, each in production."""
    folder = tmp_path_factory.mktemp("all")
    url = str(folder / "models")
    bundles = {
        "leaf": f"{registry}/leaf/0001",
        "fruit": write_detector(str(folder / "fruit")),
        "small": write_detector(str(folder / "small"), tile=32),
        "tray": write_tray(str(folder / "tray")),
    }
    for name, bundle in bundles.items():
        publishing.add(bundle, f"{url}/{name}")
        operations.promote(f"{url}/{name}", 1, operations.GUARDED, why="the first", force=True)
    return url


@pytest.fixture(scope="module")
def dataset(write_photos, tmp_path_factory):
    """URL of a dataset of six photos whose labels are their folders."""
    folder = tmp_path_factory.mktemp("data")
    names = [f"{label}/{n}.jpg" for label in ("tomato___healthy", "tomato___rust", "bean___healthy") for n in (1, 2)]
    source = str(write_photos(folder / "source", names))
    import_source(source, str(folder / "leaves"), list_source(source))
    return str(folder / "leaves")


def detected(model, *sources):
    """What `plantml detect` prints."""
    bundle, runtime = open_model(model)
    config, out = DetectConfig(model=model), io.StringIO()
    with Stop() as stop:
        detect(collect(list(sources)), build_pipeline(bundle, runtime, config, 1), config, stdout=out, stop=stop)
    return out.getvalue()


def files(*contents):
    return [("files", (f"{number}.jpg", data, "image/jpeg")) for number, data in enumerate(contents)]


def test_dataset_items_have_the_very_lines_of_detect(start, all_models, dataset):
    version = pl.read_parquet(f"{dataset}/versions/000001.parquet")
    items = [f"leaves@1/{name}" for name in version["name"]]
    assert len(items) == 6
    with start(all_models, dataset=[dataset], batch=2) as client:
        headers = sign_in(client, "boss", "admin") | {"Accept": "application/x-ndjson"}
        for model in ("leaf", "fruit", "small", "tray"):
            answer = client.post(f"/v1/predict?model={model}", json={"items": items}, headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "application/x-ndjson"
            assert answer.text == detected(f"{all_models}/{model}@production", dataset)
            assert all(json.loads(line)["failure"] is None for line in answer.text.splitlines())


def test_files_have_the_records_of_detect_but_for_their_names(client, registry, photo, tmp_path):
    contents = [photo(seed=1), photo(90, 60, seed=2, orientation=6), b"no photo"]
    for number, data in enumerate(contents):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    headers = sign_in(client, "boss", "admin")
    records = client.post("/v1/predict", files=files(*contents), headers=headers).json()["records"]
    lines = detected(f"{registry}/leaf@1", *(str(tmp_path / f"{number}.jpg") for number in range(3)))
    for number, (record, line) in enumerate(zip(records, lines.splitlines(), strict=True)):
        assert record["image"] == f"{number}.jpg"
        assert record | {"image": ""} == json.loads(line) | {"image": ""}


def test_a_photo_may_be_the_body(client, photo):
    headers = sign_in(client, "boss", "admin") | {"Accept": "application/x-ndjson"}
    data = photo(64, 64)
    record = client.post("/v1/predict", files=files(data), headers=headers)
    for kind in ("image/jpeg", "IMAGE/png; q=1"):  # what it is called does not matter
        answer = client.post("/v1/predict", content=data, headers=headers | {"Content-Type": kind})
        assert answer.status_code == 200, answer.text
        assert answer.json()["image"] == ""
        assert answer.json()["failure"] is None
        assert answer.json() == record.json() | {"image": ""}
    empty = client.post("/v1/predict", content=b"", headers=headers | {"Content-Type": "image/jpeg"}).json()
    assert empty["failure"].startswith("empty")


@pytest.mark.parametrize("roles", [["category"], ["health", "disease"], ["fruit"]])
def test_what_a_role_does_not_allow_is_nowhere(start, all_models, photo, roles):
    with start(all_models) as client:
        headers = sign_in(client, "narrow", *roles)
        for model in ("leaf", "fruit", "small", "tray"):
            answer = client.post(f"/v1/predict?model={model}", files=files(photo(200, 160)), headers=headers)
            check_visible(answer, client.get("/v1/predictions", headers=headers).text, model, roles)


def check_visible(answer, history, model, roles):
    """Only what the roles are named after is in an answer, and in the history after it."""
    hidden = {"category", "health", "disease", "fruit", "ripeness"} - set(roles)
    known = {"fruit", "ripeness"} if model in {"fruit", "small"} else {target.name for target in TARGETS}
    if not known & set(roles):
        assert answer.status_code == 403
        assert not any(name in answer.text for name in hidden)
        return
    record = answer.json()["records"][0]
    assert not any(f'"{name}"' in answer.text + history for name in hidden)
    assert set(record["targets"]) == (known & set(roles) if model == "leaf" else set())
    for box in record["boxes"]:
        assert set(box["targets"]) == known & set(roles)
    if model != "leaf":
        assert record["boxes"]
        assert set(record["counts"]) == {"boxes"} | (known & set(roles))


def test_the_decision_is_that_of_the_visible_targets(start, tmp_path, photo):
    """So nothing hidden can be guessed from it: here the thresholds of the other targets are out of reach."""
    bundle, runtime = open_model(write_bundle(str(tmp_path / "bundle"), 3))
    strict = {"category": 0.0, "health": 2.0, "disease": 2.0}
    contract = bundle.contract.model_copy(update={"thresholds": strict})
    pipeline = build_pipeline(Bundle(bundle.url, contract, bundle.digest, {}), runtime, DetectConfig(), 1)
    data = [("a", photo())]
    assert pipeline.predict_bytes(data)[0].decision == "review"
    assert narrowed(pipeline, {"category"}).predict_bytes(data)[0].decision == "accept"
    assert narrowed(pipeline, {"health"}).predict_bytes(data)[0].decision == "review"
    unlike = contract.model_copy(update={"unknown_threshold": -1.0})
    far = build_pipeline(Bundle(bundle.url, unlike, bundle.digest, {}), runtime, DetectConfig(), 1)
    assert narrowed(far, {"category"}).predict_bytes(data)[0].decision == "unknown"


def test_urls_are_fetched_and_a_failure_is_a_record(start, photo, monkeypatch):
    def fetch(url, limit):
        if "away" in url:
            raise InputError(f"{url} could not be fetched", "no route", "")
        if "inside" in url:
            raise RefusedError(f"{url} is not fetched", "it is private", "")
        return photo(seed=4)

    monkeypatch.setattr(fetching, "fetch", fetch)
    urls = ["https://a.example/leaf.jpg", "https://away.example/x.jpg", "http://inside.example/"]
    with start() as client:
        headers = sign_in(client, "boss", "admin")
        records = client.post("/v1/predict", json={"urls": urls}, headers=headers).json()["records"]
    assert [record["image"] for record in records] == urls
    assert records[0]["targets"]
    assert [record["failure"].split(":")[0] for record in records[1:]] == ["unreachable", "refused"]


def test_offline_fetches_nothing(start, monkeypatch):
    monkeypatch.setenv("PLANTML_OFFLINE", "1")
    monkeypatch.setattr(fetching, "fetch", lambda *_: pytest.fail("it was fetched"))
    with start() as client:
        headers = sign_in(client, "boss", "admin")
        answer = client.post("/v1/predict", json={"urls": ["https://a.example/leaf.jpg"]}, headers=headers)
    assert answer.json()["records"][0]["failure"].startswith("refused")


def test_a_request_that_makes_no_sense_is_told_so(start, dataset):
    requests = [
        (422, {"json": {}}),
        (422, {"json": {"urls": 1}}),
        (422, {"json": {"paths": ["/etc/passwd"]}}),
        (422, {"content": b'{"urls": ["\\ud800"]}', "headers": {"Content-Type": "application/json"}}),
        (422, {"files": [("other", ("a.jpg", b"x", "image/jpeg"))]}),
        (415, {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        (415, {}),
        (400, {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}),
        (413, {"json": {"urls": ["https://a.example"] * 5}}),
        (413, {"files": files(*[b"x"] * 5)}),
        (404, {"json": {"items": ["other/a.jpg"]}}),
        (404, {"json": {"items": ["leaves/none.jpg"]}}),
        (404, {"json": {"items": ["leaves@7/tomato___rust/1.jpg"]}}),
        (404, {"json": {"items": ["../leaves/none.jpg"]}}),
    ]
    with start(dataset=[dataset], max_photos=4) as client:
        signed_in = sign_in(client, "boss", "admin")
        for status, request in requests:
            headers = signed_in | request.get("headers", {})
            answer = client.post("/v1/predict", **request | {"headers": headers})
            assert answer.status_code == status, (request, answer.text)
            assert answer.json()["title"]
            assert answer.json()["hint"]


def test_there_is_no_such_model(client, photo):
    headers = sign_in(client, "boss", "admin")
    for ref in ("leaf@9", "leaf@nothing", "other", "../leaf", "leaf@1@2", "leaf@" + "9" * 200):
        answer = client.post("/v1/predict", params={"model": ref}, files=files(photo()), headers=headers)
        assert answer.status_code == 404, answer.text


def test_a_full_queue_refuses_before_the_body_is_read(start, photo):
    with start(queue=1) as client:
        headers = sign_in(client, "boss", "admin")
        answer = client.post("/v1/predict", files=files(photo(), photo()), headers=headers)
        assert answer.status_code == 413  # never more than can wait
        client.service.queue.capacity = 0
        answer = client.post("/v1/predict", files=files(photo()), headers=headers)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def test_similar_photos_have_visible_labels_only(start, dataset, photo):
    with start(dataset=[dataset]) as client:
        boss, sorter = sign_in(client, "boss", "admin"), sign_in(client, "sorter", "category")
        item = {"items": ["leaves/tomato___rust/1.jpg"]}
        (record,) = client.post("/v1/predict?similar=2", json=item, headers=boss).json()["records"]
        answer = client.post("/v1/predict?similar=3", files=files(photo()), headers=sorter)
    first, second = record["similar"]
    assert first["name"] == "tomato___rust/1.jpg"
    assert first["cosine"] == pytest.approx(1, abs=1e-3)
    assert first["labels"] == {"category": "tomato", "health": "diseased", "disease": "rust"}
    assert first["url"] == f"/v1/datasets/leaves/photos/{record['image_id']}"
    assert first["cosine"] >= second["cosine"]
    similar = answer.json()["records"][0]["similar"]
    assert len(similar) == 3
    assert all(set(each["labels"]) == {"category"} and not each["name"] for each in similar)
    assert "rust" not in answer.text


def plain(colour):
    Image.new("RGB", (16, 16), colour).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def test_advice_is_for_visible_targets(start, tmp_path):
    texts = {"category": {"bean": "B", "tomato": "T"}, "disease": {"none": "N", "rust": "R", "blight": "X"}}
    (advice := tmp_path / "advice.yaml").write_text(json.dumps(texts))
    with start(advice=str(advice)) as client:
        boss, sorter = sign_in(client, "boss", "admin"), sign_in(client, "sorter", "category")
        photos = files(*map(plain, ("red", "green", "blue", "yellow", "cyan", "magenta", "white")))
        wide = client.post("/v1/predict?advice=true", files=photos, headers=boss).json()["records"]
        narrow = client.post("/v1/predict?advice=true", files=photos, headers=sorter).json()["records"]
    accepted = [pair for pair in zip(wide, narrow, strict=True) if pair[0]["decision"] == "accept"]
    assert accepted
    for one, other in accepted:
        labels = {target: one["targets"][target]["label"] for target in texts}
        assert one["advice"] == {target: texts[target][label] for target, label in labels.items()}
        assert other["advice"] == {"category": texts["category"][labels["category"]]}


def test_what_the_server_does_not_have_cannot_be_asked_for(client, photo):
    headers = sign_in(client, "boss", "admin")
    for wish in ("advice=true", "similar=1"):
        assert client.post(f"/v1/predict?{wish}", files=files(photo()), headers=headers).status_code == 400


def test_the_history_is_of_the_caller_and_ends(start, photo):
    with start(keep_history=86_400.0) as client:
        boss, other = sign_in(client, "boss", "admin"), sign_in(client, "other", "category", "disease")
        records = client.post("/v1/predict", files=files(photo(seed=1), photo(seed=2)), headers=other).json()["records"]
        assert client.get("/v1/predictions", headers=boss).json() == []
        page = client.get("/v1/predictions?limit=1", headers=other).json()
        rest = client.get(f"/v1/predictions?before={page[0]['id']}", headers=other).json()
        assert [each["record"] for each in page + rest] == records[::-1]
        assert page[0]["model"] == "leaf@1"
        with client.service.database.session() as session:
            session.execute(update(HistoryEntry).values(time=now() - timedelta(days=2)))
        assert client.get("/v1/predictions", headers=other).json() == []
        client.post("/v1/predict", files=files(photo()), headers=other)
        assert len(client.get("/v1/predictions", headers=other).json()) == 1


def test_a_lost_role_hides_what_was_seen_before(client, photo):
    headers = sign_in(client, "worker", "category", "disease")
    client.post("/v1/predict", files=files(photo()), headers=headers)
    assert set(client.get("/v1/predictions", headers=headers).json()[0]["record"]["targets"]) == {"category", "disease"}
    with client.service.database.session() as session:
        session.execute(update(User).values(roles=["category"]))
    record = client.get("/v1/predictions", headers=headers).json()[0]["record"]
    assert set(record["targets"]) == {"category"}
    assert record["decision"] is None
