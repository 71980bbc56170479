"""One `plantml serve`: the first user, the address, and uvicorn."""

import ipaddress
import secrets
from collections.abc import Callable

import uvicorn

from plantml.errors import InputError, UsageError
from plantml.serve.accounts import ADMIN
from plantml.serve.app import create_app
from plantml.serve.config import ServeConfig
from plantml.serve.service import open_service
from plantml.settings import Machine

FIRST_USER = "admin"


def serve(registry: str, config: ServeConfig, machine: Machine, say: Callable[[str], None]) -> None:
    """Serve until a signal; running requests are finished first.

    Args:
        registry: URL of the registry.
        config: settings.
        machine: threads, cache and network access.
        say: receives messages for the person who started it.

    Raises:
        UsageError: the address is open to others, and there is no TLS.
    """
    check_address(config)
    service = open_service(registry, config, machine)
    if not service.accounts.users():
        password = secrets.token_urlsafe(16)
        service.accounts.add(FIRST_USER, password, [ADMIN])
        say(f"First start. Sign in as {FIRST_USER} with the password {password}, which is shown this once.")
    scheme = "https" if config.tls_certificate else "http"
    say(f"Serving on {scheme}://{config.host}:{config.port}; the API is described at /docs. Stop with Ctrl-C.")
    uvicorn.Server(
        uvicorn.Config(
            create_app(service), host=config.host, port=config.port, log_config=None, access_log=False,
            ssl_certfile=config.tls_certificate, ssl_keyfile=config.tls_key, server_header=False,
            proxy_headers=config.behind_proxy, timeout_graceful_shutdown=int(config.deadline) + 1,
        )
    ).run()  # fmt: skip


def check_address(config: ServeConfig) -> None:
    """Raise `UsageError` for an address that is open to others without TLS."""
    if config.tls_certificate or config.behind_proxy or config.insecure or _is_loopback(config.host):
        return
    raise UsageError(
        f"{config.host} is open to other machines, and there is no TLS",
        "passwords would be sent in clear text",
        "Give --tls-certificate and --tls-key, or --behind-proxy; or allow it with --insecure.",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise InputError(f"{host} is not an address", str(error), "Use an address such as 127.0.0.1.") from error
