"""Requests that are made from the OpenAPI document: no crash, no answer that the document does not have."""

import pytest
from hypothesis import HealthCheck, Phase, given, strategies
from hypothesis import settings as examples_of
from hypothesis.errors import Unsatisfiable
from tests.serve.conftest import listening, sign_in

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import CHECKS  # noqa: E402

KNOWN = {"name": "leaf", "number": 1, "version": "1", "n": 1, "model": "leaf"}
"""Values of path parameters that name what is there: random ones would only ever be answered by 404."""

EXPECTED = {501, 503}
"""Of the server's errors, the ones that say why and when to try again."""


def faults(url, headers, *, count, modes=tuple(GenerationMode)):
    """What each operation answers against its description, for `count` requests of each mode."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    checks = [
        CHECKS.get_one(name)
        for name in ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
    ]
    failures = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in modes:
            try:
                _try(operation, mode, headers, checks, count)
            except Unsatisfiable:  # an operation without a parameter has no invalid request
                continue
            except (Exception, BaseExceptionGroup) as error:
                failures[f"{operation.label}, {mode.value}"] = str(error)
    return failures


def _try(operation, mode, headers, checks, count):
    @examples_of(
        max_examples=count, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), is_there=strategies.booleans())
    def one(case, is_there):
        if is_there:
            known = KNOWN | ({"name": "leaves"} if case.path.startswith("/v1/datasets") else {})
            case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
        response = case.call(headers=headers, timeout=20)
        assert response.status_code < 500 or response.status_code in EXPECTED, (response.status_code, response.text)
        case.validate_response(response, checks=checks)

    one()


@pytest.fixture
def app(start, leaves):
    """Application and headers of an administrator, on a server with a model and a dataset, which trains nothing."""
    with start(dataset=(leaves,), workers=0) as client:
        yield client.app, sign_in(client, "boss", "admin")


def test_invalid_requests_get_documented_answers(app):
    application, headers = app
    with listening(application) as url:
        assert faults(url, headers, count=1, modes=[GenerationMode.NEGATIVE]) == {}


@pytest.mark.slow
def test_many_requests_from_the_document_get_documented_answers(app):
    application, headers = app
    with listening(application) as url:
        assert faults(url, headers, count=50) == {}
        assert faults(url, {}, count=10) == {}
