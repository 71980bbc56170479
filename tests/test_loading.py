import gc
import subprocess
import sys

import pytest

from plantml import registry
from plantml.loading import from_modules, without_collection


def test_the_collector_pauses_while_modules_are_loaded_and_goes_on_after_an_error() -> None:
    was_enabled = []

    def load() -> None:
        was_enabled.append(gc.isenabled())
        raise ImportError

    with pytest.raises(ImportError), without_collection():
        load()
    assert was_enabled == [False]
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_package_has_the_names_it_lists_and_no_others() -> None:
    assert all(hasattr(registry, name) for name in registry.__all__)
    get = from_modules(["loads", "absent"], "json", "pickle")
    assert get("loads").__module__ == "json"
    for name in ("dumps", "absent"):
        with pytest.raises(AttributeError, match=name):
            get(name)


def test_a_name_loads_no_module_after_the_one_that_has_it() -> None:
    code = "import plantml.registry as r; r.load; import sys; sys.exit('plantml.registry.publishing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
