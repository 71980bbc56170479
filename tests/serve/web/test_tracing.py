"""Traces: a span per request and its parts, without its content, sent where the environment says."""

import json
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.serve.conftest import sign_in

from plantml import settings
from plantml.concurrency import Listener
from plantml.errors import MissingExtraError, UsageError
from plantml.serve import server
from plantml.serve.app import create_app
from plantml.serve.config import ServeConfig
from plantml.serve.service import open_service
from plantml.serve.web import tracing
from plantml.serve.web.tracing import Tracing, from_environment


@pytest.fixture
def spans(registry, tmp_path):
    """A client of a fresh server, and its spans so far, by name."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    config = ServeConfig(state=str(tmp_path / "state"), threads=2)
    service = open_service(registry, config, settings.machine(), Tracing(provider))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        client.service = service
        yield client, lambda: {span.name: span for span in exporter.get_finished_spans()}


def test_a_prediction_is_a_span_with_parts_in_the_trace_of_its_caller(spans, photo, caplog) -> None:
    client, by_name = spans
    ada = sign_in(client, "ada", "category")
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {**ada, "traceparent": f"00-{trace_id}-{parent}-01"}
    files = [("files", (f"{n}.jpg", photo(seed=n), "image/jpeg")) for n in range(2)]
    with caplog.at_level("INFO", "plantml.serve"):
        assert client.post("/v1/predict?model=leaf@1", files=files, headers=headers).status_code == 200
    request, inference = by_name()["POST /v1/predict"], by_name()["inference"]
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (trace_id, parent)
    assert dict(request.attributes) == {
        "http.request.method": "POST", "http.route": "/v1/predict", "http.response.status_code": 200,
    }  # fmt: skip
    assert inference.parent.span_id == request.context.span_id
    assert inference.attributes["plantml.photos"] == 2
    assert 0 <= inference.attributes["plantml.queue_seconds"] < (inference.end_time - inference.start_time) / 1e9
    assert [each.fields["trace"] for each in caplog.records if each.getMessage() == "request"] == [trace_id]


def test_no_span_holds_what_was_sent(spans, photo) -> None:
    client, by_name = spans
    ada = sign_in(client, "ada", "category")
    answer = client.post("/v1/predict", json={"items": ["secret-dataset/secret.jpg"]}, headers=ada)
    assert answer.status_code == 404
    client.get("/v1/models/secret-name?secret=1", headers=ada)
    client.get("/secret-path")
    assert {"POST /v1/predict", "fetch", "GET /v1/models/{name}", "GET other", "POST /v1/token"} <= set(by_name())
    text = json.dumps([span.to_json() for span in by_name().values()])
    assert "secret" not in text
    assert "ada" not in text


class Sink(BaseHTTPRequestHandler):
    """Takes what is exported."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_spans_are_sent_where_the_environment_says(monkeypatch) -> None:
    with closing(HTTPServer(("127.0.0.1", 0), Sink)) as sink:
        sink.close, sink.got = sink.server_close, []
        thread = threading.Thread(target=sink.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{sink.server_port}")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        traced = from_environment()
        with traced.span("inference", photos=3):
            pass
        traced.close()
        sink.shutdown()
        thread.join()
    ((path, content),) = sink.got
    assert path == "/v1/traces"
    (resource,) = content.resource_spans
    about = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (about["service.name"], about["deployment.environment.name"]) == ("plantml", "test")
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.attributes[0].key, span.attributes[0].value.int_value) == ("inference", "plantml.photos", 3)


@pytest.mark.parametrize(
    "environment",
    [{}, {"OTEL_SERVICE_NAME": "x"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
     {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}],
)  # fmt: skip
def test_nothing_is_sent_unless_it_is_asked_for(environment, monkeypatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _: 1 / 0)
    off = from_environment(environment)
    with off.request({"type": "http"}) as request, off.span("a part") as part:
        assert (request, part) == (None, None)
    off.close()


def test_what_is_asked_for_in_another_way_is_refused_and_a_missing_package_is_named(monkeypatch) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}
    with pytest.raises(UsageError, match="OTEL_TRACES_EXPORTER is 'zipkin'"):
        from_environment({"OTEL_TRACES_EXPORTER": "zipkin"})
    with pytest.raises(UsageError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"):
        from_environment({**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError):
        from_environment(endpoint)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(server, "from_environment", lambda: from_environment(endpoint))
    warnings = []
    assert server._tracing(Listener(warn=warnings.append))._tracer is None  # a server starts without them
    assert "otel" in warnings[0]
