"""`--speed auto`: the fastest form that is proven and measured, measured once, and float32 when in doubt."""

from dataclasses import replace

import pytest

from plantml import settings
from plantml.errors import InputError, MissingExtraError, UsageError
from plantml.model import form_choice, runtimes
from plantml.model.proven_forms import ProvenForm


class Clockwork:
    """A runtime whose calls are said to take so many seconds."""

    name = "clockwork"

    def __init__(self, seconds):
        self.seconds, self.calls = seconds, 0

    def run(self, batch, columns=None):
        self.calls += 1
        return self.seconds


@pytest.fixture
def machine(tmp_path):
    return settings.Machine(cache_dir=tmp_path / "cache", threads=2)


@pytest.fixture
def bundle(trained):
    plain = runtimes.open_model(trained.run)[0]
    forms = {name: ProvenForm(name, name * 8, plain.digest, {}) for name in ("int8", "bfloat16")}
    return replace(plain, forms=forms)


@pytest.fixture
def opened(monkeypatch):
    """`opened(float32=…, int8=…, bfloat16=…)`: runtimes whose calls take so long; an error is raised."""

    def make(**seconds):
        clocks = {name: Clockwork(each) if isinstance(each, float) else each for name, each in seconds.items()}

        def open_form(bundle, name, cache=None):
            if isinstance(clocks[name], Exception):
                raise clocks[name]
            return replace(bundle, form=bundle.forms[name]), clocks[name]

        monkeypatch.setattr(form_choice.runtimes, "open_form", open_form)
        monkeypatch.setattr(
            form_choice.runtimes, "open_model", lambda bundle, **_: (bundle, clocks[form_choice.FLOAT32])
        )
        monkeypatch.setattr(form_choice.autotune, "rate", lambda work, threads, batch: batch / work(batch))
        return clocks

    return make


def chosen(bundle, machine, **options):
    form = form_choice.open_form(bundle, "auto", machine, **options)[0].form
    return form.name if form else form_choice.FLOAT32


def test_the_fastest_form_is_measured_once(bundle, machine, opened):
    clocks = opened(float32=0.02, int8=0.01, bfloat16=0.005)
    assert chosen(bundle, machine) == "bfloat16"
    calls = clocks["bfloat16"].calls
    assert calls > 0
    assert chosen(bundle, machine) == "bfloat16"
    assert clocks["bfloat16"].calls == calls


def test_a_form_that_is_hardly_faster_is_not_taken(bundle, machine, opened):
    opened(float32=0.02, int8=0.0195, bfloat16=0.03)
    assert chosen(bundle, machine) == form_choice.FLOAT32


@pytest.mark.parametrize("reason", [MissingExtraError("no OpenVINO", extra="openvino"), UsageError("no bfloat16")])
def test_a_form_that_cannot_run_here_is_passed_over(bundle, machine, opened, reason):
    opened(float32=0.02, int8=0.01, bfloat16=reason)
    assert chosen(bundle, machine) == "int8"
    with pytest.raises(type(reason)):
        form_choice.open_form(bundle, "bfloat16", machine)


def test_a_damaged_form_is_an_error(bundle, machine, opened):
    opened(float32=0.02, int8=InputError("damaged"), bfloat16=0.01)
    with pytest.raises(InputError, match="damaged"):
        chosen(bundle, machine)


def test_only_forms_of_the_named_runtime_and_none_on_a_gpu(bundle, machine, opened):
    opened(float32=0.02, int8=0.01, bfloat16=0.005)
    assert chosen(bundle, machine, runtime="onnxruntime") == "int8"
    assert chosen(bundle, machine, runtime="torch") == form_choice.FLOAT32
    assert chosen(bundle, machine, device="cuda") == form_choice.FLOAT32
    with pytest.raises(UsageError, match="bfloat16 runs only in openvino"):
        form_choice.open_form(bundle, "bfloat16", machine, runtime="onnxruntime")


def test_a_damaged_measurement_is_measured_anew(bundle, machine, opened):
    clocks = opened(float32=0.02, int8=0.01, bfloat16=0.03)
    assert chosen(bundle, machine) == "int8"
    calls = clocks["int8"].calls
    for file in (machine.cache_dir / "speed").iterdir():
        file.write_text('{"form": "int4"}')
    assert chosen(bundle, machine) == "int8"
    assert clocks["int8"].calls > calls
