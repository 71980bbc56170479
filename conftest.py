"""A model that was really trained, and the command line as tests call it."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plantml.cli.app import run as run_cli
from plantml.cli.console import Streams

# As training sets it, but before any test loads torch: tests share their cores with others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CLASSES = ("tomato___healthy", "tomato___rust", "bean___blight")


@dataclass(frozen=True)
class Result:
    """What a command line printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def call(*arguments: object, stdin: bytes = b"") -> Result:
    """Run one command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = run_cli([str(argument) for argument in arguments], Streams(io.BytesIO(stdin), out, err))
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli() -> Callable[..., Result]:
    """Runs one command line in this process."""
    return call


@dataclass(frozen=True)
class Trained:
    """A small synthetic set, and a run on it: paths as text."""

    photos: str
    data: str
    run: str


TRAIN_OPTIONS: Sequence[str] = ("--size", "64", "--epochs", "2", "--seed", "1")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Synth, import, split and train, once for all workers of a session, by the commands that a user would type.

    Not to be changed, not even for a moment: other tests look at it at the same time.
    """
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "trained"
    with FileLock(shared / "trained.lock"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _train(folder)
            (folder / "complete").write_text(json.dumps(_state(folder)))
    yield Trained(str(folder / "photos" / "images"), str(folder / "data"), str(folder / "run"))
    before, after = json.loads((folder / "complete").read_text()), _state(folder)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    assert not changed, f"A test changed what all tests share: {changed[:5]}"


def _state(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of all files and folders: a file that was moved away and back shows in its folder's.

    Embeddings are kept in the dataset, whoever computes them.
    """
    kept = folder / "data" / "derived"
    kept.mkdir(exist_ok=True)
    paths = [path for name in ("photos", "data", "run") for path in [folder / name, *(folder / name).rglob("*")]]
    paths = [path for path in paths if kept not in {path, *path.parents}]
    return {str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}


def _train(folder: Path) -> None:
    photos, data, run = folder / "photos", folder / "data", folder / "run"
    steps = [
        ("dataset", "synth", photos, "--images", 72, "--size", 96, "--classes", ",".join(CLASSES)),
        (
            "dataset",
            "import",
            photos / "labels.csv",
            data,
            "--target",
            "severity:value:fraction",
            "--group-column",
            "plant",
        ),
        ("dataset", "split", data),
        ("train", data, "--out", run, *TRAIN_OPTIONS),
    ]
    for step in steps:
        result = call(*step)
        assert result.code == 0, result.err
