"""`/v1/models`: what is in the registry."""

from fastapi import APIRouter
from pydantic import BaseModel

from plantml import storage
from plantml.registry import inspection, ledger
from plantml.serve.access import CallerDep
from plantml.serve.problems import responses
from plantml.serve.service import ServiceDep

router = APIRouter(prefix="/v1/models", tags=["models"])


class ModelSummary(BaseModel):
    """A model of the registry."""

    name: str
    versions: list[int]
    aliases: dict[str, int]


@router.get("", summary="List the models.", responses=responses(401, 503))
def list_models(service: ServiceDep, _: CallerDep) -> list[ModelSummary]:
    """All models, their versions and aliases."""
    summaries = []
    for model in inspection.models(service.registry):
        state = ledger.load(model.url)
        name = storage.basename(state.url)
        summaries.append(ModelSummary(name=name, versions=sorted(state.entries), aliases=dict(state.aliases)))
    return summaries
