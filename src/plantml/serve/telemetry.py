"""What a server tells its operators: metrics for Prometheus, and one line of JSON per request.

Nothing of a request's content is kept: no query, no header, no body, no label. A metric names routes, not paths.
"""

import json
import logging
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plantml.about import __version__
from plantml.errors import Exit
from plantml.serve.web.problems import problem
from plantml.serve.web.tracing import Tracing, end_request, trace_id

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from plantml.serve.models.model_pool import OpenModel

REQUEST_ID = "X-Request-ID"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Others are whatever a client likes to write, and would be a metric each."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_log = logging.getLogger(__name__)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._requests = Counter(
            "plantml_requests", "Requests by route and status.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "plantml_request_seconds", "Time from a request to the end of its response.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._photos = Counter("plantml_photos", "Photos that were predicted, or failed.", registry=registry)
        self._failures = Counter("plantml_failures", "Photos that failed, by reason.", ["reason"], registry=registry)
        self._waits = Histogram(
            "plantml_queue_wait_seconds", "Time that a photo waited for a thread.", buckets=_SECONDS, registry=registry
        )
        self._shed = Counter(
            "plantml_shed", "Requests refused because the queue was full or the deadline had passed.", ["reason"],
            registry=registry,
        )  # fmt: skip
        Gauge("plantml_info", "Version of plantml.", ["version"], registry=registry).labels(__version__).set(1)

    def watch(self, waiting: Callable[[], int], models: Callable[[], Sequence["OpenModel"]]) -> None:
        """Also measure, when it is asked for, how many photos wait, and which models are open."""
        gauge = Gauge("plantml_queue_photos", "Photos that wait for a thread.", registry=self.registry)
        gauge.set_function(waiting)
        self.registry.register(_Models(models))

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def note_records(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Count photos by their records."""
        for record in records:
            self._photos.inc()
            if record["failure"] is not None:
                self._failures.labels(record["failure"].partition(":")[0]).inc()

    def note_wait(self, seconds: float) -> None:
        """Count a photo that left the queue."""
        self._waits.observe(seconds)

    def note_refusal(self, reason: str) -> None:
        """Count a request that was refused: `full`, or `deadline`."""
        self._shed.labels(reason).inc()


class _Models(Collector):
    """The open models as they are now."""

    def __init__(self, models: Callable[[], Sequence["OpenModel"]]) -> None:
        self._models = models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One series per model."""
        family = GaugeMetricFamily("plantml_model_info", "Open models.", labels=["model", "version", "digest"])
        for model in self._models():
            family.add_metric([model.name, str(model.version), model.digest], 1)
        yield family


class Telemetry:
    """Middleware: each request has an id, is counted, and leaves a line in the log; a bug is answered as a problem.

    Args:
        app: what answers.
        metrics: that count.
        tracing: of requests.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing) -> None:
        self._app, self._metrics, self._tracing = app, metrics, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._tracing.request(scope) as span:
            await self._answer(scope, receive, send, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: "Span | None") -> None:
        started, status, sent = time.perf_counter(), 0, 0
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID.lower().encode()), b"")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8).encode()

        async def noted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID.lower().encode(), request_id)]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            _log.exception("A request failed", extra={"fields": {"request": request_id.decode()}})
            if status:
                raise
            hint = "Report it with the X-Request-ID of this response."
            await problem(500, "The server has a bug", "", hint, code=Exit.BUG)(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.note_request(method, route, status, seconds)
            end_request(span, method, route, status)
            caller = scope.get("state", {}).get("caller")
            fields = {
                "request": request_id.decode(), "client": (scope.get("client") or ("",))[0],
                "user": caller.name if caller else None, "method": scope["method"], "path": scope["path"],
                "status": status, "seconds": round(seconds, 4), "bytes": sent,
            }  # fmt: skip
            if span is not None:
                fields["trace"] = trace_id(span)
            _log.info("request", extra={"fields": fields})


class _JsonLines(logging.Formatter):
    """One JSON object per event."""

    def format(self, record: logging.LogRecord) -> str:
        """Its line."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(content)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Write what the server and uvicorn log to stderr, as JSON Lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    levels = {
        "plantml.serve": logging.INFO,
        "uvicorn": logging.WARNING,
        "opentelemetry": logging.WARNING,
        "python_multipart": logging.ERROR,  # it warns of every form that is none, which is answered
    }
    loggers = [logging.getLogger(name) for name in levels]
    before = [each.level for each in loggers]
    for logger, level in zip(loggers, levels.values(), strict=True):
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
