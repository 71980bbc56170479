"""Who may do what: every route, and every kind of caller."""

import contextlib
import itertools
import re

import pytest
from fastapi.routing import iter_route_contexts
from tests.serve.conftest import PASSWORD, serving

from plantml.serve.access import COOKIE
from plantml.serve.users.caller import ACTS, ADMIN

PUBLIC = None
SIGNED_IN = frozenset()
ROLES = (*ACTS, "category")

ACCESS = {
    # The API
    "POST /v1/token": PUBLIC,
    "POST /v1/token/refresh": PUBLIC,
    "POST /v1/token/revoke": PUBLIC,
    "GET /v1/me": SIGNED_IN,
    "PUT /v1/me/password": SIGNED_IN,
    "GET /v1/users": {"admin"},
    "POST /v1/users": {"admin"},
    "PATCH /v1/users/{name}": {"admin"},
    "DELETE /v1/users/{name}": {"admin"},
    "PUT /v1/users/{name}/roles": {"admin"},
    "GET /v1/users/{name}/keys": {"admin"},  # and the user: see test_users.py
    "POST /v1/users/{name}/keys": {"admin"},
    "DELETE /v1/users/{name}/keys/{key_id}": {"admin"},
    "GET /v1/audit": {"admin"},
    "POST /v1/predict": {"category"},  # a target of the model
    "GET /v1/predictions": SIGNED_IN,
    "GET /v1/models": SIGNED_IN,
    "GET /v1/models/{name}": SIGNED_IN,
    "GET /v1/models/{name}/history": SIGNED_IN,
    "GET /v1/models/{name}/versions/{version}": SIGNED_IN,
    "GET /v1/models/{name}/versions/{version}/card": SIGNED_IN,
    "GET /v1/models/{name}/versions/{number}/plots/{file}": SIGNED_IN,
    "POST /v1/models/{name}/promote": {"promoter"},
    "POST /v1/models/{name}/rollback": {"promoter"},
    "GET /v1/datasets": SIGNED_IN,
    "GET /v1/datasets/{name}": SIGNED_IN,
    "GET /v1/datasets/{name}/photos/{image_id}": set(ROLES),
    "POST /v1/datasets/{name}/photos": {"contributor"},
    "GET /v1/contributions": {"contributor", "reviewer"},
    "GET /v1/contributions/{contribution}/photo": SIGNED_IN,  # the contributor's own; a reviewer may see all
    "POST /v1/contributions/accept": {"reviewer"},
    "POST /v1/contributions/reject": {"reviewer"},
    "GET /v1/review": {"reviewer"},
    "POST /v1/review": {"reviewer"},
    "GET /v1/trainings": {"trainer"},
    "POST /v1/trainings": {"trainer"},
    "GET /v1/trainings/{number}": {"trainer"},
    "GET /v1/trainings/{number}/log": {"trainer"},
    "POST /v1/trainings/{number}/cancel": {"trainer"},
    # The Open Inference Protocol
    "GET /v2": PUBLIC,
    "GET /v2/health/live": PUBLIC,
    "GET /v2/health/ready": PUBLIC,
    "GET /v2/models/{name}": SIGNED_IN,
    "GET /v2/models/{name}/ready": SIGNED_IN,
    "POST /v2/models/{name}/infer": SIGNED_IN,
    "GET /v2/models/{name}/versions/{version}": SIGNED_IN,
    "GET /v2/models/{name}/versions/{version}/ready": SIGNED_IN,
    "POST /v2/models/{name}/versions/{version}/infer": SIGNED_IN,
    # Operations, and the API's description
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
    "GET /docs": PUBLIC,
    "GET /openapi.json": PUBLIC,
    # The page
    "GET /sign-in": PUBLIC,
    "POST /sign-in": PUBLIC,
    "POST /sign-out": SIGNED_IN,
    "POST /language": PUBLIC,
    "GET /": SIGNED_IN,
    "POST /ask": SIGNED_IN,
    "POST /ask/correct": {"contributor"},
    "GET /history": SIGNED_IN,
    "GET /account": SIGNED_IN,
    "POST /account/password": SIGNED_IN,
    "POST /account/keys": SIGNED_IN,
    "POST /account/keys/{key_id}/revoke": SIGNED_IN,
    "GET /review": {"reviewer"},
    "GET /review/next": {"reviewer"},
    "GET /review/photo": {"reviewer"},
    "POST /review": {"reviewer"},
    "GET /contribute": {"contributor"},
    "POST /contribute": {"contributor"},
    "GET /contributions": {"reviewer"},
    "POST /contributions/accept": {"reviewer"},
    "POST /contributions/reject": {"reviewer"},
    "GET /trainings": {"trainer"},
    "POST /trainings": {"trainer"},
    "GET /trainings/{number}": {"trainer"},
    "GET /trainings/{number}/progress": {"trainer"},
    "POST /trainings/{number}/cancel": {"trainer"},
    "GET /models": SIGNED_IN,
    "GET /models/{name}": SIGNED_IN,
    "GET /models/{name}/{number}": SIGNED_IN,
    "POST /models/{name}/promote": {"promoter"},
    "POST /models/{name}/rollback": {"promoter"},
    "GET /users": {"admin"},
    "POST /users": {"admin"},
    "GET /users/{name}": {"admin"},
    "POST /users/{name}/roles": {"admin"},
    "POST /users/{name}/disabled": {"admin"},
    "POST /users/{name}/password": {"admin"},
    "POST /users/{name}/remove": {"admin"},
    "POST /users/{name}/keys": {"admin"},
    "POST /users/{name}/keys/{key_id}/revoke": {"admin"},
    "GET /audit": {"admin"},
}
"""Roles of which one is needed; an administrator may do all."""


