"""A Ray cluster of this machine: what one machine makes of the same photos."""

import subprocess
import sys

import pytest
from bench import store

from plantml.data import versions
from plantml.engines.ray_tasks import RayEngine
from plantml.errors import StorageError


def test_an_address_where_nothing_listens_is_refused_soon():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'plantml[ray]'")
    [port] = store.free_ports(1)
    with pytest.raises(StorageError, match="Could not connect") as error, RayEngine(f"ray://127.0.0.1:{port}", 1):
        pytest.fail("nothing is there")
    assert "refused" in error.value.why


COMMANDS = """
import sys
from plantml.cli.app import run
sys.exit(max(run(command) for command in eval(sys.argv[1])))
"""


def words(*command):
    return [str(word) for word in (*command, "--on", "ray")]


def on_ray(folder, *commands):
    """Run commands in a process of their own, as Ray's threads stay."""
    folder.mkdir()
    subprocess.run([sys.executable, "-c", COMMANDS, repr(commands)], cwd=folder, check=True)


def test_a_cluster_writes_the_bytes_of_one_machine(cli, trained, tmp_path, ray_cluster):
    command = ("detect", trained.photos, "--model", trained.run, "--out")
    assert cli(*command, tmp_path / "alone.jsonl").code == 0
    on_ray(tmp_path / "parts", words(*command, "records.jsonl"))
    assert (tmp_path / "parts" / "records.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


@pytest.mark.slow
def test_a_cluster_gives_the_fingerprint_and_the_findings_of_one_machine(
    cli, trained, tmp_path, ray_cluster, monkeypatch
):
    pytest.importorskip("sklearn")
    commands = [
        ["dataset", "import", trained.photos, "data", "--quiet"],
        ["dataset", "check", "data", "--only", "crops,outliers", "--model", trained.run, "--findings", "all.parquet"],
    ]
    alone, parts = tmp_path / "alone", tmp_path / "parts"
    on_ray(parts, *(words(*command) for command in commands))
    alone.mkdir()
    monkeypatch.chdir(alone)
    for command in commands:
        assert cli(*command).code == 0
    assert (parts / "all.parquet").read_bytes() == (alone / "all.parquet").read_bytes()
    assert versions.load(str(parts / "data")).fingerprint == versions.load(str(alone / "data")).fingerprint
