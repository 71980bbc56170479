"""From photos to a better model in service, over HTTP alone, with real trainings."""

import pytest
from tests.serve.conftest import sign_in

from plantml import settings
from plantml.concurrency import Stop
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.serve.routes import trainings as routes
from plantml.serve.work import worker as workers
from plantml.serve.work.worker import Worker

TINY = {"backbone": "test_efficientnet", "pretrained": False, "size": 48, "epochs": 2, "workers": 0}


@pytest.mark.slow
def test_train_promote_and_see_the_new_version_answer(start, tmp_path, write_photos, photo, monkeypatch) -> None:
    monkeypatch.setattr(routes, "_POLL", 0.01)
    names = [f"{name}/{number}.jpg" for name in ("bean", "tomato") for number in range(12)]
    source = str(write_photos(tmp_path / "photos", names))
    import_source(source, f"{tmp_path}/leaves", list_source(source, rule="category"))
    with start(registry=f"{tmp_path}/models", dataset=(f"{tmp_path}/leaves",), poll=0.001) as client:
        ada = sign_in(client, "ada", "trainer", "promoter", "category")
        files = [("files", ("leaf.jpg", photo(), "image/jpeg"))]
        assert client.post("/v1/predict", files=files, headers=ada).status_code == 404
        jobs, stop = client.service.jobs, Stop()
        worker = Worker(jobs, client.service.registry, {}, settings.machine(), stop)
        for number, risk in enumerate((0.05, 0.3), start=1):  # the same weights, and other thresholds
            body = {"dataset": "leaves", "name": "leaf", "config": {**TINY, "target_risk": risk}}
            assert client.post("/v1/trainings", json=body, headers=ada).json()["id"] == number
            assert worker.work(once=True) == 1, list(client.get("/v1/trainings", headers=ada).json())
            training = client.get(f"/v1/trainings/{number}", headers=ada).json()
            assert (training["status"], training["dataset"]) == ("done", "leaves@2")
            assert (training["result"]["model"], training["result"]["validated"]) == (f"leaf@{number}", True)
            assert "event: end" in (log := client.get(f"/v1/trainings/{number}/log", headers=ada).text)
            assert "epoch 2/2" in log
            assert "\\u001b" not in log
            version = client.get(f"/v1/models/leaf/versions/{number}", headers=ada).json()
            assert "curves.png" in version["plots"]
            assert version["aliases"] == ["challenger"]
            moved = client.post("/v1/models/leaf/promote", json={"version": number, "why": "a test"}, headers=ada)
            assert moved.status_code == 200, moved.text
            answer = client.post("/v1/predict", files=files, headers=ada).json()
            assert answer["model"] == f"leaf@{number}"


@pytest.mark.slow
def test_a_retraining_puts_a_better_version_into_service_and_ends_at_once_where_nothing_is_new(
    start, tmp_path, write_photos, monkeypatch
) -> None:
    def add(first, number):
        names = [f"{name}/{each}.jpg" for name in ("bean", "tomato") for each in range(first, first + number)]
        source = str(write_photos(tmp_path / f"photos-{first}", names, first_seed=first))
        import_source(source, f"{tmp_path}/leaves", list_source(source, rule="category"))

    monkeypatch.setattr(workers, "_LOOK_EVERY", 0.2)
    add(0, 12)
    with start(registry=f"{tmp_path}/models", dataset=(f"{tmp_path}/leaves",), poll=0.001) as client:
        ada = sign_in(client, "ada", "trainer", "promoter", "category")
        worker = Worker(client.service.jobs, client.service.registry, {}, settings.machine(), Stop())
        gates = {"max_drop": 1.0, "sure": 0.0}

        def retrain(**changes):
            body = {"dataset": "leaves", "name": "leaf", "config": TINY, "retrain": {"gates": gates}, **changes}
            number = client.post("/v1/trainings", json=body, headers=ada).json()["id"]
            assert worker.work(once=True) == 1
            return client.get(f"/v1/trainings/{number}", headers=ada).json()

        first = retrain()
        assert (first["status"], first["result"]["model"], first["result"]["outcome"]) == ("done", "leaf@1", "promoted")
        model = client.get("/v1/models/leaf", headers=ada).json()
        assert {each["name"]: each["version"] for each in model["aliases"]} == {"production": 1, "challenger": 1}
        assert model["versions"][0]["by"] == "ada"
        version = client.get("/v1/models/leaf/versions/1", headers=ada).json()
        assert ("curves.png" in version["plots"], version["training"], version["validated"]) == (True, 1, True)
        again = retrain()
        assert (again["status"], again["result"]["model"], again["result"]["outcome"]) == (
            "done",
            None,
            "nothing to do",
        )
        assert again["result"]["reasons"] == ["nothing is new"]
        add(12, 4)
        # A retraining that failed leaves its round open; the next one begins another.
        failed = retrain(config={**TINY, "backbone": "no_such_model"})
        assert (failed["status"], failed["failure"]["exit_code"]) == ("failed", 3)
        refused = retrain(retrain={"gates": {"min": ["macro_f1=1.0"], "max": ["macro_f1=0.0"]}})
        assert (refused["result"]["model"], refused["result"]["outcome"]) == ("leaf@2", "refused")
        assert any("macro_f1" in reason for reason in refused["result"]["reasons"])
        # The evidence of a refused one does not allow a promotion, either.
        moved = client.post("/v1/models/leaf/promote", json={"version": 2, "why": "a test"}, headers=ada)
        assert moved.status_code == 409, moved.text
