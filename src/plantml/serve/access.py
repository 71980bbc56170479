"""Who calls: from a request to a `Caller`, and the roles that a route needs."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, OAuth2PasswordBearer

from plantml.serve.accounts import Caller
from plantml.serve.problems import forbidden, unauthorized
from plantml.serve.service import ServiceDep

COOKIE = "plantml_session"
_bearer = OAuth2PasswordBearer(tokenUrl="/v1/token", auto_error=False)
_cookie = APIKeyCookie(name=COOKIE, auto_error=False)


def current_caller(
    request: Request,
    service: ServiceDep,
    token: Annotated[str | None, Depends(_bearer)],
    cookie: Annotated[str | None, Depends(_cookie)],
) -> Caller:
    """The caller of a request: by `Authorization: Bearer TOKEN-OR-KEY`, or by the page's cookie.

    Raises:
        RequestError: 401 without either, or if it is not valid.
    """
    if token is not None:
        caller = service.accounts.of_token(token)
    elif cookie is not None:
        caller = service.accounts.of_cookie(cookie)
    else:
        raise unauthorized("the request has no token")
    request.state.caller = caller
    return caller


CallerDep = Annotated[Caller, Depends(current_caller)]


def require(role: str) -> Callable[[Caller], Caller]:
    """A dependency: the caller, who must have a role."""

    def check(caller: CallerDep) -> Caller:
        if not caller.may(role):
            raise forbidden(role)
        return caller

    return check
