"""Ask: photos in, answers out, each with its doubt."""

import base64
import io
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool

from plantml import imaging
from plantml.imaging.formats import ImageError
from plantml.serve.access import CallerDep
from plantml.serve.page.rendering import PageRoute, render
from plantml.serve.page.screens import catalogues
from plantml.serve.problems import RequestError
from plantml.serve.routes import predict as predicting
from plantml.serve.service import ServiceDep

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_SIDE = 680
"""Pixels of the longer side of a photo in its answer: 340 on a screen with two pixels each."""


@dataclass(frozen=True)
class Answer:
    """A record as the page shows it.

    Attributes:
        name: of the photo.
        url: where it came from, if it was not sent as a file.
        picture: a small copy as a URL that holds it; `None` if it cannot be read.
        record: with the targets that the caller may see.
    """

    name: str
    url: str | None
    picture: str | None
    record: dict[str, Any]


@router.get("/")
def show(request: Request, service: ServiceDep, _: CallerDep) -> Response:
    """The form."""
    return render(request, "ask.html", models=catalogues.models(service))


@router.post("/ask")
async def ask(  # noqa: PLR0917 - fields of a form
    request: Request,
    service: ServiceDep,
    caller: CallerDep,
    files: Annotated[list[UploadFile], File()] = [],  # noqa: B006 - FastAPI copies it
    url: Annotated[str, Form()] = "",
    model: Annotated[str, Form()] = "",
) -> Response:
    """One answer per photo."""
    photos = [(file.filename or "", await file.read()) for file in files if file.filename]
    if not photos:
        raise RequestError(422, "There is no photo", "", "Choose a file, or give the address of a photo.")
    for file in files:
        await file.seek(0)
    predictions = await predicting.predict(service, caller, [file for file in files if file.filename], model or None)
    pictures = await run_in_threadpool(lambda: [picture(data) for _, data in photos])
    answers = [
        Answer(name, None, small, record)
        for (name, _), small, record in zip(photos, pictures, predictions.records, strict=True)
    ]
    return render(request, "answers.html", answers=answers, model=predictions.model)


def picture(data: bytes) -> str | None:
    """A small copy of a photo as a `data:` URL; `None` if it cannot be read."""
    try:
        small = imaging.thumbnail(data, _SIDE)
    except ImageError:
        return None
    file = io.BytesIO()
    small.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
