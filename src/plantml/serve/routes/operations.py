"""`/healthz`, `/readyz`, `/metrics`: for load balancers, orchestrators and monitoring."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from plantml.serve.problems import responses
from plantml.serve.service import ServiceDep

router = APIRouter(tags=["operations"])


class Status(BaseModel):
    """That the server is there."""

    status: str = Field(examples=["ok"])


class Readiness(BaseModel):
    """That the server can do its work."""

    status: str = Field(examples=["ok"])
    model: str = Field(
        description="The default model; empty while the registry has none, or several and no default.",
        examples=["leaf@3"],
    )


@router.get("/healthz", summary="The process answers.")
async def healthz() -> Status:
    """Always ok while the process answers."""
    return Status(status="ok")


@router.get("/readyz", summary="The server can do its work.", responses=responses(503))
def readyz(service: ServiceDep) -> Readiness:
    """Ok if the database and the registry answer, and the default model is open."""
    return Readiness(status="ok", model=service.check())


@router.get(
    "/metrics",
    summary="Metrics for Prometheus.",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(service: ServiceDep) -> Response:
    """Requests, latency, queue, refusals, failures, and the open models. No label of a prediction is in it."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
