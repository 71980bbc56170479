"""`/v1/models`: what is in the registry, and which version is in service."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from plantml.registry.operations import GUARDED
from plantml.serve import model_history
from plantml.serve.access import CallerDep, Promoter
from plantml.serve.model_history import HistoryEvent, ModelAnswer, ModelSummary, Moved, VersionAnswer
from plantml.serve.photos.datasets import Photo
from plantml.serve.routes.datasets import photo_response
from plantml.serve.service import ServiceDep
from plantml.serve.web.json_bodies import JsonRoute
from plantml.serve.web.problems import responses

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=JsonRoute)
Name = Annotated[str, Path(max_length=128, description="Name of the model.", examples=["leaf"])]
Version = Annotated[str, Path(max_length=64, description="Number or alias.", examples=["3", "production"])]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$", examples=["production"])]
Why = Annotated[str, Field(max_length=500, description="Reason, for the history.", examples=["Better on rust."])]

_CARD: dict[int | str, dict[str, Any]] = {
    200: {"description": "The model card.", "content": {"text/markdown": {"schema": {"type": "string"}}}}
}
_PLOT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The plot.", "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


class Promotion(BaseModel):
    """The version that an alias is to point to, and why."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 3, "why": "Better on rust"}]})

    version: int = Field(ge=1, le=10**9)
    alias: Alias = GUARDED
    why: Why = ""
    evidence: dict[str, Any] | None = Field(
        None, description="metrics.json of `plantml validate`; by default, that of the version's training."
    )
    expected: int | None = Field(
        None, ge=0, le=10**9, description="Fail unless the alias points to this version; 0 for none."
    )
    force: bool = Field(default=False, description="Without evidence; for administrators, and with a reason.")


class Rollback(BaseModel):
    """The alias that goes back to its previous version, and why."""

    model_config = ConfigDict(extra="forbid")

    alias: Alias = GUARDED
    why: Why = ""


@router.get("", summary="List the models.", responses=responses(401, 503))
def list_models(service: ServiceDep, _: CallerDep) -> Sequence[ModelSummary]:
    """All models, their versions and aliases."""
    return model_history.summaries(service)


@router.get("/{name}", summary="Show a model and its versions.", responses=responses(401, 404, 422, 503))
def show_model(service: ServiceDep, caller: CallerDep, name: Name) -> ModelAnswer:
    """Versions with their metrics, newest first, and since when each alias has pointed to its version."""
    return model_history.describe(service, caller, name)


@router.get("/{name}/versions/{version}", summary="Show a version of a model.", responses=responses(401, 404, 422, 503))
def show_version(service: ServiceDep, caller: CallerDep, name: Name, version: Version) -> VersionAnswer:
    """Its contract, metrics, settings and origin."""
    return model_history.describe_version(service, caller, name, version)


@router.get(
    "/{name}/versions/{version}/card",
    summary="Read the model card.",
    response_class=Response,
    responses={**responses(401, 403, 404, 422, 503), **_CARD},
)
def show_card(service: ServiceDep, caller: CallerDep, name: Name, version: Version) -> Response:
    """Use, data, results and limits, as Markdown. Needs the roles of all targets."""
    text = model_history.card(service, caller, name, version)
    return Response(text, media_type="text/markdown; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"})


@router.get(
    "/{name}/versions/{number}/plots/{file}",
    summary="Get a plot of a training.",
    response_class=Response,
    responses={**responses(401, 403, 404, 422, 503), **_PLOT},
)
def show_plot(
    service: ServiceDep,
    caller: CallerDep,
    name: Name,
    number: Annotated[int, Path(ge=1, le=10**9, examples=[3])],
    file: Annotated[str, Path(max_length=132, examples=["curves.png"])],
) -> Response:
    """Learning curves, confusion and calibration. Needs the roles of all targets."""
    picture = model_history.plot(service, caller, name, number, file)
    return photo_response(Photo(picture, "image/png"), f'"{hashlib.sha256(picture).hexdigest()[:32]}"')


@router.get("/{name}/history", summary="Show the history of a model.", responses=responses(401, 404, 422, 503))
def show_history(service: ServiceDep, caller: CallerDep, name: Name) -> Sequence[HistoryEvent]:
    """Who added, promoted and rolled back what, and why; newest first."""
    return model_history.history(service, caller, name)


@router.post("/{name}/promote", summary="Promote a version.", responses=responses(400, 401, 403, 404, 409, 422, 503))
def promote(service: ServiceDep, caller: Promoter, name: Name, body: Promotion) -> Moved:
    """`production` moves by evidence: a validation on all test photos, compared with the version in service.

    A status 409 says why the evidence does not allow it.
    """
    return model_history.promote(service, caller, name, **dict(body))


@router.post("/{name}/rollback", summary="Roll an alias back.", responses=responses(400, 401, 403, 404, 409, 422, 503))
def roll_back(service: ServiceDep, caller: Promoter, name: Name, body: Rollback) -> Moved:
    """Point an alias to its previous version."""
    return model_history.rollback(service, caller, name, alias=body.alias, why=body.why)
