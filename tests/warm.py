"""Processes of the command line that start at once, forked from one that has imported what training needs.

Importing torch, Lightning and the rest takes ten seconds of processor time, in each process that trains.
"""

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch", "timm", "pytorch_lightning", "albumentations", "onnxruntime", "onnxscript", "scipy.optimize",
     "matplotlib.pyplot", "plantml.cli.train", "plantml.train.train", "plantml.train.packaging"]
)  # fmt: skip


class Process:
    """A process that runs code, and then perhaps the command line: the part of `subprocess.Popen` that tests use."""

    def __init__(self, code: str, arguments: list[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        streams = [str(Path(self._folder.name) / name) for name in ("out", "err")]
        values: Any = (code, arguments, dict(os.environ), *streams)
        self._process = _CONTEXT.Process(target=_run, args=values)
        self._process.start()
        self._streams = [Path(name) for name in streams]

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; what was written to standard output and standard error."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it still runs"
        out, err = (file.read_text() for file in self._streams)
        return out, err


def _run(code: str, arguments: list[str], environment: dict[str, str], out: str, err: str) -> None:
    import sys

    for number, name in ((1, out), (2, err)):
        with open(name, "w") as stream:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(stream.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<test>", "exec"), {"__name__": "__main__"})
