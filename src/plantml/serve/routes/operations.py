"""`/healthz`, `/readyz`, `/metrics`: for load balancers, orchestrators and monitoring."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from plantml.serve.service import ServiceDep
from plantml.serve.web.problems import responses

router = APIRouter(tags=["operations"])


class Status(BaseModel):
    """The server is alive."""

    status: str = Field(examples=["ok"])


class Readiness(BaseModel):
    """The server is ready."""

    status: str = Field(examples=["ok"])
    model: str = Field(
        description="The default model; empty while the registry has none, or several and no default.",
        examples=["leaf@3"],
    )


@router.get("/healthz", summary="Check that the process responds.")
async def healthz() -> Status:
    """Always ok while the process responds."""
    return Status(status="ok")


@router.get("/readyz", summary="Check that the server is ready.", responses=responses(503))
def readyz(service: ServiceDep) -> Readiness:
    """Ok if the database and the registry can be reached, and the default model is open."""
    return Readiness(status="ok", model=service.check())


@router.get(
    "/metrics",
    summary="Read metrics for Prometheus.",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(service: ServiceDep) -> Response:
    """Requests, latency, queue, refusals, failures, and the open models. It contains no predicted labels."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
