"""Who calls: from a request to a `Caller`, and the roles that a route needs."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyCookie, OAuth2PasswordBearer
from starlette.requests import HTTPConnection

from plantml.serve.service import Service, ServiceDep
from plantml.serve.users.caller import ADMIN, PROMOTER, Caller
from plantml.serve.web.problems import RequestError, forbidden, unauthorized

COOKIE = "plantml_session"
HTTPS_COOKIE = f"__Host-{COOKIE}"
"""Under https. Browsers take it from this very host alone: no other of its domain can sign people in here."""

CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf_token"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_bearer = OAuth2PasswordBearer(tokenUrl="/v1/token", refreshUrl="/v1/token/refresh", auto_error=False)


class _SessionCookie(APIKeyCookie):
    async def __call__(self, request: HTTPConnection) -> str | None:
        return request.cookies.get(cookie_name(request))


_cookie = _SessionCookie(
    name=COOKIE,
    scheme_name="APIKeyCookie",
    auto_error=False,
    description="The page's session; writing also needs X-CSRF-Token.",
)


def is_https(request: HTTPConnection) -> bool:
    """True if the caller came by https: to this server, or to its proxy, which may have forgotten to say so."""
    service: Service = request.app.state.service
    return request.url.scheme == "https" or bool(service.config.behind_proxy)


def cookie_name(request: HTTPConnection) -> str:
    """The name of the page's cookie."""
    return HTTPS_COOKIE if is_https(request) else COOKIE


async def _csrf_token(request: Request, bearer: Annotated[str | None, Depends(_bearer)]) -> str:
    """The CSRF token of a header, or of a form's field; "" without, and where none is needed."""
    if request.method in _SAFE or bearer is not None or cookie_name(request) not in request.cookies:
        return ""
    token: object = request.headers.get(CSRF_HEADER)
    if token is None and request.headers.get("Content-Type", "").startswith(_FORMS):
        token = (await request.form()).get(CSRF_FIELD)
    return token if isinstance(token, str) else ""


async def current_caller(
    request: Request,
    service: ServiceDep,
    token: Annotated[str | None, Depends(_bearer)],
    cookie: Annotated[str | None, Depends(_cookie)],
    csrf_token: Annotated[str, Depends(_csrf_token)],
) -> Caller:
    """The caller of a request: by `Authorization: Bearer TOKEN-OR-KEY`, or by the page's cookie.

    Raises:
        RequestError: 401 without either, or if it is not valid; 403 for a form that another site may have sent.
    """
    address, credentials = address_of(request), service.credentials
    if token is not None:
        recent = credentials.of_recent_key(token, address)
        caller = recent if recent is not None else await run_in_threadpool(credentials.of_token, token, address)
    elif cookie is not None:
        caller = await run_in_threadpool(credentials.of_cookie, cookie, address)
        request.state.csrf_token = credentials.csrf_token(caller)
        if request.method not in _SAFE:
            credentials.check_csrf(caller, csrf_token)
    else:
        raise unauthorized("the request has no token")
    request.state.caller = caller
    return caller


CallerDep = Annotated[Caller, Depends(current_caller)]


async def caller_of(request: Request) -> Caller:
    """The caller of a request to a route that resolves its dependencies itself, without a form's CSRF field.

    See `current_caller`.
    """
    token = await _bearer(request)
    cookie = None if token is not None else await _cookie(request)
    csrf_token = request.headers.get(CSRF_HEADER, "")
    return await current_caller(request, request.app.state.service, token, cookie, csrf_token)


def require(role: str) -> Callable[[Caller], Caller]:
    """A dependency: the caller, who must have a role."""

    def check(caller: CallerDep) -> Caller:
        if not caller.may(role):
            raise forbidden(role)
        return caller

    return check


def password_caller(caller: CallerDep) -> Caller:
    """A dependency: the caller, who must not come by an API key, which may be narrower than its user, and outlived."""
    if caller.via == "key":
        raise RequestError(403, "An API key cannot do this", "", "Sign in with your password.")
    return caller


Contributor = Annotated[Caller, Depends(require("contributor"))]
Reviewer = Annotated[Caller, Depends(require("reviewer"))]
Trainer = Annotated[Caller, Depends(require("trainer"))]
Promoter = Annotated[Caller, Depends(require(PROMOTER))]
Admin = Annotated[Caller, Depends(require(ADMIN))]
Owner = Annotated[Caller, Depends(password_caller)]


def address_of(request: Request) -> str:
    """The address of the caller's machine."""
    return request.client.host if request.client is not None else ""
