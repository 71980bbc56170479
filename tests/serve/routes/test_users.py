"""Users, keys and the audit log over HTTP."""

import json

import pytest
from tests.serve.conftest import PASSWORD, sign_in


@pytest.fixture
def admin(client):
    """Headers of an administrator."""
    return sign_in(client, "boss", "admin")


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def test_a_user_from_adding_to_removing(client, admin) -> None:
    body = {"name": "ada", "password": PASSWORD, "roles": ["category"]}
    added = client.post("/v1/users", json=body, headers=admin)
    assert added.status_code == 201
    assert added.json() == {**added.json(), "name": "ada", "roles": ["category"], "disabled": False}
    assert client.post("/v1/users", json=body, headers=admin).status_code == 409
    assert client.put("/v1/users/ada/roles", json={"roles": ["health"]}, headers=admin).json()["roles"] == ["health"]
    assert client.patch("/v1/users/ada", json={"disabled": True}, headers=admin).json()["disabled"] is True
    assert client.post("/v1/token", data={"username": "ada", "password": PASSWORD}).status_code == 401
    new = {"disabled": False, "password": "a new long password"}
    assert client.patch("/v1/users/ada", json=new, headers=admin).json()["disabled"] is False
    assert client.post("/v1/token", data={"username": "ada", "password": new["password"]}).status_code == 200
    assert [user["name"] for user in client.get("/v1/users", headers=admin).json()] == ["ada", "boss"]
    assert client.delete("/v1/users/ada", headers=admin).status_code == 204
    assert client.delete("/v1/users/ada", headers=admin).status_code == 404


@pytest.mark.parametrize("line", [("delete", ""), ("put", "/roles"), ("patch", "")])
def test_the_last_administrator_stays(client, admin, line) -> None:
    method, path = line
    body = {} if method == "delete" else {"json": {"roles": ["category"]} if path else {"disabled": True}}
    answer = client.request(method, f"/v1/users/boss{path}", headers=admin, **body)
    assert answer.status_code == 409
    assert answer.json()["title"] == "That is the last administrator"
    assert client.get("/v1/users", headers=admin).json()[0]["roles"] == ["admin"]
    client.service.accounts.add("second", "", ["admin"])
    assert client.request(method, f"/v1/users/boss{path}", headers=admin, **body).is_success


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "roles": []},
        {"name": "a b", "roles": []},
        {"name": "x" * 65, "roles": []},
        {"name": "ada", "roles": ["a b"]},
        {"name": "ada", "roles": "admin"},
        {"name": "ada", "roles": [], "password": "short"},
        {"name": "ada", "roles": [], "password": "x" * 1025},
        {"name": "a\ud800", "roles": []},
    ],
)
def test_what_is_not_acceptable_is_answered_422(client, admin, body) -> None:
    content = {"content": json.dumps(body), "headers": {**admin, "Content-Type": "application/json"}}
    answer = client.post("/v1/users", **content)
    assert answer.status_code == 422
    assert answer.json()["title"]


def test_a_key_opens_until_it_is_revoked(client, admin) -> None:
    mine = sign_in(client, "ada", "category", "reviewer")
    key = client.post("/v1/users/ada/keys", json={"label": "line 3", "roles": ["category"]}, headers=mine).json()
    assert client.get("/v1/me", headers=bearer(key["secret"])).json()["roles"] == ["category"]
    (listed,) = client.get("/v1/users/ada/keys", headers=admin).json()
    assert "secret" not in listed
    assert listed["used"] is not None
    assert client.delete(f"/v1/users/boss/keys/{key['id']}", headers=admin).status_code == 404
    for _ in range(2):
        assert client.delete(f"/v1/users/ada/keys/{key['id']}", headers=mine).status_code == 204
    assert client.get("/v1/me", headers=bearer(key["secret"])).status_code == 401


def test_keys_are_for_their_user_and_administrators(client, admin) -> None:
    mine, other = sign_in(client, "ada", "category"), sign_in(client, "bob", "reviewer")
    key = client.post("/v1/users/ada/keys", json={}, headers=mine).json()
    for headers in (other, bearer(key["secret"])):
        assert client.get("/v1/users/ada/keys", headers=headers).status_code == 403
        assert client.post("/v1/users/ada/keys", json={}, headers=headers).status_code == 403
        assert client.delete(f"/v1/users/ada/keys/{key['id']}", headers=headers).status_code == 403
    assert client.post("/v1/users/ada/keys", json={}, headers=admin).status_code == 201


@pytest.mark.parametrize("key_id", ["0", "-1", "99999999999999999999", "x"])
def test_a_number_that_no_key_has_is_no_failure(client, admin, key_id) -> None:
    assert client.delete(f"/v1/users/boss/keys/{key_id}", headers=admin).status_code == 422


def test_every_write_and_every_failed_sign_in_is_in_the_audit_log(client, admin) -> None:
    client.post("/v1/users", json={"name": "ada", "roles": [], "password": PASSWORD}, headers=admin)
    client.patch("/v1/users/ada", json={"disabled": True, "password": PASSWORD}, headers=admin)
    client.patch("/v1/users/ada", json={"disabled": False}, headers=admin)
    client.put("/v1/users/ada/roles", json={"roles": ["health"]}, headers=admin)
    key = client.post("/v1/users/ada/keys", json={}, headers=admin).json()
    client.delete(f"/v1/users/ada/keys/{key['id']}", headers=admin)
    client.post("/v1/token", data={"username": "ada", "password": "hunter22"})
    client.delete("/v1/users/ada", headers=admin)
    log = client.get("/v1/audit", headers=admin)
    assert [entry["act"] for entry in log.json()][::-1] == [
        "user.add", "sign-in", "user.add", "user.set-password", "user.disable", "user.enable", "user.set-roles",
        "key.add", "key.revoke", "sign-in.fail", "user.remove",
    ]  # fmt: skip
    assert log.json()[0] == {**log.json()[0], "user": "boss", "subject": "ada", "address": "testclient"}
    for secret in (PASSWORD, "hunter22", key["secret"]):
        assert secret not in log.text


def test_the_audit_log_is_read_in_pages(client, admin) -> None:
    for number in range(5):
        client.service.accounts.add(f"user-{number}", "", [])
    first = client.get("/v1/audit?limit=2", headers=admin).json()
    second = client.get(f"/v1/audit?limit=2&before={first[-1]['id']}", headers=admin).json()
    assert [entry["subject"] for entry in first + second] == ["user-4", "user-3", "user-2", "user-1"]
    assert [entry["act"] for entry in client.get("/v1/audit?user=boss", headers=admin).json()] == ["sign-in"]
    assert len(client.get("/v1/audit?act=user.", headers=admin).json()) == 6
    assert client.get("/v1/audit?user=%00", headers=admin).status_code == 422
