"""A Ray cluster of this machine: what one machine makes of the same photos."""

import os
import socket
import subprocess
import sys

import pytest
from bench import store

from plantml.data import versions
from plantml.engines import ray_tasks
from plantml.engines.ray_tasks import RayEngine
from plantml.errors import StorageError


def test_an_address_where_nothing_listens_is_refused_soon():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'plantml[ray]'")
    [port] = store.free_ports(1)
    with pytest.raises(StorageError, match="Could not connect") as error, RayEngine(f"ray://127.0.0.1:{port}", 1):
        pytest.fail("nothing is there")
    assert "refused" in error.value.why


def test_which_cluster_is_taken_without_an_address(monkeypatch, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'plantml[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    own = ("local", "a Ray cluster of this command alone")
    assert ray_tasks.cluster(None) == own
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)  # as `ray start` leaves it, also after a crash
        assert ray_tasks.cluster(None) == (address, f"the Ray cluster that was started on this machine, {address}")
    assert ray_tasks.cluster(None) == own
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert ray_tasks.cluster(None) == ("head:6379", "the Ray cluster of RAY_ADDRESS, head:6379")
    assert ray_tasks.cluster("ray://other:10001") == ("ray://other:10001",) * 2
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert ray_tasks.cluster(None) == own


COMMANDS = """
import sys
from plantml.cli.app import run
sys.exit(max(run(command) for command in eval(sys.argv[1])))
"""


def words(*command):
    return [str(word) for word in (*command, "--on", "ray")]


def on_ray(folder, *commands):
    """Run commands in a process of their own, as Ray's threads stay; what they say."""
    folder.mkdir()
    line = [sys.executable, "-c", COMMANDS, repr(commands)]
    return subprocess.run(line, cwd=folder, check=True, stderr=subprocess.PIPE, text=True).stderr


def test_a_cluster_writes_the_bytes_of_one_machine(cli, trained, tmp_path, ray_cluster):
    command = ("detect", trained.photos, "--model", trained.run, "--out")
    assert cli(*command, tmp_path / "alone.jsonl").code == 0
    err = on_ray(tmp_path / "parts", words(*command, "records.jsonl"))
    assert f"parts on the Ray cluster of RAY_ADDRESS, {os.environ['RAY_ADDRESS']}, 2 at a time" in err
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
