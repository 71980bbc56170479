"""Errors over HTTP: `application/problem+json` (RFC 9457) with the three parts of every error."""

import copy
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from plantml.errors import (
    AlreadyExistsError,
    Exit,
    GateError,
    InputError,
    MissingExtraError,
    NotFoundError,
    PlantmlError,
    StorageError,
    UsageError,
)

_log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
_STATUS: Mapping[type[PlantmlError], int] = {
    NotFoundError: 404,
    InputError: 422,
    UsageError: 400,
    GateError: 409,
    AlreadyExistsError: 409,
    StorageError: 503,
    MissingExtraError: 501,
}
_RETRY_AFTER = "5"
"""Seconds after which a request that storage or load refused may succeed."""


class RequestError(PlantmlError):
    """A request that cannot be answered, with its HTTP status.

    Args:
        status: HTTP status.
        what: what happened.
        why: the cause.
        hint: what to do next.
        headers: of the response.
    """

    exit_code = Exit.USAGE

    def __init__(
        self, status: int, what: str, why: str = "", hint: str = "", *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, why, hint)
        self.status, self.headers = status, dict(headers or {})


def unauthorized(why: str) -> RequestError:
    """The error of a request without a valid sign-in."""
    hint = "Send a token of POST /v1/token, or an API key."
    return RequestError(401, "Sign in first", why, hint, headers={"WWW-Authenticate": "Bearer"})


def forbidden(role: str) -> RequestError:
    """The error of a caller who lacks a role."""
    return RequestError(403, "This is not allowed", f"it needs the role {role}", "Ask an administrator for the role.")


def busy(why: str) -> RequestError:
    """The error of a request that an overloaded server refuses."""
    return RequestError(503, "The server is busy", why, "Try again later.", headers={"Retry-After": _RETRY_AFTER})


def add_handlers(app: FastAPI) -> None:
    """Answer every error with a problem document."""
    app.add_exception_handler(PlantmlError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)


def problem(
    status: int,
    what: str,
    why: str = "",
    hint: str = "",
    *,
    code: int = Exit.USAGE,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """A response with a problem document; `code` is the exit code that the command line would end with."""
    content = {"type": "about:blank", "title": what, "status": status, "detail": why, "hint": hint, "code": int(code)}
    content |= more or {}
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


async def _answer_nobody(_: Request, __: Exception) -> Response:
    """The answer to a client that left before its request had arrived: for the log."""
    return problem(499, "The client has left")


def reasons(errors: Iterable[Mapping[str, Any]]) -> str:
    """What pydantic's errors say, each with the path of its field."""
    texts = (f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in errors)
    return "; ".join(text.removeprefix(": ") for text in texts)


def status_of(error: PlantmlError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, RequestError):
        return error.status
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def for_clients(error: PlantmlError, request: Request) -> PlantmlError:
    """What a client is told of an error: names in place of URLs and folders.

    That of a storage or the database names hosts, too: it goes to the log.
    """
    if isinstance(error, RequestError):
        return error
    if status_of(error) != 503:
        shown = copy.copy(error)
        for place, name in request.app.state.service.places.items():
            shown.what, shown.why, shown.hint = (
                text.replace(place, name) for text in (shown.what, shown.why, shown.hint)
            )
        return shown
    _log.warning("A storage or the database failed: %s", error)
    return StorageError(
        "The server cannot reach its storage", "the server's log has the cause", "Try again later, or tell an operator."
    )


def answer_error(error: PlantmlError, more: Mapping[str, Any] | None = None) -> JSONResponse:
    """The response to an error; `more` are further members of its document."""
    status = status_of(error)
    headers = error.headers if isinstance(error, RequestError) else {}
    if status == 503 and "Retry-After" not in headers:
        headers = {**headers, "Retry-After": _RETRY_AFTER}
    return problem(status, error.what, error.why, error.hint, code=error.exit_code, headers=headers, more=more)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PlantmlError)
    return answer_error(for_clients(error, request))


async def _answer_validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(422, "The request is malformed", reasons(error.errors()), "See /docs for the fields.")


async def _answer_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    hint = "See /docs for the API."
    return problem(error.status_code, str(error.detail), "", hint, headers=error.headers)


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, text in {
        400: "Bad request.",
        401: "Not authenticated.",
        403: "The role is missing.",
        404: "Not found.",
        409: "Conflict with the current state.",
        413: "The request is too large.",
        415: "The media type is not supported.",
        422: "The request has invalid values.",
        429: "Too many requests.",
        431: "The request's line and headers are too large.",
        503: "The server is busy, or storage cannot be reached; see Retry-After.",
    }.items()
}
"""Problem responses for the OpenAPI document; a route takes those it can give."""


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route."""
    return {status: RESPONSES[status] for status in statuses}
