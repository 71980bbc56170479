"""Trainings: start one, follow its progress and log, cancel it."""

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from pydantic import ValidationError

from plantml.errors import InputError
from plantml.parsing import parse_yaml
from plantml.serve import trainings
from plantml.serve.access import Trainer
from plantml.serve.page.rendering import PageRoute, redirect, render
from plantml.serve.page.screens import catalogues
from plantml.serve.service import ServiceDep
from plantml.serve.trainings import TrainingRequest
from plantml.serve.web.problems import reasons

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Text = Annotated[str, Form(max_length=10_000)]
_MOST_SHOWN = 100


@router.get("/trainings")
def show_trainings(request: Request, service: ServiceDep, caller: Trainer) -> Response:
    """The newest first, and the form for one more."""
    shown = [trainings.view(service, job, caller) for job in islice(reversed(service.jobs.list()), _MOST_SHOWN)]
    return render(
        request, "trainings.html", trainings=shown, datasets=service.datasets.names, models=catalogues.models(service)
    )


@router.post("/trainings")
def submit(
    *, request: Request, service: ServiceDep, caller: Trainer, dataset: Text, name: Text, preset: Text = "balanced",
    budget: Text = "", test_share: Text = "15", config: Text = "", retrain: Annotated[bool, Form()] = False,
) -> Response:  # fmt: skip
    """Ask for a training, and show it."""
    try:
        wanted = TrainingRequest.model_validate({
            "dataset": dataset, "name": name, "preset": preset, "budget": budget.strip() or None,
            "test_share": float(test_share) / 100, "config": parse_yaml(config, "The settings") or {},
            "retrain": {} if retrain else None,
        })  # fmt: skip
    except ValidationError as error:
        raise InputError("The training cannot be started", reasons(error.errors()), "Check the form.") from error
    except ValueError as error:
        raise InputError("The training cannot be started", str(error), "Check the form.") from error
    return redirect(request, f"/trainings/{trainings.submit(service, caller, wanted).id}")


@router.get("/trainings/{number}")
def show_training(request: Request, service: ServiceDep, caller: Trainer, number: int) -> Response:
    """One training; what changes is loaded again while it is open."""
    shown = trainings.view(service, service.jobs.get(number), caller)
    return render(request, "training.html", training=shown)


@router.get("/trainings/{number}/progress")
def show_progress(request: Request, service: ServiceDep, caller: Trainer, number: int) -> Response:
    """What changes of it."""
    shown = trainings.view(service, service.jobs.get(number), caller)
    return render(request, "progress.html", training=shown)


@router.post("/trainings/{number}/cancel")
def cancel(request: Request, service: ServiceDep, caller: Trainer, number: int) -> Response:
    """End a training."""
    trainings.cancel(service, caller, number)
    return redirect(request, f"/trainings/{number}")
