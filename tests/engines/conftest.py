"""An engine without processes, and a SLURM cluster of this machine alone."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from bench import store

from plantml.concurrency import Stop
from plantml.engines import kinds, opening, worker
from plantml.engines.dispatch import Event, lost


class Inline:
    """Does parts in this process, the last first; the first one is lost once."""

    name, workers, threads = "inline", 2, 1

    def __init__(self):
        self.done = []  # kind and photos of each part

    @property
    def parts(self):
        return len(self.done)

    def __enter__(self):
        self.todo, self.work = [], None
        return self

    def __exit__(self, *_):
        pass

    def start(self, job, attempts):
        self.job, self.work = kinds.open_work(job.url, job.digest)
        self.todo += attempts

    def wait(self):
        place = self.todo.pop()
        if place == (1, 0):
            return [Event(*place, has_ended=True, error=lost("signal 9"))]
        self.done.append((self.job.kind, self.job.sizes[place[0] - 1]))
        error = worker.attempt(self.job, self.work, place, Stop(), lambda _: None)
        return [Event(*place, has_ended=True, error=error)]


@pytest.fixture
def inline(monkeypatch):
    """What `--on` names, whatever it says."""
    engine = Inline()
    monkeypatch.setattr(opening, "open_engine", lambda *_: engine)
    return engine


@pytest.fixture
def ray_cluster(ray_head, monkeypatch):
    """A Ray cluster of two CPUs on this machine, to which `--on ray` connects; the number of its process."""
    number, environment = ray_head
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return number


@pytest.fixture(scope="session")
def ray_head():
    """The process of a Ray cluster, and what names it to clients."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'plantml[ray]'")
    port, metrics, clients = store.free_ports(3)
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
        "--node-ip-address=127.0.0.1", f"--metrics-export-port={metrics}", "--include-dashboard=false",
        "--disable-usage-stats", f"--ray-client-server-port={clients}",
    ]  # fmt: skip
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    cluster = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **token})
    assert cluster.stdout is not None
    lines = []
    for line in cluster.stdout:
        lines.append(line)
        if b"Ray runtime started" in line:
            break
    else:
        pytest.fail(b"".join(lines).decode(errors="replace"))
    threading.Thread(target=cluster.stdout.read, daemon=True).start()
    yield cluster.pid, {**token, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    cluster.terminate()
    cluster.wait()


CONFIG = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """SLURM, with one machine of two CPUs."""
    if any(shutil.which(name) is None for name in ("munged", "slurmctld", "slurmd", "sbatch")):
        pytest.skip("SLURM is not installed: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons are started by root only")
    folder, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().partition(".")[0]
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    control, node = store.free_ports(2)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, folder=folder, control=control, node=node))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}",
         f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"],
        ["slurmctld", "-D", "-f", config],
        ["slurmd", "-D", "-f", config, "-N", host],
    ]  # fmt: skip
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("SLURM_CONF", str(config))
        for command in commands:
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            time.sleep(1)
        deadline = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo"], capture_output=True, text=True, check=False).stdout:
            assert time.monotonic() < deadline, (folder / "log").read_text(errors="replace")
            time.sleep(0.5)
        yield
