"""`/v1/token`, `/v1/me`: sign in and out, and who is signed in. The page signs in with the functions here, too."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import BaseModel, Field, SecretStr

from plantml.serve.access import CallerDep, Owner, address_of, cookie_name, is_https
from plantml.serve.service import Service, ServiceDep
from plantml.serve.users.caller import Caller
from plantml.serve.users.credentials import ACCESS_TIME, LOGIN_TIME, Tokens
from plantml.serve.web.json_bodies import JsonRoute
from plantml.serve.web.problems import RequestError, responses

router = APIRouter(prefix="/v1", tags=["session"], route_class=JsonRoute)
_MOST_WAITING = 32
"""Sign-ins that may wait for their turn."""


class TokenAnswer(BaseModel):
    """Tokens as OAuth2 names them."""

    access_token: str
    refresh_token: str
    token_type: str = "bearer"  # noqa: S105 - the name of a type
    expires_in: int = Field(description="Seconds until the access token expires.", examples=[900])


class Me(BaseModel):
    """Who is signed in."""

    name: str = Field(examples=["ada"])
    roles: list[str] = Field(examples=[["category", "reviewer"]])
    via: str = Field(description="`token`, `key` or `cookie`.", examples=["token"])


class PasswordChange(BaseModel):
    """An old and a new password."""

    old: SecretStr
    new: SecretStr


@router.post("/token", summary="Sign in by name and password.", responses=responses(401, 422, 429, 503))
async def token(
    request: Request, service: ServiceDep, form: Annotated[OAuth2PasswordRequestForm, Depends()]
) -> TokenAnswer:
    """Exchange a name and a password for tokens."""
    caller = await check_password(request, service, form.username, form.password)
    return _answer(await run_in_threadpool(service.credentials.begin, caller))


@router.post("/token/refresh", summary="Refresh the tokens.", responses=responses(401, 422, 503))
def refresh(request: Request, service: ServiceDep, refresh_token: Annotated[str, Form()]) -> TokenAnswer:
    """Exchange a refresh token, which can be used once, for new tokens."""
    return _answer(service.credentials.refresh(refresh_token, address_of(request)))


@router.post("/token/revoke", summary="Sign out.", status_code=204, responses=responses(422, 503))
def revoke(request: Request, service: ServiceDep, token: Annotated[str, Form()]) -> None:
    """End the sign-in of an access or refresh token, as in RFC 7009: anything that is not a valid token is ignored."""
    service.credentials.revoke(token, address_of(request))


@router.get("/me", summary="Show who is signed in.", responses=responses(401, 503))
def me(caller: CallerDep) -> Me:
    """Your name and roles."""
    return Me(name=caller.name, roles=sorted(caller.roles), via=caller.via)


@router.put(
    "/me/password",
    summary="Change your password.",
    status_code=204,
    responses=responses(401, 403, 422, 429, 503),
)
async def change_password(service: ServiceDep, caller: Owner, body: PasswordChange) -> None:
    """Replace your password. All your sign-ins end, including this one."""
    old, new = body.old.get_secret_value(), body.new.get_secret_value()
    check_load(service)
    await to_thread.run_sync(service.credentials.change_password, caller, old, new, limiter=service.credentials.slots)


async def check_password(request: Request, service: Service, name: str, password: str) -> Caller:
    """The caller of a name and password; only a few are checked at a time, for each takes much memory.

    Raises:
        RequestError: 401, one of them is wrong; 429 after too many of these; 503, too many sign-ins at once.
    """
    check_load(service)
    check, slots = service.credentials.sign_in, service.credentials.slots
    return await to_thread.run_sync(check, name, password, address_of(request), limiter=slots)


def check_load(service: Service) -> None:
    """Raise `RequestError` 503 if too many sign-ins wait."""
    if service.credentials.slots.statistics().tasks_waiting >= _MOST_WAITING:
        raise RequestError(503, "Too many sign-ins at once", "", "Try again in some seconds.")


def start_session(request: Request, response: Response, service: Service, caller: Caller) -> None:
    """Give a response the cookie of a new session. Blocks.

    Raises:
        RequestError: 403, the form is on another site, which would sign its visitor in as somebody else.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise RequestError(403, "The form is on another site", "", "Sign in on this server's own page.")
    response.set_cookie(
        cookie_name(request),
        service.credentials.begin_session(caller),
        max_age=int(LOGIN_TIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=is_https(request),
    )


def end_session(request: Request, response: Response, service: Service, caller: Caller) -> None:
    """Sign out, and take the cookie back. Blocks."""
    service.credentials.end(caller)
    response.delete_cookie(cookie_name(request), secure=is_https(request), httponly=True, samesite="lax")


def _answer(tokens: Tokens) -> TokenAnswer:
    return TokenAnswer(
        access_token=tokens.access, refresh_token=tokens.refresh, expires_in=int(ACCESS_TIME.total_seconds())
    )
