"""The registry over HTTP: what the roles allow to see, and versions that move by evidence."""

import json

import pytest
from tests.serve.conftest import make_registry, sign_in

from plantml import storage
from plantml.data import splits, versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.registry import ledger

HIDDEN = ("health", "disease", "rust", "healthy")


@pytest.fixture
def dataset(tmp_path, write_photos):
    names = [f"{name}/{number}.jpg" for name in ("bean", "tomato") for number in range(6)]
    source = str(write_photos(tmp_path / "photos", names))
    url = str(tmp_path / "leaves")
    import_source(source, url, list_source(source, rule="category"))
    splits.split_dataset(url, ratios="1/1/1")
    return url


@pytest.fixture
def served(start, tmp_path, dataset):
    """A client of a server whose registry may be changed: `leaf` 1 in production, and 2."""
    with start(registry=make_registry(tmp_path), dataset=(dataset,)) as client:
        yield client


def evidence(client, dataset, version=2, **changes):
    """What `plantml validate` would write for a version that is compared with the one in production."""
    entries = ledger.load(f"{client.service.registry}/leaf").entries
    data = versions.load(dataset)
    gate = {"name": "macro_f1", "passed": True, "max_drop": 0.01}
    return {
        "plantml_metrics": 2, "model": entries[version].digest, "split": "test", "gates": [gate],
        "datasets": [{"ref": data.ref, "fingerprint": data.fingerprint}],
        "scores": {"macro_f1": 0.9, "disease.macro_f1": 0.8, "category.macro_f1": 0.7},
        "against": {"model": entries[1].digest, "differences": []}, **changes,
    }  # fmt: skip


def trained(client, dataset, content=None):
    """Version 2 as the result of a training, with evidence and a plot."""
    jobs = client.service.jobs
    job = jobs.submit({"dataset": "leaves", "name": "leaf"}, "ada", dataset, most=9)
    if content is not None:
        storage.write(f"{job.validation}/metrics.json", json.dumps(content).encode())
    storage.write(f"{job.run}/plots/curves.png", b"PNG")
    digest = ledger.load(f"{client.service.registry}/leaf").entries[2].digest
    jobs.finish(job.id, {"model": "leaf", "version": 2, "digest": digest, "scores": {},
                         "validation": job.validation if content is not None else ""})  # fmt: skip


def test_a_version_is_shown_with_the_targets_that_the_roles_allow(served, dataset) -> None:
    trained(served, dataset)
    boss, ada = sign_in(served, "boss", "admin"), sign_in(served, "ada", "category")
    path = "/v1/models/leaf/versions/2"
    everything, part = (served.get(path, headers=who).json() for who in (boss, ada))
    assert [target["name"] for target in everything["contract"]["targets"]] == ["category", "health", "disease"]
    assert [target["name"] for target in part["contract"]["targets"]] == ["category"]
    assert (everything["plots"], part["plots"]) == (["curves.png"], [])
    assert (everything["training"], everything["validated"], everything["aliases"]) == (1, False, [])
    pages = ["/v1/models", "/v1/models/leaf", path, "/v1/models/leaf/history", "/v1/models/leaf/versions/production"]
    for page in pages:
        answer = served.get(page, headers=ada)
        assert answer.status_code == 200
        assert not [word for word in HIDDEN if word in answer.text], page
        assert dataset not in answer.text
    for page in ("card", "plots/curves.png"):
        assert served.get(f"{path}/{page}", headers=boss).status_code == 200
        assert served.get(f"{path}/{page}", headers=ada).status_code == 403
    assert served.get(f"{path}/card", headers=boss).text == "# A card\n"
    for missing in ("/v1/models/rose", "/v1/models/leaf/versions/9", "/v1/models/leaf/versions/none",
                    f"{path}/plots/..%2F..%2Fplan.yaml", f"{path}/plots/x.png", "/v1/models/..%2Fx"):  # fmt: skip
        assert served.get(missing, headers=boss).status_code == 404, missing


def test_the_evidence_of_its_training_promotes_a_version(served, dataset) -> None:
    trained(served, dataset, evidence(served, dataset))
    ada = sign_in(served, "ada", "promoter", "category")
    body = {"version": 2, "why": "better on rust", "expected": 1}
    assert (
        served.post("/v1/models/leaf/promote", json=body, headers=sign_in(served, "bob", "trainer")).status_code == 403
    )
    moved = served.post("/v1/models/leaf/promote", json=body, headers=ada)
    assert moved.json() == {"model": "leaf", "alias": "production", "version": 2, "before": 1, "changed": True}
    alias = served.get("/v1/models/leaf", headers=ada).json()["aliases"][0]
    assert (alias["name"], alias["version"], alias["by"], alias["why"]) == ("production", 2, "ada", "better on rust")
    assert served.service.models.get().version == 2
    newest = served.get("/v1/models/leaf/history", headers=ada).json()[0]
    assert (newest["act"], newest["before"], newest["scores"]) == ("promote", 1, {"category.macro_f1": 0.7})
    back = served.post("/v1/models/leaf/rollback", json={"why": "confuses soil with rust"}, headers=ada).json()
    assert (back["version"], back["before"]) == (1, 2)
    refused = served.post("/v1/models/leaf/promote", json={**body, "expected": None}, headers=ada)
    assert (refused.status_code, "already used" in refused.text) == (409, True)


