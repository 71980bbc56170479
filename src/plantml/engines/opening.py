"""Which engine `--on` names."""

import re

from plantml.engines.dispatch import Engine
from plantml.engines.kubernetes import KubernetesPlan
from plantml.errors import UsageError
from plantml.settings import Machine

_PODS = re.compile(r"k8s:([1-9]\d{0,3})")


def open_engine(text: str, machine: Machine, threads: int | None = None) -> Engine:
    """The engine of `local:4`, `ray`, `ray://head:10001` or `slurm`.

    Args:
        text: as the user wrote it.
        machine: this one.
        threads: of each worker; by default its share of the cores here, or one elsewhere.

    Raises:
        UsageError: there is no such engine.
        MissingExtraError: it is not installed.
    """
    if match := re.fullmatch(r"local:([1-9]\d{0,3})", text):
        from plantml.engines.local import LocalEngine

        workers = int(match[1])
        return LocalEngine(workers, threads or max(1, machine.threads // workers))
    if text == "ray" or text.startswith("ray://"):
        from plantml.engines.ray_tasks import RayEngine

        return RayEngine(None if text == "ray" else text, threads or 1)
    if text == "slurm":
        from plantml.engines.slurm import SlurmEngine

        return SlurmEngine(threads or 1)
    if _PODS.fullmatch(text):
        raise UsageError(
            "plantml does not start pods itself", "", f"Print their manifest: --on {text} --print > job.yaml"
        )
    raise _unknown(text)


def open_pods(text: str, threads: int | None = None) -> KubernetesPlan:
    """What `k8s:16` says: 16 pods at the same time. Raises `UsageError`."""
    match = _PODS.fullmatch(text)
    if match is None:
        raise UsageError("--print needs --on k8s:N", "it prints a manifest of Kubernetes", "--on k8s:16 --print")
    return KubernetesPlan(int(match[1]), threads or 1)


def _unknown(text: str) -> UsageError:
    known = "local:4 (processes here), ray, ray://HOST:10001, slurm, or k8s:16 with --print"
    return UsageError(f"--on {text!r} is not an engine", "", f"Engines: {known}.")
