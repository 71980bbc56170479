"""What is too old goes, and what somebody still needs stays."""

import json
import time

import pytest
from sqlalchemy import select
from tests.serve.conftest import PASSWORD, sign_in

from plantml import storage
from plantml.data import versions
from plantml.serve import retention
from plantml.serve.config import ServeConfig
from plantml.serve.database import AuditEntry, now
from plantml.serve.photos.contributions import Contributions
from plantml.serve.predict.history import History
from plantml.serve.retention import Pruning, prune
from plantml.serve.users import audit
from plantml.serve.users.accounts import Accounts
from plantml.serve.users.caller import Caller
from plantml.serve.work.jobs import Jobs, write_line
from plantml.storage.segments import Segments

SHORT = 1e-6


def keeping(state, **changes):
    """Settings by which all that is named is too old."""
    return ServeConfig(state=str(state), **dict.fromkeys(changes, SHORT)) if changes else ServeConfig(state=str(state))


def test_of_a_training_with_a_version_what_its_model_page_shows_stays(tmp_path, database):
    jobs = Jobs(str(tmp_path))
    request = {"dataset": "leaves", "name": "leaf", "version": None}
    result = {"model": "leaf", "version": 1, "digest": "ab", "scores": {}, "validation": "x"}
    for number in (1, 2, 3):
        job = jobs.submit({**request, "number": number}, "ada", "leaves", most=10)
        with jobs.take(job):
            pass
        for name in ("plan.yaml", "plots/curves.png", "checkpoints/last.ckpt", "bundle/model.onnx"):
            storage.write(f"{job.run}/{name}", b"12345678")
        storage.write(f"{job.validation}/metrics.json", b"{}")
        write_line(log := Segments(job.log), "a line")
        log.flush()
    jobs.finish(1, result)
    jobs.fail(2, {"what": "", "why": "", "next": "", "exit_code": 3})
    assert prune(ServeConfig(state=str(tmp_path)), database, by="a test").files == 0
    pruned = prune(keeping(tmp_path, keep_trainings=1), database, by="a test")
    names = {
        number: {entry.name for entry in storage.list_files(f"{tmp_path}/jobs/00000{number}")} for number in (1, 3)
    }
    assert names[1] == {"run/plan.yaml", "run/plots/curves.png", "validation/metrics.json"}
    assert {"run/checkpoints/last.ckpt", "log/000001.jsonl", "lease/000001.json"} <= names[3]  # it may go on
    assert not any(entry.name.startswith("000002/") for entry in storage.list_files(f"{tmp_path}/jobs"))
    assert pruned.files == 5 + 8
    assert [job.status for job in jobs.list()] == ["done", "failed", "waiting"]
    assert prune(keeping(tmp_path, keep_trainings=1), database, by="a test").files == 0


def test_the_audit_log_and_the_history_end_somewhere(tmp_path, database):
    user = Accounts(database).add("ada", PASSWORD, [])
    caller = Caller(user.id, "ada", frozenset(), "key")
    kept = History(database, 3600.0)
    kept.add(caller, "leaf@1", [{"n": 1}, {"n": 2}])
    kept.close()
    assert prune(keeping(tmp_path), database, by="a test") == retention.Pruned()
    pruned = prune(keeping(tmp_path, keep_history=1), database, by="a test")
    assert (pruned.predictions, pruned.audit) == (2, 0)
    audit.note(database, "ada", "old")
    pruned = prune(keeping(tmp_path, keep_audit=1), database, by="a test")
    assert (pruned.predictions, pruned.audit) == (0, 2)
    with database.session() as session:  # that somebody removed them is the first new entry
        assert [(each.act, each.user, each.detail["audit"]) for each in session.scalars(select(AuditEntry))] == [
            ("server.prune", "a test", 2)
        ]


