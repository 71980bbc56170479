"""Sign in and out over HTTP: tokens, the cookie of the page, and its CSRF token."""

import re

import pytest
from tests.serve.conftest import PASSWORD, sign_in

from plantml.serve.access import COOKIE, CSRF_FIELD, CSRF_HEADER, HTTPS_COOKIE
from plantml.serve.routes import session
from plantml.serve.users import throttle
from plantml.serve.users.caller import COMMAND_LINE


@pytest.fixture
def ada(client):
    """A user with the role `category`."""
    return client.service.accounts.add("ada", PASSWORD, ["category"])


def token(client, name="ada", password=PASSWORD, **changes):
    return client.post("/v1/token", data={"username": name, "password": password}, **changes)


@pytest.fixture
def page(client, ada):
    """A client that came by the page: its cookie is set."""
    caller = client.service.credentials.sign_in(ada.name, PASSWORD)
    client.cookies.set(COOKIE, client.service.credentials.begin_session(caller))
    return client


def csrf(client):
    caller = client.service.credentials.of_cookie(client.cookies[COOKIE])
    return client.service.credentials.csrf_token(caller)


def test_tokens_from_signing_in_to_signing_out(client, ada) -> None:
    tokens = token(client).json()
    assert tokens["token_type"] == "bearer"
    assert 0 < tokens["expires_in"] <= 3600
    following = client.post("/v1/token/refresh", data={"refresh_token": tokens["refresh_token"]}).json()
    headers = {"Authorization": f"Bearer {following['access_token']}"}
    assert client.get("/v1/me", headers=headers).json() == {"name": "ada", "roles": ["category"], "via": "token"}
    assert client.post("/v1/token/revoke", data={"token": following["refresh_token"]}).status_code == 204
    assert client.get("/v1/me", headers=headers).status_code == 401
    assert client.post("/v1/token/refresh", data={"refresh_token": following["refresh_token"]}).status_code == 401


def test_wrong_names_and_passwords_are_answered_alike(client, ada) -> None:
    answers = [token(client, *each) for each in (("ada", "wrong"), ("eve", PASSWORD), ("a\0", ""), ("é" * 9999, "x"))]
    assert {answer.status_code for answer in answers[:2]} == {401}
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert all(answer.status_code in (401, 422) for answer in answers)


def test_guessing_is_slowed(client, ada) -> None:
    for _ in range(throttle.PER_NAME.amount):
        assert token(client, password="wrong").status_code == 401
    answer = token(client)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_sign_ins_beyond_the_queue_are_refused(client, ada, monkeypatch) -> None:
    monkeypatch.setattr(session, "_MOST_WAITING", 0)
    answer = token(client)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client, ada) -> None:
    answer = client.post("/sign-in", data={"name": "ada", "password": PASSWORD}, follow_redirects=False)
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == COOKIE
    assert {"HttpOnly", "SameSite=lax"} <= set(rest.split("; "))
    assert "Secure" not in rest  # under http, or it would not come back


def test_another_site_cannot_sign_its_visitors_in(client, ada) -> None:
    form = {"name": "ada", "password": PASSWORD}
    for site, status in (("cross-site", 403), ("same-origin", 303)):
        answer = client.post("/sign-in", data=form, headers={"Sec-Fetch-Site": site}, follow_redirects=False)
        assert answer.status_code == status
        assert ("set-cookie" in answer.headers) == (status == 303)


def test_a_cookie_reads_but_writes_only_with_its_csrf_token(page) -> None:
    assert page.get("/v1/me").json()["via"] == "cookie"
    change = {"old": PASSWORD, "new": "another long password"}
    for headers in ({}, {CSRF_HEADER: "wrong"}, {CSRF_HEADER: ""}):
        answer = page.put("/v1/me/password", json=change, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["title"] == "The form is out of date"
    assert page.put("/v1/me/password", json=change, headers={CSRF_HEADER: csrf(page)}).status_code == 204
    assert page.get("/v1/me").status_code == 401


def test_a_prediction_takes_the_csrf_token_from_its_header_alone(page, photo) -> None:
    files = [("files", ("leaf.jpg", photo(), "image/jpeg"))]
    assert page.post("/v1/predict", files=files).status_code == 403
    assert page.post("/v1/predict", files=files, data={CSRF_FIELD: csrf(page)}).status_code == 403
    assert page.post("/v1/predict", files=files, headers={CSRF_HEADER: "wrong"}).status_code == 403
    for _ in range(2):
        assert page.post("/v1/predict", files=files, headers={CSRF_HEADER: csrf(page)}).status_code == 200


def test_a_token_needs_no_csrf_token_even_beside_a_cookie(page) -> None:
    page.service.accounts.add("boss", PASSWORD, ["admin"])
    tokens = token(page, "boss").json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert page.delete("/v1/users/ada", headers=headers).status_code == 204


def test_signing_out_ends_the_session(page) -> None:
    response = page.post("/sign-out", data={CSRF_FIELD: csrf(page)}, follow_redirects=False)
    assert "max-age=0" in response.headers["set-cookie"].lower()
    assert page.get("/v1/me").status_code == 401


@pytest.mark.parametrize("changes", [{}, {"behind_proxy": ("127.0.0.1",)}])
def test_under_https_no_other_host_of_the_domain_can_set_the_cookie(start, changes) -> None:
    with start(**changes) as client:
        client.service.accounts.add("ada", PASSWORD, ["category"])
        base = "http://localhost" if changes else "https://localhost"  # of a proxy that does not say so
        form = {"name": "ada", "password": PASSWORD}
        answer = client.post(f"{base}/sign-in", data=form, follow_redirects=False)
        name, _, rest = answer.headers["set-cookie"].partition("=")
        assert name == HTTPS_COOKIE
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(rest.split("; "))
        assert "domain" not in rest.lower()
        secret = rest.partition(";")[0]
        client.cookies.clear()
        for cookie, status in ((HTTPS_COOKIE, 200), (COOKIE, 401)):
            assert client.get(f"{base}/v1/me", headers={"Cookie": f"{cookie}={secret}"}).status_code == status
        headers = {"Cookie": f"{HTTPS_COOKIE}={secret}"}
        token = re.search(r'name="csrf_token" value="([0-9a-f]+)"', client.get(f"{base}/account", headers=headers).text)
        assert client.post(f"{base}/sign-out", headers=headers).status_code == 403
        gone = client.post(f"{base}/sign-out", headers=headers, data={CSRF_FIELD: token[1]}, follow_redirects=False)
        assert {f'{HTTPS_COOKIE}=""', "Secure"} <= set(gone.headers["set-cookie"].split("; "))
        assert client.get(f"{base}/v1/me", headers=headers).status_code == 401


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Basic YTpi", "Bearer plantml_x", "Bearer é", "Bearer a.b.c"])
def test_what_is_no_token_is_answered_401(client, value) -> None:
    answer = client.get("/v1/me", headers={"Authorization": value.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_key_changes_no_password(client, ada) -> None:
    _, secret = client.service.accounts.add_key(ada.name, by=COMMAND_LINE)
    change = {"old": PASSWORD, "new": "another long password"}
    answer = client.put("/v1/me/password", json=change, headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 403


def test_no_answer_repeats_a_password(client) -> None:
    headers = sign_in(client, "boss", "admin")
    answer = client.post(
        "/v1/users", headers=headers, json={"name": "x", "roles": [], "password": ["hunter22hunter22"]}
    )
    assert answer.status_code == 422
    assert "hunter22" not in answer.text
    assert "hunter22" not in client.get("/v1/audit", headers=headers).text
