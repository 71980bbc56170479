"""Who installs: uv where it can be had and reaches the index, else pip. Both are stand-ins here."""

import shutil
import subprocess
from pathlib import Path

import pytest

MAKE = shutil.which("make")
ROOT = Path(__file__).parents[1]
WORKS, FAILS = "exit 0", "exit 1"

pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")


@pytest.fixture
def install(tmp_path):
    """`install(uv=…, pip_gets_uv=…, config=…)`: calls and exit code of an installation into an empty environment."""
    calls, venv, path = tmp_path / "calls", tmp_path / "venv", tmp_path / "path"

    def program(file, body):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def run(*, uv=None, pip_gets_uv=None, config="", pip=WORKS):
        for tool in ("sh", "grep", "touch", "cp", "echo"):
            place = shutil.which(tool)
            assert place
            path.mkdir(exist_ok=True)
            (path / tool).symlink_to(place)
        noted = f'echo "$(basename_of "$0") $*" >> {calls}'
        named = 'basename_of() { echo "${1##*/}"; }'
        program(tmp_path / "a-uv", f'{named}\n[ "$1" = --version ] && exit 0\n{noted}\n{uv or pip_gets_uv or FAILS}')
        if uv:
            (path / "uv").symlink_to(tmp_path / "a-uv")
        fetch = f"cp {tmp_path / 'a-uv'} {venv / 'bin' / 'uv'}" if pip_gets_uv else FAILS
        program(
            venv / "bin" / "pip",
            f"{named}\n{noted}\n"
            f'case "$*" in\n*"config list") echo "{config}" ;;\n*" uv") {fetch} ;;\n*) {pip} ;;\nesac',
        )
        program(venv / "bin" / "python", WORKS)
        command = [MAKE, "-s", "-C", str(ROOT), f"VENV={venv}", "PYTHON=none", f"{venv}/.train"]
        done = subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, check=False)
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line.split()[0] for line in lines if "-e .[train]" in line], done.returncode, venv / ".train"

    return run


@pytest.mark.parametrize(
    ("world", "installers"),
    [
        ({"uv": WORKS}, ["uv"]),
        ({"pip_gets_uv": WORKS}, ["uv"]),
        ({}, ["pip"]),
        ({"uv": FAILS}, ["uv", "pip"]),
        ({"pip_gets_uv": FAILS}, ["uv", "pip"]),
        ({"uv": WORKS, "config": "global.index-url='https://mirror'"}, ["pip"]),
        ({"uv": WORKS, "config": ":env:.index-url='https://mirror'"}, ["pip"]),
        ({"uv": WORKS, "config": "global.extra-index-url='file:///more'"}, ["uv"]),
    ],
)
def test_uv_installs_where_it_can_and_pip_elsewhere(install, world, installers):
    calls, code, stamp = install(**world)
    assert calls == installers
    assert code == 0
    assert stamp.exists()


def test_an_installation_that_fails_is_tried_again_the_next_time(install):
    calls, code, stamp = install(pip=FAILS)
    assert calls == ["pip"]
    assert code != 0
    assert not stamp.exists()


@pytest.mark.parametrize(("stamp", "extras"), [(".train", "train"), (".dev", "all,dev")])
def test_either_installer_is_asked_for_the_same_extras(tmp_path, stamp, extras):
    command = [MAKE, "-n", "-C", str(ROOT), f"VENV={tmp_path}", f"{tmp_path}/{stamp}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count(f"-e '.[{extras}]'") == 2