@pytest.fixture
def lab(site):
    """Headers of two laboratories, and of a reviewer."""
    return *(sign_in(site, name, "contributor", "category") for name in ("lab", "other")), sign_in(
        site, "judge", "reviewer", "category"
    )


def send(site, headers, photo, label="bean"):
    files, data = [("files", ("x.jpg", photo, "image/jpeg"))], {"labels": json.dumps({"category": label})}
    answer = site.post("/v1/datasets/leaves/photos", files=files, data=data, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["photos"][0]


def photos(site):
    return sorted(
        entry.name.rpartition("/")[2]
        for entry in storage.list_files(f"{site.service.config.state}/contributions/leaves/photos")
    )


def pruned(site):
    config = site.service.config.model_copy(update={"keep_contributions": SHORT})
    return prune(config, site.service.database, by="a test").files


def test_photos_that_were_rejected_go_and_the_same_bytes_may_come_again(site, lab, leaves, photo):
    first, second, judge = lab
    gone, waiting = send(site, first, photo(seed=10)), send(site, first, photo(seed=11))
    shared = send(site, first, photo(seed=12))
    send(site, second, photo(seed=12), "tomato")
    ids = [gone["id"], shared["id"]]
    site.post("/v1/contributions/reject", json={"ids": ids, "why": "blurred"}, headers=judge)
    assert len(photos(site)) == 3
    assert pruned(site) == 1  # the other laboratory's still waits
    assert not any(name.startswith(gone["image_id"]) for name in photos(site))
    assert site.get(f"/v1/contributions/{gone['id']}/photo", headers=judge).status_code == 404
    assert site.get(f"/v1/contributions/{waiting['id']}/photo", headers=judge).status_code == 200
    assert pruned(site) == 0
    assert send(site, first, photo(seed=10))["state"] == "rejected"  # it was decided
    again = send(site, second, photo(seed=10))
    assert f"{gone['image_id']}-1.jpg" in photos(site)
    assert site.post("/v1/contributions/accept", json={"ids": [again["id"]]}, headers=judge).status_code == 200
    assert gone["image_id"] in set(versions.load(leaves).rows["image_id"])


def test_a_photo_that_is_sent_while_its_bytes_are_removed_is_kept(site, lab, photo, monkeypatch):
    first, second, judge = lab
    gone = send(site, first, photo(seed=10))
    site.post("/v1/contributions/reject", json={"ids": [gone["id"]], "why": "blurred"}, headers=judge)
    store, counts = Contributions._store, []

    def store_and_prune(self, *arguments):
        store(self, *arguments)
        if not counts:
            counts.append(pruned(site))

    monkeypatch.setattr(Contributions, "_store", store_and_prune)
    sent = send(site, second, photo(seed=10))
    assert counts == [1]
    assert (sent["state"], photos(site)) == ("waiting", [f"{gone['image_id']}-1.jpg"])
    assert site.get(f"/v1/contributions/{sent['id']}/photo", headers=judge).content == photo(seed=10)


def test_bytes_that_a_killed_server_left_go(site, lab, photo, monkeypatch):
    monkeypatch.setattr(Contributions, "_note_sent", lambda *_: 1 / 0)
    with pytest.raises(AssertionError):
        send(site, lab[0], photo(seed=10))
    assert len(photos(site)) == 1
    time.sleep(0.01)
    assert pruned(site) == 1
    assert photos(site) == []


def test_a_server_prunes_by_itself_and_goes_on_after_a_failure(monkeypatch, caplog):
    monkeypatch.setattr(retention, "_FIRST", (0.0, 0.0))
    monkeypatch.setattr(retention, "_DAY", 0.001)
    calls = []

    def act():
        calls.append(now())
        return retention.Pruned() if len(calls) > 1 else 1 / 0

    pruning = Pruning(act)
    until = time.monotonic() + 10
    while len(calls) < 3:
        assert time.monotonic() < until
        time.sleep(0.001)
    pruning.close()
    assert "could not be removed" in caplog.text
