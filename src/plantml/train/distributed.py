"""Processes that train one network together: who is who, and how they agree.

One process needs none of it: it is the first of one, and agrees with itself.
"""

import os
from typing import Any, TypeVar

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, distributed

from plantml.errors import UsageError

T = TypeVar("T")


def rank() -> int:
    """Number of this process, from 0."""
    if _joined():
        return distributed.get_rank()
    environment = _launcher()
    # Processes that Lightning starts know their number before they have met.
    return environment.global_rank() if environment else int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Processes that have met; 1 before they have."""
    return distributed.get_world_size() if _joined() else 1


def is_first() -> bool:
    """True in the process that writes."""
    return rank() == 0


def join(device: str, devices: int, nodes: int) -> None:
    """Join the others now, if a launcher (torchrun, SLURM) started all of them at once.

    Processes that Lightning starts itself come later: when the first has everything ready.

    Raises:
        UsageError: there are several machines and no launcher, or it started another number of processes.
    """
    environment = _launcher()
    if environment is None and nodes > 1:
        raise UsageError(
            f"{nodes} machines need a launcher",
            "each must know the others",
            f"On each: torchrun --nnodes {nodes} --nproc-per-node DEVICES -m plantml train …, or use SLURM.",
        )
    if environment is not None and environment.world_size() != devices * nodes:
        raise UsageError(
            f"The launcher started {environment.world_size()} processes, and {devices * nodes} were asked for",
            f"--devices is {devices} and --nodes is {nodes}: each process would train a model of its own",
            "Give the launcher's numbers: --devices of one machine, --nodes of machines.",
        )
    if environment is None or environment.world_size() == 1 or _joined():
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    backend = "cpu:gloo,cuda:nccl" if device in {"auto", "cuda"} and torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, rank=environment.global_rank(), world_size=environment.world_size())


def prepares_data() -> bool:
    """True in the process that makes what all on its machine read: decoded photos, checkpoints fetched."""
    environment = _launcher()
    return environment.local_rank() == 0 if environment else is_first()


def barrier() -> None:
    """Until all are here."""
    if _joined():
        distributed.barrier()


def broadcast(thing: T) -> T:
    """What the first process has."""
    if world_size() == 1:
        return thing
    held: list[Any] = [thing]
    distributed.broadcast_object_list(held)
    return held[0]  # type: ignore[no-any-return]


def gather(thing: T) -> list[T]:
    """What each process has, in the order of their numbers."""
    if world_size() == 1:
        return [thing]
    held: list[Any] = [None] * world_size()
    distributed.all_gather_object(held, thing)
    return held


def sum_over_processes(numbers: Tensor) -> Tensor:
    """The sum over all processes."""
    if world_size() > 1:
        distributed.all_reduce(numbers)
    return numbers


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _launcher() -> ClusterEnvironment | None:
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            return kind()
    return None
