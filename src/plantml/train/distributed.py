"""Processes that train one network together: ranks, and what they exchange.

Everything here also works for a single process.
"""

import os
import warnings
from typing import Any, TypeVar

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, distributed

from plantml.errors import UsageError

T = TypeVar("T")


def rank() -> int:
    """Rank of this process, from 0."""
    if _joined():
        return distributed.get_rank()
    environment = _launcher()
    # Processes that Lightning starts know their rank before the process group exists.
    return environment.global_rank() if environment else int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Size of the process group; 1 before it exists."""
    return distributed.get_world_size() if _joined() else 1


def is_first() -> bool:
    """True in the process of rank 0, which writes all files."""
    return rank() == 0


def join(device: str, devices: int, nodes: int) -> None:
    """Create the process group now, if a launcher (torchrun, SLURM) started all processes at once.

    Processes that Lightning starts itself join later, when rank 0 has prepared everything.

    Raises:
        UsageError: there are several machines and no launcher, or it started the wrong number of processes.
    """
    environment = _launcher()
    if environment is None and nodes > 1:
        raise UsageError(
            f"{nodes} machines need a launcher",
            "the processes cannot find each other without one",
            f"On each machine: torchrun --nnodes {nodes} --nproc-per-node DEVICES -m plantml train …, or use SLURM.",
        )
    if environment is not None and environment.world_size() != devices * nodes:
        raise UsageError(
            f"The launcher started {environment.world_size()} processes instead of {devices * nodes}",
            f"--devices is {devices} and --nodes is {nodes}, so each process would train a separate model",
            "Set --devices to the processes per machine and --nodes to the machines of the launcher.",
        )
    if environment is None or environment.world_size() == 1 or _joined():
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    backend = "cpu:gloo,cuda:nccl" if device in {"auto", "cuda"} and torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, rank=environment.global_rank(), world_size=environment.world_size())


def prepares_data() -> bool:
    """True in the one process per machine that decodes photos and fetches checkpoints for the others."""
    environment = _launcher()
    return environment.local_rank() == 0 if environment else is_first()


def barrier() -> None:
    """Wait for all processes."""
    if _joined():
        distributed.barrier()


def broadcast(value: T) -> T:
    """The value of rank 0."""
    if world_size() == 1:
        return value
    values: list[Any] = [value]
    distributed.broadcast_object_list(values)
    return values[0]  # type: ignore[no-any-return]


def gather(value: T) -> list[T]:
    """The values of all processes, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def sum_over_processes(numbers: Tensor) -> Tensor:
    """The sum over all processes."""
    if world_size() > 1:
        distributed.all_reduce(numbers)
    return numbers


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _launcher() -> ClusterEnvironment | None:
    """What has started all processes at once, if anything has. Raises `UsageError` for `srun --ntasks`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is an `srun` that was not used
        for kind in (TorchElasticEnvironment, SLURMEnvironment):
            if kind.detect():
                try:
                    return kind()
                except RuntimeError as error:  # Lightning counts the tasks of each machine
                    why = str(error).partition(" HINT")[0]
                    hint = "As many as --devices on each machine: srun --ntasks-per-node N plantml train …"
                    raise UsageError("SLURM does not say how many tasks a machine has", why, hint) from error
    return None
