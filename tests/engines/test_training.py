"""A training of several machines that loses one of them: the same command resumes, and ends with the same weights."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench import store

from plantml.errors import Exit

pytestmark = pytest.mark.slow

SMALL = ("--size", "32", "--epochs", "3", "--batch-size", "8", "--device", "cpu", "--strategy", "ddp",
         "--set", "backbone=test_convnext", "--set", "pretrained=false", "--checkpoint-every", "0.01")  # fmt: skip


def torchrun(words):
    """Two machines, each with its agent, which starts one process."""
    [port] = store.free_ports(1)
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
             f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=leaves", "--local-addr=127.0.0.1"]  # fmt: skip
    command = [*agent, "-m", "plantml", "train", *words, "--devices", "1", "--nodes", "2"]
    return [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(2)]


def srun(words):
    """Two tasks of a SLURM cluster, whose one machine has two CPUs."""
    command = ["srun", "--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--kill-on-bad-exit=1",
               sys.executable, "-m", "plantml", "train", *words, "--devices", "2"]  # fmt: skip
    return [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)]


def trainings(run):
    """Numbers of the processes that train this run."""
    numbers = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            if line.startswith(sys.executable.encode()) and str(run).encode() in line and b".run\0" not in line:
                numbers.append(int(folder.name))
    return sorted(numbers)


def ended(processes):
    """Exit codes, and what was written to standard error."""
    texts = [process.communicate(timeout=600)[1].decode(errors="replace") for process in processes]
    return [process.returncode for process in processes], "\n".join(texts)


@pytest.mark.parametrize("launch", [torchrun, srun])
def test_a_run_that_lost_a_machine_resumes(trained, tmp_path, launch, request, monkeypatch):
    if launch is srun:
        request.getfixturevalue("slurm")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole, run = tmp_path / "whole", tmp_path / "run"
    codes, err = ended(launch([trained.data, "--out", str(whole), *SMALL]))
    assert set(codes) == {Exit.DONE}, err
    words = [trained.data, "--out", str(run), *SMALL]
    processes = launch(words)
    while not list(run.glob("checkpoints/state-*.ckpt")):
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.02)
    if launch is torchrun:
        processes[1].kill()
    os.kill(trainings(run)[-1], signal.SIGKILL)
    codes, err = ended(processes)
    assert 0 not in codes
    assert not (run / "bundle").exists(), err
    codes, err = ended(launch(words))
    assert set(codes) == {Exit.DONE}, err
    first, second = (json.loads((each / "bundle" / "model.json").read_text()) for each in (whole, run))
    assert first["digest"] == second["digest"]
