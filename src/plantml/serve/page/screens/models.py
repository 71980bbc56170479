"""Models: their versions, which one is in service and since when, and moving that."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from plantml.registry.operations import GUARDED
from plantml.serve import model_history
from plantml.serve.access import CallerDep, Promoter
from plantml.serve.model_history import AliasAnswer, ModelAnswer
from plantml.serve.page.rendering import PageRoute, redirect, render
from plantml.serve.service import ServiceDep
from plantml.serve.web.problems import RequestError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Text = Annotated[str, Form(max_length=500)]
_MAIN = {"macro_f1", "accuracy", "r2", "ap", "ap50"}


@router.get("/models")
def show_models(request: Request, service: ServiceDep, caller: CallerDep) -> Response:
    """All models."""
    models = [model_history.describe(service, caller, model.name) for model in model_history.summaries(service)]
    return render(request, "models.html", models=[(model, _in_service(model)) for model in models])


@router.get("/models/{name}")
def show_model(request: Request, service: ServiceDep, caller: CallerDep, name: str) -> Response:
    """The versions of a model, and what became of them."""
    model = model_history.describe(service, caller, name)
    return render(
        request,
        "model.html",
        model=model,
        in_service=_in_service(model),
        metrics=sorted({name for version in model.versions for name in version.metrics if _is_main(name)}),
        events=model_history.history(service, caller, name),
    )


@router.get("/models/{name}/{number}")
def show_version(request: Request, service: ServiceDep, caller: CallerDep, name: str, number: int) -> Response:
    """One version: metrics, curves, and its card for who may see all targets."""
    version = model_history.describe_version(service, caller, name, str(number))
    try:
        card = model_history.card(service, caller, name, str(number))
    except RequestError:  # it tells of targets that the caller may not see
        card = ""
    return render(request, "version.html", name=name, shown=version, card=card)


@router.post("/models/{name}/promote")
def promote(
    *, request: Request, service: ServiceDep, caller: Promoter, name: str, version: Annotated[int, Form()],
    alias: Text = GUARDED, why: Text = "", force: Annotated[bool, Form()] = False,
) -> Response:  # fmt: skip
    """Point an alias to a version, by the evidence of its training; an administrator also by a reason alone."""
    model_history.promote(service, caller, name, version, alias=alias, why=why, force=force)
    return redirect(request, f"/models/{name}")


@router.post("/models/{name}/rollback")
def roll_back(
    *, request: Request, service: ServiceDep, caller: Promoter, name: str, alias: Text = GUARDED, why: Text = ""
) -> Response:  # fmt: skip
    """Point an alias to the version before."""
    model_history.rollback(service, caller, name, alias=alias, why=why)
    return redirect(request, f"/models/{name}")


def _is_main(metric: str) -> bool:
    """True for a metric that has a column in the table of versions."""
    return metric.rpartition(".")[2] in _MAIN


def _in_service(model: ModelAnswer) -> AliasAnswer | None:
    return next((alias for alias in model.aliases if alias.name == GUARDED), None)