@pytest.fixture(scope="module")
def client(registry, tmp_path_factory):
    """A client of a server that all tests here share."""
    with serving(registry, tmp_path_factory.mktemp("access")) as client:
        client.service.accounts.add("last-admin", "", [ADMIN])
        yield client


def routes(client) -> list[str]:
    """`METHOD /path` of every route."""
    contexts = [context for context in iter_route_contexts(client.app.routes) if context.methods]
    return [f"{method} {context.path}" for context in contexts for method in context.methods - {"HEAD"}]


def test_the_table_has_every_route(client) -> None:
    listed = routes(client)
    assert set(ACCESS) - set(listed) == set()
    assert set(listed) - set(ACCESS) == set(), "say here who may use them"
    assert len(listed) == len(ACCESS)


def ask(client, route, **options):
    """The answer to a request that has what its path needs, and nothing else."""
    method, path = route.split()
    client.cookies.clear()
    for name, value in options.pop("cookies", {}).items():
        client.cookies.set(name, value)
    path = path.replace("{image_id}", "0" * 64)
    return client.request(method, re.sub(r"\{.*?\}", "1", path), follow_redirects=False, **options)


_numbers = itertools.count()


@contextlib.contextmanager
def user(client, *roles):
    """The name and headers of a new user."""
    name = f"user-{next(_numbers)}"
    client.service.accounts.add(name, PASSWORD, roles)
    tokens = client.service.credentials.begin(client.service.credentials.sign_in(name, PASSWORD))
    yield name, {"Authorization": f"Bearer {tokens.access}"}


def is_refused(answer) -> bool:
    """True for an answer to somebody who is not signed in: 401, or the page's way to the form."""
    return answer.status_code == 401 or answer.headers.get("location", "").startswith("/sign-in")


@pytest.mark.parametrize("route", ACCESS)
def test_a_route_is_for_those_in_the_table(client, route) -> None:
    needed = ACCESS[route]
    if needed is PUBLIC:
        answer = ask(client, route)
        assert answer.status_code < 500
        assert answer.status_code not in (401, 403) or route == "POST /sign-in"
        return
    assert is_refused(ask(client, route))
    with user(client, ADMIN) as (name, headers):
        client.service.accounts.set_disabled(name, disabled=True)
        assert is_refused(ask(client, route, headers=headers))
    for role in [*sorted(needed), ADMIN] if needed else ["", ADMIN]:
        with user(client, *filter(None, [role])) as (_, headers):
            answer = ask(client, route, headers=headers)
            assert not (is_refused(answer) and route != "POST /sign-out"), (role, answer.text)
            assert answer.status_code != 403, (role, answer.text)
            assert answer.status_code < 500, (role, answer.text)
    if needed:
        others = set(ROLES) - needed - {ADMIN}
        with user(client, *others) as (_, headers):
            assert ask(client, route, headers=headers).status_code == 403
        with user(client, ADMIN) as (name, _):
            _, secret = client.service.accounts.add_key(name, roles=sorted(others))
            assert ask(client, route, headers={"Authorization": f"Bearer {secret}"}).status_code == 403


@pytest.mark.parametrize("route", [route for route in ACCESS if not route.startswith("GET ")])
def test_a_cookie_alone_writes_nothing(client, route) -> None:
    if ACCESS[route] is PUBLIC:
        return
    with user(client, ADMIN) as (name, _):
        caller = client.service.credentials.sign_in(name, PASSWORD)
        cookie = client.service.credentials.begin_session(caller)
    assert ask(client, route, cookies={COOKIE: cookie}).status_code == 403
    assert client.get("/v1/me", headers={"Cookie": f"{COOKIE}={cookie}"}).status_code == 200
