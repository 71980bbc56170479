"""From photos to a better model in service, over HTTP alone, with real trainings."""

import pytest
from tests.serve.conftest import sign_in

from plantml import settings
from plantml.concurrency import Stop
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.serve.routes import trainings as routes
from plantml.serve.worker import Worker

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
