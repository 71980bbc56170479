"""One `plantml serve`: the first user, the address, and uvicorn."""

import contextlib
import gc
import os
import socket
import ssl
import threading
from types import FrameType

import uvicorn

from plantml import extras, storage
from plantml.concurrency import Listener
from plantml.errors import InputError, MissingExtraError, UsageError
from plantml.loading import freeze
from plantml.serve.app import create_app
from plantml.serve.config import ServeConfig
from plantml.serve.photos.datasets import served
from plantml.serve.service import open_service
from plantml.serve.telemetry import logging_to_stderr
from plantml.serve.users.accounts import FIRST_USER
from plantml.serve.web.connection import Connection
from plantml.serve.web.headers import is_loopback
from plantml.serve.web.tracing import Tracing, from_environment
from plantml.serve.work.worker_processes import WorkerProcesses
from plantml.settings import Machine

FEW_RETRIES = {"AWS_MAX_ATTEMPTS": "2"}
"""Environment for the clients of storages. A request that waits half a minute for a bucket that is away holds a thread;
an answer 503 after some seconds, with the time to come back, is of more use."""


def serve(registry: str, config: ServeConfig, machine: Machine, listener: Listener) -> None:
    """Serve until a signal; running requests are finished first.

    Args:
        registry: URL of the registry.
        config: settings.
        machine: threads, cache and network access.
        listener: receives messages for the person who started it.

    Raises:
        UsageError: the address is open to others, and there is no TLS.
        InputError: the TLS certificate or its key cannot be read.
    """
    check_address(config)
    check_tls(config)
    for name, value in FEW_RETRIES.items():
        os.environ.setdefault(name, value)
    service = open_service(registry, config, machine, _tracing(listener))
    scheme, host = "https" if config.tls_certificate else "http", config.host
    with _listening(config) as there, logging_to_stderr(), _workers(registry, config, machine, listener):
        if password := service.accounts.add_first():  # shown even with --quiet: nobody could sign in without it
            listener.warn(
                f"First start. Sign in as {FIRST_USER} with the password {password}, which is shown only once."
            )
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{there.getsockname()[1]}"
        application = create_app(service)
        freeze()  # all of this lives as long as the server
        gc.enable()
        listener.say(f"Serving on {address}; the API is described at {address}/docs. Stop with Ctrl-C.")
        _Server(
            uvicorn.Config(
                application, http=Connection, ws="none", log_config=None, access_log=False, server_header=False,
                ssl_certfile=config.tls_certificate, ssl_keyfile=config.tls_key,
                proxy_headers=bool(config.behind_proxy),
                forwarded_allow_ips=list(config.behind_proxy),  # the right-most entry that is no proxy is the caller
                timeout_graceful_shutdown=int(config.deadline) + 1,
            ),
            service.stopping,
        ).run([there])  # fmt: skip


def _tracing(listener: Listener) -> Tracing:
    try:
        return from_environment()
    except MissingExtraError as error:  # the variables may be there for another program
        listener.warn(f"{error}: {error.hint}")
        return Tracing()


class _Server(uvicorn.Server):
    """A server that says when it begins to shut down.

    Args:
        config: of uvicorn.
        stopping: set by a signal.
    """

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        self._stopping.set()
        super().handle_exit(sig, frame)


def _workers(
    registry: str, config: ServeConfig, machine: Machine, listener: Listener
) -> contextlib.AbstractContextManager[object]:
    """The processes that train for this server; none where training is not installed."""
    if not config.workers:
        return contextlib.nullcontext()
    try:
        extras.need_train()
    except MissingExtraError as error:
        listener.say(f"Trainings wait for plantml work on another machine: {error.why}.")
        return contextlib.nullcontext()
    words = ["work", storage.absolute(registry), "--state", storage.absolute(config.state)]
    for url in served(config).values():
        words += ["--dataset", storage.absolute(url)]
    return WorkerProcesses(config.workers, [*words, *(["--offline"] if machine.offline else [])], listener.warn)


def _listening(config: ServeConfig) -> socket.socket:
    """The socket that requests come to, bound before the server says where it is."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"The server cannot listen on {config.host}:{config.port}", error.strerror or str(error),
            "Choose another --port; 0 finds a free one.",
        ) from error  # fmt: skip


def check_address(config: ServeConfig) -> None:
    """Raise `UsageError` for an address that is open to others without TLS."""
    if config.tls_certificate or config.behind_proxy or config.insecure or is_loopback(config.host):
        return
    raise UsageError(
        f"{config.host} is open to other machines, and there is no TLS",
        "passwords would be sent in clear text",
        "Give --tls-certificate and --tls-key, or --behind-proxy ADDRESS; or allow it with --insecure.",
    )


def check_tls(config: ServeConfig) -> None:
    """Raise `UsageError` for a key without a certificate, `InputError` for files that are none."""
    if config.tls_certificate is None:
        if config.tls_key is not None:
            raise UsageError("There is a TLS key and no certificate", "", "Give --tls-certificate, too.")
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.tls_certificate, config.tls_key, password="")  # never asks for one
    except (OSError, ValueError) as error:
        raise InputError(
            "The TLS certificate or its key cannot be read", str(error),
            "Give PEM files: the chain of certificates, and its private key without a passphrase.",
        ) from error  # fmt: skip