REFUSED = [
    ({"gates": [{"name": "macro_f1", "passed": False, "max_drop": 0.01}]}, 409, "gates failed"),
    ({"against": None}, 409, "compares with no other model"),
    ({"split": "val"}, 409, "not of the whole test split"),
    ({"datasets": [{"ref": "http://169.254.169.254/leak@1", "fingerprint": ""}]}, 404, "no dataset"),
    ({"datasets": [{"ref": "/etc/leaves@2", "fingerprint": "x"}]}, 409, "fingerprint differs"),
    ({"datasets": "x"}, 422, "names no dataset"),
    ({"plantml_metrics": 1}, 422, "plantml_metrics"),
]


def test_evidence_that_does_not_allow_it_is_refused_with_its_reason(served, dataset) -> None:
    ada = sign_in(served, "ada", "promoter")
    for change, status, why in REFUSED:
        body = {"version": 2, "evidence": evidence(served, dataset, **change)}
        answer = served.post("/v1/models/leaf/promote", json=body, headers=ada)
        assert (answer.status_code, why in answer.text) == (status, True), answer.text
    assert served.get("/v1/models", headers=ada).json()[0]["aliases"] == {"production": 1}


def test_only_an_administrator_promotes_without_evidence_and_gives_a_reason(served) -> None:
    ada, boss = sign_in(served, "ada", "promoter"), sign_in(served, "boss", "admin")
    post = served.post
    assert post("/v1/models/leaf/promote", json={"version": 2}, headers=ada).status_code == 409
    forced = {"version": 2, "force": True, "why": "the first was wrong"}
    assert post("/v1/models/leaf/promote", json=forced, headers=ada).status_code == 403
    assert post("/v1/models/leaf/promote", json={**forced, "why": ""}, headers=boss).status_code == 400
    assert post("/v1/models/leaf/promote", json={**forced, "expected": 2}, headers=boss).status_code == 409
    assert post("/v1/models/leaf/promote", json=forced, headers=boss).json()["version"] == 2
    free = {"version": 1, "alias": "challenger"}
    assert post("/v1/models/leaf/promote", json=free, headers=ada).json()["changed"]
    assert post("/v1/models/leaf/promote", json={"version": 9}, headers=boss).status_code == 404


def test_a_server_without_a_registry_yet_lists_no_model(start, tmp_path) -> None:
    with start(registry=str(tmp_path / "none")) as client:
        assert client.get("/v1/models", headers=sign_in(client, "ada", "category")).json() == []


def test_an_error_names_no_folder_of_the_server(served, dataset, tmp_path) -> None:
    boss = sign_in(served, "boss", "admin")
    trained(served, dataset, evidence(served, dataset, gates=[{"name": "macro_f1", "passed": False, "max_drop": 0.01}]))
    training = {"dataset": "leaves", "name": "leaf"}
    asked = [
        ("models/leaf/promote", {"version": 2}), ("models/leaf/promote", {"version": 9}),
        ("models/leaf/promote", {"version": 2, "evidence": {}}), ("models/leaf/rollback", {"why": "x"}),
        ("models/leaf/promote", {"version": 2, "evidence": evidence(served, f"{dataset}@1")}),
        ("trainings", {**training, "dataset": "leaves@9"}), ("trainings", {**training, "version": 9}),
        ("trainings", {**training, "config": {"warm_start": "leaf@9"}}), ("predict", {"items": ["leaves@9/a.jpg"]}),
        ("predict?model=leaf@9", {"items": ["leaves/a.jpg"]}), ("predict", {"items": ["leaves/none.jpg"]}),
    ]  # fmt: skip
    for path, body in asked:
        answer = served.post(f"/v1/{path}", json=body, headers=boss)
        assert 400 <= answer.status_code < 500, (path, body, answer.text)
        assert str(tmp_path) not in answer.text, (path, body)
    refused = served.post("/v1/models/leaf/promote", json={"version": 2}, headers=boss).json()
    assert refused["title"] == "leaf@2 is not promoted to production"
    assert "training" in refused["hint"]
