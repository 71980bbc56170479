"""All forms of the trained model, made once."""

from dataclasses import dataclass

import pytest

from plantml import bundle as bundles
from plantml.export import int8, speed
from plantml.export.forms import FORMS, Made, Source


@dataclass(frozen=True)
class Forms:
    """The bundle, and what the exporters made of it."""

    bundle: bundles.Bundle
    made: dict[str, Made]


@pytest.fixture(scope="session")
def every_form(trained):
    """Every form as its exporter made it, before any proof."""
    bundle = bundles.find(trained.run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "CALIBRATION", 12)
        patch.setattr(int8, "METHODS", {name: int8.METHODS[name] for name in ("min-max", "percentile 99.99")})
        return Forms(bundle, {name: form.make(Source(bundle)) for name, form in FORMS.items()})


@pytest.fixture
def ready(every_form, monkeypatch):
    """`ready(name, files)`: the exporter of this form makes these files; its own, if none are given."""

    def replace(name, files=None):
        form = FORMS[name]
        made = every_form.made[name] if files is None else Made(files)
        changed = type(form)(form.file, lambda source: made, form.annotate, form.exact)
        monkeypatch.setitem(FORMS, name, changed)

    return replace


@pytest.fixture
def untimed(monkeypatch):
    """Speed is not what the test is about: one short round."""
    monkeypatch.setattr(speed, "_SECONDS", 0.0)
    monkeypatch.setattr(speed.measure, "__defaults__", (1,))
