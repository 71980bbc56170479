"""The pool of open models: aliases that move, registries that go away, bounded memory."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.serve.conftest import make_registry, sign_in, write_bundle

from plantml import settings
from plantml.errors import NotFoundError, StorageError, UsageError
from plantml.registry import ledger, operations, publishing, references
from plantml.serve.config import ServeConfig
from plantml.serve.models.model_pool import ModelPool


@pytest.fixture
def own_registry(tmp_path):
    """As `registry`, but to be changed."""
    return make_registry(tmp_path)


@pytest.fixture
def pool_of():
    """`pool_of(registry, **settings)`: a pool that looks at aliases every time."""

    def make(registry, **changes):
        return ModelPool(registry, ServeConfig(**{"poll": 0.001, "threads": 1, **changes}), settings.machine())

    return make


def promote(registry, number):
    operations.promote(f"{registry}/leaf", number, operations.GUARDED, why="better", force=True)


def test_an_alias_is_followed_and_a_number_is_not(pool_of, own_registry):
    pool = pool_of(own_registry)
    assert [pool.get(ref).ref for ref in (None, "leaf", "leaf@production", "@2")] == ["leaf@1"] * 3 + ["leaf@2"]
    promote(own_registry, 2)
    time.sleep(0.01)
    assert pool.get().ref == "leaf@2"
    assert pool.get("leaf@1").ref == "leaf@1"
    assert pool.in_service() == {"leaf@production": "leaf@2"}


def test_an_alias_is_not_looked_up_for_every_request(pool_of, own_registry, monkeypatch):
    pool = pool_of(own_registry, poll=60)
    pool.get("leaf")
    monkeypatch.setattr(ledger, "History", lambda _: pytest.fail("it looked again"))
    assert pool.get("leaf") is pool.get("leaf")


def test_others_go_on_while_the_next_version_is_opened(pool_of, own_registry, monkeypatch):
    pool = pool_of(own_registry)
    old = pool.get()
    opening, go = threading.Event(), threading.Event()
    really = references.open_model

    def slowly(ref, **more):
        opening.set()
        assert go.wait(10)
        return really(ref, **more)

    monkeypatch.setattr(references, "open_model", slowly)
    promote(own_registry, 2)
    time.sleep(0.01)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(pool.get)
        assert opening.wait(10)
        assert pool.get() is old
        go.set()
        assert first.result().ref == "leaf@2"
    assert pool.get().ref == "leaf@2"


def test_each_version_is_opened_once(pool_of, registry, monkeypatch):
    opened = []
    really = references.open_model

    def slowly(ref, **more):
        opened.append(ref)
        time.sleep(0.05)
        return really(ref, **more)

    monkeypatch.setattr(references, "open_model", slowly)
    pool = pool_of(registry)
    with ThreadPoolExecutor(8) as threads:
        models = list(threads.map(lambda _: pool.get(), range(8)))
    assert len(opened) == 1
    assert len(set(models)) == 1


def test_the_least_recently_used_makes_room(pool_of, tmp_path):
    for number in range(3):
        publishing.add(write_bundle(str(tmp_path / f"bundle-{number}"), number), str(tmp_path / "models" / "leaf"))
    pool = pool_of(str(tmp_path / "models"), open_models=2)
    first, second = pool.get("leaf@1"), pool.get("leaf@2")
    assert pool.get("leaf@1") is first
    pool.get("leaf@3")
    assert {model.ref for model in pool.opened()} == {"leaf@1", "leaf@3"}
    assert pool.get("leaf@2") is not second


def test_a_registry_that_goes_away_changes_nothing(pool_of, own_registry, monkeypatch):
    pool = pool_of(own_registry)
    model = pool.get()

    def away(*_):
        raise StorageError("The storage failed")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.History, "ledger", away)
        time.sleep(0.01)
        assert pool.get("leaf") is model
        with pytest.raises(StorageError):
            pool.get("leaf@2")
    promote(own_registry, 2)
    time.sleep(0.01)
    assert pool.get("leaf").ref == "leaf@2"


def test_a_damaged_version_does_not_replace_the_one_in_service(pool_of, own_registry):
    pool = pool_of(own_registry)
    model = pool.get()
    promote(own_registry, 2)
    Path(own_registry, "leaf", "0002", "model.onnx").write_bytes(b"no model")
    time.sleep(0.01)
    assert pool.get() is model
    with pytest.raises(StorageError, match=r"cannot be opened|damaged"):
        pool.get("leaf@2")


def test_what_is_not_there_is_not_found(pool_of, own_registry, tmp_path):
    pool = pool_of(own_registry)
    for ref in ("leaf@7", "leaf@nothing", "other", "other@1", "../models/leaf", "a" * 500):
        with pytest.raises(NotFoundError):
            pool.get(ref)
    pool.get("leaf@production")
    operations.unalias(f"{own_registry}/leaf", "production", why="none is good")
    time.sleep(0.01)
    with pytest.raises(NotFoundError):
        pool.get("leaf@production")


def test_the_default_is_the_only_model_or_the_one_that_is_set(pool_of, own_registry, tmp_path):
    publishing.add(write_bundle(str(tmp_path / "more"), 3), f"{own_registry}/other")
    with pytest.raises(UsageError, match="No model is named"):
        pool_of(own_registry).get()
    assert pool_of(own_registry).check() == ""
    assert pool_of(own_registry, model="other@1").get().ref == "other@1"
    assert pool_of(own_registry, model="other@1").get("leaf").ref == "leaf@1"
    assert pool_of(own_registry, model="leaf").check() == "leaf@1"
    assert pool_of(str(tmp_path / "empty")).check() == ""


def test_no_answer_is_lost_or_mixed_while_the_alias_moves(start, own_registry, photo):
    digests = {number: references.find(f"{own_registry}/leaf@{number}").digest for number in (1, 2)}
    files = [("files", (f"{n}.jpg", photo(seed=n), "image/jpeg")) for n in range(3)]
    with start(own_registry, poll=0.001, threads=2, batch=2) as client:
        headers = sign_in(client, "boss", "admin")
        alone = {
            number: client.post(f"/v1/predict?model=leaf@{number}", files=files, headers=headers).json()["records"]
            for number in digests
        }
        end, answers = threading.Event(), []

        def hammer():
            while not end.is_set():
                answers.append(client.post("/v1/predict", files=files, headers=headers))

        with ThreadPoolExecutor(3) as threads:
            hammering = [threads.submit(hammer) for _ in range(3)]
            for turn in range(8):
                promote(own_registry, 2 - turn % 2)
                time.sleep(0.04)
            end.set()
            for each in hammering:
                each.result()
    assert {answer.status_code for answer in answers} == {200}
    models = [answer.json()["model"] for answer in answers]
    assert set(models) == {"leaf@1", "leaf@2"}
    for answer in answers:
        number = int(answer.json()["model"][-1])
        assert answer.json()["records"] == alone[number]
        assert {record["model"] for record in alone[number]} == {digests[number]}


def test_pools_share_nothing(pool_of, registry):
    one, other = pool_of(registry), pool_of(registry)
    assert one.get() is not other.get()
    one.close()
    assert not one.opened()
    assert other.opened()
