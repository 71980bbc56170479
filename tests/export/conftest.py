"""All forms of the trained model, each made once."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from plantml.export import int8, latency
from plantml.export.config import ExportConfig
from plantml.export.forms import FORMS, Made, Source
from plantml.model import bundle as bundles

EXPORTERS, METHODS = dict(FORMS), dict(int8.METHODS)
"""As they are before a test puts others in their place."""


class OnDemand(dict[str, Made]):
    """Each form is made when it is first asked for."""

    def __init__(self, bundle: bundles.Bundle) -> None:
        super().__init__()
        self.bundle = bundle

    def __missing__(self, name: str) -> Made:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(int8, "CALIBRATION", 12)
            patch.setattr(int8, "METHODS", {name: METHODS[name] for name in ("min-max", "percentile 99.99")})
            self[name] = EXPORTERS[name].make(Source(self.bundle, ExportConfig()))
        return self[name]


@dataclass(frozen=True)
class Forms:
    """The bundle, and what the exporters make of it, before any proof."""

    bundle: bundles.Bundle
    made: Mapping[str, Made]


@pytest.fixture(scope="session")
def every_form(trained):
    """Every form as its exporter makes it."""
    bundle = bundles.find(trained.run)
    return Forms(bundle, OnDemand(bundle))


@pytest.fixture
def ready(every_form, monkeypatch):
    """`ready(name, files)`: the exporter of this form makes these files; its own, if none are given."""

    def replace(name, files=None):
        form = FORMS[name]
        made = every_form.made[name] if files is None else Made(files)
        changed = type(form)(form.file, lambda source: made, form.annotate, form.exact)
        monkeypatch.setitem(FORMS, name, changed)

    return replace


@pytest.fixture(scope="module")
def untimed():
    """Speed is not what the tests of a module are about: one short round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "_SECONDS", 0.0)
        patch.setattr(latency.measure, "__defaults__", (1,))
        yield
