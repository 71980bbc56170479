"""`/healthz`, `/readyz`: for load balancers and their like."""

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from plantml.serve.problems import responses
from plantml.serve.service import ServiceDep

router = APIRouter(tags=["operations"])


class Status(BaseModel):
    """That the server is there."""

    status: str = "ok"


@router.get("/healthz", summary="The process answers.")
async def healthz() -> Status:
    """Always ok while the process answers."""
    return Status()


@router.get("/readyz", summary="The server can do its work.", responses=responses(503))
async def readyz(service: ServiceDep) -> Status:
    """Ok if the database answers."""
    await run_in_threadpool(service.database.check)
    return Status()
