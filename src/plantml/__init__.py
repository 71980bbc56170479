"""plantml: from a folder of plant photos to a model that a machine can trust.

The Python interface is described in `docs/python.md`. What is named here is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from plantml.about import __version__

if TYPE_CHECKING:
    from plantml.api import Dataset, Model, Predictions, Registry, Run, export, load, train, validate
else:

    def __getattr__(name):
        import importlib

        if name in {"train", "validate", "export"}:  # packages, which can be called
            return importlib.import_module(f"plantml.{name}")
        if name in __all__:
            return getattr(importlib.import_module("plantml.api"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "Dataset",
    "Model",
    "Predictions",
    "Registry",
    "Run",
    "__version__",
    "export",
    "load",
    "train",
    "validate",
]
