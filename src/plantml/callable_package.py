"""`plantml.train` is the package in `train/` and the function of the Python interface: a package that can be called."""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """A package that, called, is the function of its name in `plantml.api`.

    Importing `plantml.train` makes Python set that name in `plantml` to the package, whatever was there before.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function(self))


def callable_package(name: str) -> None:
    """Make the package of that name, which is being imported, one that can be called."""
    sys.modules[name].__class__ = _Verb


def _function(package: ModuleType) -> Any:
    # By name: the interface stands above all packages that can be called, and loads when it is used.
    return getattr(importlib.import_module("plantml.api"), package.__name__.rpartition(".")[2])
