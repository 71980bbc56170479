"""`--on k8s:N --print`: the manifest of an Indexed Job, whose pods do the parts. Nothing here talks to Kubernetes."""

from typing import Any

from plantml import storage
from plantml.about import __version__
from plantml.engines.jobs import Job
from plantml.errors import UsageError

_PER_POD = 4
"""Processes for each pod that runs at the same time: a slow one does not hold up the rest."""

_MEMORY = "4Gi"


class KubernetesPlan:
    """What a job is planned for. Its parts are not started from here.

    Args:
        workers: pods at the same time.
        threads: of each, which asks for as many CPUs.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.workers, self.threads = workers, threads


def check_url(what: str, url: str) -> None:
    """Raise `UsageError` for a path of this machine."""
    if storage.is_local(url):
        raise UsageError(
            "Pods cannot see paths of this machine", f"{what} is {url}", "Name URLs for photos, model and --out: s3://…"
        )


def manifest(job: Job, pods: KubernetesPlan) -> dict[str, Any]:
    """The manifest of a job; writes the list of parts that its processes share.

    Raises:
        UsageError: pods cannot see a path of this machine.
    """
    if job.witness is not None:
        check_url("a photo", job.witness[0])
    size = min(len(job.sizes), pods.workers * _PER_POD)
    job.write_array(1, size, [(number, 0) for number in job.numbers])
    labels = {"app.kubernetes.io/name": "plantml", "app.kubernetes.io/component": job.kind}
    container = {
        "name": job.kind,
        "image": f"plantml-worker:{__version__}",
        "command": ["python", "-m", "plantml.engines.worker", job.url, job.digest, "1"],
        "envFrom": [{"configMapRef": {"name": "plantml"}}, {"secretRef": {"name": "plantml"}}],
        "resources": {"requests": {"cpu": str(pods.threads), "memory": "1Gi"}, "limits": {"memory": _MEMORY}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "cache", "mountPath": "/var/cache/plantml"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - of the pod
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"plantml-{storage.basename(job.url)}", "labels": labels},
        "spec": {
            "completionMode": "Indexed",
            "completions": size,
            "parallelism": min(size, pods.workers),
            # A pod that is lost, or whose part failed, is started again, twice at most; its index alone fails then.
            "backoffLimitPerIndex": 2,
            "ttlSecondsAfterFinished": 86_400,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 60,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "runAsGroup": 10001,
                        "fsGroup": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                    "volumes": [
                        {"name": "cache", "emptyDir": {"sizeLimit": "10Gi"}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                },
            },
        },
    }
