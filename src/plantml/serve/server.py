"""One `plantml serve`: the first user, the address, and uvicorn."""

import os

import uvicorn

from plantml.concurrency import Listener
from plantml.errors import UsageError
from plantml.serve.accounts import FIRST_USER
from plantml.serve.app import create_app
from plantml.serve.config import ServeConfig
from plantml.serve.headers import is_loopback
from plantml.serve.service import open_service
from plantml.settings import Machine

PROXIES = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1,fc00::/7"
"""Where a proxy may be whose X-Forwarded headers are trusted: on this machine or in a private network.

Its right-most entry that is not a proxy is the caller. uvicorn's `*` would take the left-most, which callers make up.
"""


def serve(registry: str, config: ServeConfig, machine: Machine, listener: Listener) -> None:
    """Serve until a signal; running requests are finished first.

    Args:
        registry: URL of the registry.
        config: settings.
        machine: threads, cache and network access.
        listener: receives messages for the person who started it.

    Raises:
        UsageError: the address is open to others, and there is no TLS.
    """
    check_address(config)
    service = open_service(registry, config, machine)
    if password := service.accounts.add_first():
        # Even with --quiet: nobody could sign in without it.
        listener.warn(f"First start. Sign in as {FIRST_USER} with the password {password}, which is shown this once.")
    scheme = "https" if config.tls_certificate else "http"
    listener.say(f"Serving on {scheme}://{config.host}:{config.port}; the API is described at /docs. Stop with Ctrl-C.")
    uvicorn.Server(
        uvicorn.Config(
            create_app(service), host=config.host, port=config.port, log_config=None, access_log=False,
            ssl_certfile=config.tls_certificate, ssl_keyfile=config.tls_key, server_header=False,
            proxy_headers=config.behind_proxy,
            forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", PROXIES),
            timeout_graceful_shutdown=int(config.deadline) + 1,
        )
    ).run()  # fmt: skip


def check_address(config: ServeConfig) -> None:
    """Raise `UsageError` for an address that is open to others without TLS."""
    if config.tls_certificate or config.behind_proxy or config.insecure or is_loopback(config.host):
        return
    raise UsageError(
        f"{config.host} is open to other machines, and there is no TLS",
        "passwords would be sent in clear text",
        "Give --tls-certificate and --tls-key, or --behind-proxy; or allow it with --insecure.",
    )
