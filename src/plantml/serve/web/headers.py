"""Security headers of every response, the names that the server answers to, and who may call from other sites."""

import ipaddress
import re
from collections.abc import Collection

from fastapi import FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plantml.serve.config import ServeConfig
from plantml.serve.web.problems import problem

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""Scripts and styles are files of this server: nothing inline, nothing from elsewhere."""

_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_NO_STORE = (b"cache-control", b"no-store")
_HSTS = (b"strict-transport-security", b"max-age=31536000")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"',]*)", re.IGNORECASE)
_UTF8 = {"utf-8", "utf8", "us-ascii"}
_PROBES = {"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
"""Asked for by address, whatever the server's name."""


class Guard:
    """ASGI middleware: adds the headers that a response lacks; refuses requests for other hosts, or with too much.

    Args:
        app: the application.
        hosts: names that it answers to; `None` for any. Else a page elsewhere could reach a server on loopback by a
            name of its own that points there (DNS rebinding).
        largest: most bytes that a request may announce; Starlette counts those that come unannounced.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None, largest: int) -> None:
        self._app, self._hosts, self._largest = app, hosts, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name for name, _ in headers}
                headers += (each for each in _HEADERS if each[0] not in names)
                if not scope["path"].startswith("/static/") and _NO_STORE[0] not in names:
                    headers.append(_NO_STORE)
                if scope["scheme"] == "https" and _HSTS[0] not in names:
                    headers.append(_HSTS)
                message["headers"] = headers
            await send(message)

        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = {key: value.decode("latin-1") for key, value in reversed(scope["headers"])}  # the first of a name
        name, size = _host_name(headers.get(b"host", "")), headers.get(b"content-length", "")
        if not (self._hosts is None or name in self._hosts or scope["path"] in _PROBES):
            return problem(400, "This server has another name", f"it is not {name}", "See --trusted-host.")
        if size.isdecimal() and int(size) > self._largest:
            return problem(413, "The request is too large", f"at most {self._largest} bytes", "Send several requests.")
        charset = _CHARSET.search(headers.get(b"content-type", ""))
        if charset and charset[1].lower() not in _UTF8:  # Python knows some that decode to what is no text
            return problem(415, "The request has another encoding", charset[1][:40], "Send UTF-8.")
        return None


def add_middleware(app: FastAPI, config: ServeConfig) -> None:
    """Add the headers, the bound of bodies, and CORS for the origins of the settings."""
    if config.origin:
        # Without credentials: a page elsewhere sends a token, never this server's cookie.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.origin),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Accept"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=config.max_upload)
    app.add_middleware(Guard, hosts=trusted_hosts(config), largest=config.max_upload)


def trusted_hosts(config: ServeConfig) -> frozenset[str] | None:
    """The names that the server answers to; `None` for any."""
    if config.trusted_host:
        return frozenset(name.lower() for name in config.trusted_host)
    if is_loopback(config.host) and not config.behind_proxy:
        return frozenset({"localhost", "127.0.0.1", "::1", config.host})
    return None


def is_loopback(host: str) -> bool:
    """True for `localhost`, and for an address that only this machine reaches; false for other names."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """The name in a `Host` header, without the port."""
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower()
