"""Traces for OpenTelemetry, where the environment asks for them: a span per request, and for what its photos wait for.

Nothing of a request's content is in a span: no query, no header, no body, no label, and no user. The exporter and its
settings are those of OpenTelemetry's own environment variables.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from plantml.about import __version__
from plantml.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_PATIENCE = 3.0
"""Seconds for the last spans."""

_NO_TEXT: Any = {"record_exception": False, "set_status_on_exception": False}
"""The text of an error may hold a label."""


class Tracing:
    """Spans of one server.

    Args:
        provider: exports them; without one there are none, and asking for one costs nothing.
    """

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("plantml", __version__)

    @contextlib.contextmanager
    def request(self, scope: Scope) -> Iterator["Span | None"]:
        """The span of a request, in the trace of its caller if they sent one."""
        if self._tracer is None:
            yield None
            return
        from opentelemetry import propagate, trace

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._tracer.start_as_current_span(
            scope["method"], propagate.extract(headers), trace.SpanKind.SERVER, **_NO_TEXT
        ) as span:
            yield span

    @contextlib.contextmanager
    def span(self, name: str, **attributes: Any) -> Iterator["Span | None"]:
        """A span of a part of the request that this task or thread works on.

        Args:
            name: of the part.
            attributes: what may be known of it, each called `plantml.NAME`.
        """
        if self._tracer is None:
            yield None
            return
        named = {f"plantml.{key}": value for key, value in attributes.items()}
        with self._tracer.start_as_current_span(name, attributes=named, **_NO_TEXT) as span:
            yield span

    def close(self) -> None:
        """Export what waits, and end. A collector that is away delays this for a moment only."""
        if self._provider is not None:
            ending = threading.Thread(target=self._provider.shutdown, daemon=True)
            ending.start()
            ending.join(_PATIENCE)


def trace_id(span: "Span | None") -> str | None:
    """The id of a span's trace, as in a `traceparent` header."""
    return None if span is None else f"{span.get_span_context().trace_id:032x}"


def end_request(span: "Span | None", method: str, route: str, status: int) -> None:
    """Complete the span of a request, by the semantic conventions of HTTP."""
    if span is None:
        return
    from opentelemetry import trace

    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    if status >= 500:
        span.set_status(trace.StatusCode.ERROR)


def from_environment(environment: Mapping[str, str] = os.environ) -> Tracing:
    """Traces as the variables `OTEL_…` want them; without an endpoint or an exporter there are none.

    Raises:
        MissingExtraError: they are wanted, and `[otel]` is not installed.
        UsageError: they are wanted in a way that plantml does not know.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "otlp" if any(map(environment.get, _ENDPOINTS)) else "none")
    if exporter == "none" or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing()
    protocol = next(filter(None, map(environment.get, _PROTOCOLS)), _PROTOCOL)
    for name, value, known in (
        ("OTEL_TRACES_EXPORTER", exporter, "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, _PROTOCOL),
    ):  # fmt: skip
        if value != known:
            raise UsageError(f"{name} is {value!r}", f"plantml knows {known}", f"Set it to {known}, or unset it.")
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        raise MissingExtraError("Traces cannot be sent", "OpenTelemetry is not installed", extra="otel")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    is_named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    attributes = {} if is_named else {"service.name": "plantml"}
    resource = Resource.create({**attributes, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
