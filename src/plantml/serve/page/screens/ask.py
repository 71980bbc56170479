"""Ask: photos in, answers out, each with its doubt; and the corrections of people who know better."""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool

from plantml.imaging import ImageError
from plantml.model.pipeline import Pipeline
from plantml.serve.access import CallerDep
from plantml.serve.page.rendering import PageRoute, render
from plantml.serve.page.screens import catalogues
from plantml.serve.photos import datasets
from plantml.serve.predict.predictions import Photo, PredictionOptions, visible_view
from plantml.serve.routes.users import Id
from plantml.serve.service import Service, ServiceDep
from plantml.serve.users.visibility import visible_record
from plantml.serve.web.problems import RequestError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_SIDE = 680
"""Pixels of the longer side of a photo in its answer: 340 on a screen with two pixels each."""

_SIMILAR = 5
_PER_PAGE = 50


@dataclass(frozen=True)
class Answer:
    """A record as the page shows it.

    Attributes:
        name: of the photo, or its URL.
        is_file: true if the browser has sent it, and can send it again.
        picture: a small copy as a URL that holds it; `None` if it cannot be read.
        record: with the targets that the caller may see.
    """

    name: str
    is_file: bool
    picture: str | None
    record: dict[str, Any]


@router.get("/")
def show(request: Request, service: ServiceDep, _: CallerDep) -> Response:
    """The form."""
    return render(request, "ask.html", models=catalogues.models(service))


@router.post("/ask")
async def ask(
    *,
    request: Request,
    service: ServiceDep,
    caller: CallerDep,
    files: Annotated[list[UploadFile], File(default_factory=list)],
    url: Annotated[str, Form(max_length=2048)] = "",
    model: Annotated[str, Form(max_length=256)] = "",
) -> Response:
    """One answer per photo."""
    chosen = [file for file in files if file.filename]
    _check_number(len(chosen) + bool(url), service)
    service.queue.check()
    opened = await run_in_threadpool(service.models.get, model or None)
    view = visible_view(opened, caller)
    until = time.monotonic() + service.config.deadline
    photos: list[Photo] = [(file.filename or "", await file.read()) for file in chosen]
    photos += await service.predictor.gather([url] if url else [], [], until)
    is_comparable = await run_in_threadpool(service.predictor.can_compare, opened)
    options = PredictionOptions(
        model=None,
        covariates=None,
        similar=_SIMILAR if is_comparable else 0,
        advice=_has_advice(service, opened.pipeline),
    )
    records = await service.predictor.predict(opened, caller, photos, options, until)
    pictures = await run_in_threadpool(_pictures, photos)
    answers = [
        Answer(name, index < len(chosen), picture, record)
        for index, ((name, _), picture, record) in enumerate(zip(photos, pictures, records, strict=True))
    ]
    offered = await run_in_threadpool(catalogues.label_form, service, caller)
    form = {dataset: targets for dataset, targets in offered.items() if targets}
    contract = view.bundle.contract
    return render(request, "answers.html", answers=answers, model=opened.ref, form=form, thresholds=contract.thresholds)


@router.get("/history")
def show_history(request: Request, service: ServiceDep, caller: CallerDep, before: Id | None = None) -> Response:
    """The caller's past predictions, with the targets that their roles allow now."""
    entries = service.predictor.history.entries(caller, _PER_PAGE, before)
    rows = [(entry, visible_record(entry.record, caller)) for entry in entries]
    older = entries[-1].id if len(entries) == _PER_PAGE else None
    return render(request, "history.html", rows=rows, older=older)


def _check_number(photos: int, service: Service) -> None:
    most = service.config.most_predicted
    if not photos:
        raise RequestError(422, "There is no photo", "", "Choose a file, or give the address of a photo.")
    if photos > most:
        raise RequestError(413, "Too many photos", f"{photos} of at most {most}", "Send fewer at a time.")


def _has_advice(service: Service, pipeline: Pipeline) -> bool:
    return service.config.advice is not None and pipeline.bundle.contract.detection is None


def _pictures(photos: Sequence[Photo]) -> list[str | None]:
    return [_picture(data) if isinstance(data, bytes) else None for _, data in photos]


def _picture(data: bytes) -> str | None:
    """A small copy of a photo as a `data:` URL; `None` if it cannot be read."""
    try:
        small = datasets.thumbnail(data, _SIDE)
    except ImageError:
        return None
    return f"data:{small.media_type};base64,{base64.b64encode(small.data).decode()}"
