"""What the OpenAPI document says beyond the routes: the form of errors, and the two ways to sign a request."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from plantml.serve.web.examples import EXAMPLES
from plantml.serve.web.problems import responses

_OF_BODIES = responses(400, 413, 422)
"""Answers to a body that cannot be read, is too large, or does not fit: given before the route is asked."""

_OF_ANY = responses(431)
"""Answers that any request may get."""

_TOKEN = "An access token of `POST /v1/token`."  # noqa: S105 - a description
_KEY = "An API key, for machines: create one on the page, or with `plantml serve users key`."
_COOKIE = "The page's own sign-in. Requests that change something also need the header `X-CSRF-Token`."


def operation_id(route: APIRoute) -> str:
    """What clients that are generated call an operation."""
    return route.name


class Problem(BaseModel):
    """An error, after RFC 9457: what, why (`detail`), what to do next (`hint`), and the code of the command line."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "This is not allowed",
                    "status": 403,
                    "detail": "it needs the role trainer",
                    "hint": "Ask an administrator for the role.",
                    "code": 2,
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    hint: str
    code: int


def complete(app: FastAPI) -> None:
    """Complete the document that FastAPI makes of the routes."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(original())
        return original()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of an error, which no route answers
        schemas.pop(name, None)
    for name, example in EXAMPLES.items():
        schemas.get(name, {}).setdefault("examples", [example])
    schemes = components.setdefault("securitySchemes", {})
    for name, text in (("OAuth2PasswordBearer", _TOKEN), ("APIKeyCookie", _COOKIE)):
        schemes.get(name, {})["description"] = text
    schemes["ApiKey"] = {"type": "http", "scheme": "bearer", "description": _KEY}
    for operations in document["paths"].values():
        for operation in operations.values():
            if {"OAuth2PasswordBearer": []} in operation.get("security", ()):
                operation["security"].append({"ApiKey": []})
            for status, response in {**_OF_ANY, **(_OF_BODIES if "requestBody" in operation else {})}.items():
                operation["responses"].setdefault(str(status), response)
