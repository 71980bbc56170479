"""Contribute: photos with labels, the correction of an answer, and what waits for a reviewer."""

import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool

from plantml.data.boxes import Box
from plantml.errors import PlantmlError
from plantml.serve.access import Contributor, Reviewer
from plantml.serve.page import labels
from plantml.serve.page.rendering import PageRoute, redirect, render
from plantml.serve.page.screens import catalogues
from plantml.serve.photos import drawn_boxes
from plantml.serve.photos.contributions import Accepted, Outcome
from plantml.serve.photos.uploads import Refused, Upload, display_name
from plantml.serve.routes.datasets import contribution_answer
from plantml.serve.service import Service, ServiceDep

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_MOST_SHOWN = 200


@router.get("/contribute")
def show_form(request: Request, service: ServiceDep, caller: Contributor, dataset: str = "") -> Response:
    """The form for photos, and one's own photos of late."""
    form = catalogues.label_form(service, caller)
    chosen = dataset if dataset in form else next(iter(form), "")
    own = [each for name in form for each in service.contributions.all(name) if each.contributor == caller.name]
    own.sort(key=lambda each: each.sent, reverse=True)
    return render(
        request,
        "contribute.html",
        form=form,
        box_targets=catalogues.box_targets(service, caller, chosen) if chosen else (),
        dataset=chosen,
        own=[contribution_answer(each, caller) for each in own[:_MOST_SHOWN]],
    )


@router.post("/contribute")
async def contribute(
    *, request: Request, service: ServiceDep, caller: Contributor, dataset: Annotated[str, Form()],
    files: Annotated[list[UploadFile], File()], new_class: Annotated[bool, Form()] = False,
) -> Response:  # fmt: skip
    """One line per photo: what became of it. A field of a photo counts before that of all photos."""
    form = await request.form()
    version = await run_in_threadpool(service.datasets.head, dataset)
    targets = labels.visible(version.targets, caller)
    for_all = labels.read(form, targets)
    each = [for_all | labels.read(form, targets, f".{index}") for index in range(len(files))]
    uploads = await service.uploads.check(files)
    drawn = [_drawn(form.get(f"boxes.{index}")) for index in range(len(files))]
    outcomes = await run_in_threadpool(
        service.contributions.send, dataset, caller, uploads, each, drawn, new_class=new_class
    )
    return render(request, "outcomes.html", dataset=dataset, outcomes=outcomes, waiting=_waiting(outcomes))


@router.post("/ask/correct")
async def correct(
    *, request: Request, service: ServiceDep, caller: Contributor, dataset: Annotated[str, Form()],
    file: Annotated[UploadFile | None, File()] = None, url: Annotated[str, Form(max_length=2048)] = "",
    new_class: Annotated[bool, Form()] = False,
) -> Response:  # fmt: skip
    """Send the right labels of a photo. Those of a reviewer go into the dataset at once."""
    form = await request.form()
    uploads = [await _fetched(service, url)] if url else await service.uploads.check([file] if file else [])
    version = await run_in_threadpool(service.datasets.head, dataset)
    of_photo = labels.read(form, labels.visible(version.targets, caller), f".{dataset}")

    def send() -> tuple[list[Outcome], Sequence[Accepted]]:
        outcomes = service.contributions.send(dataset, caller, uploads, [of_photo] * len(uploads), new_class=new_class)
        waiting = _waiting(outcomes)
        return outcomes, service.contributions.accept(waiting, caller) if waiting and caller.may("reviewer") else ()

    outcomes, accepted = await run_in_threadpool(send)
    return render(request, "corrected.html", dataset=dataset, outcomes=outcomes, accepted=accepted)


@router.get("/contributions")
def show_waiting(request: Request, service: ServiceDep, caller: Reviewer) -> Response:
    """The photos that wait for a reviewer."""
    waiting = {
        name: [contribution_answer(each, caller) for each in service.contributions.all(name) if each.state == "waiting"]
        for name in service.datasets.names
    }
    return render(request, "contributions.html", waiting=waiting, most=_MOST_SHOWN)


@router.post("/contributions/accept")
def accept(
    request: Request, service: ServiceDep, caller: Reviewer, ids: Annotated[list[str], Form(default_factory=list)]
) -> Response:
    """Add photos to their dataset, as one version."""
    accepted = service.contributions.accept(ids, caller) if ids else ()
    return render(request, "accepted.html", accepted=accepted)


@router.post("/contributions/reject")
def reject(
    request: Request, service: ServiceDep, caller: Reviewer, why: Annotated[str, Form(min_length=1, max_length=500)],
    ids: Annotated[list[str], Form(default_factory=list)],
) -> Response:  # fmt: skip
    """Decide against photos, with a reason."""
    if ids:
        service.contributions.reject(ids, why, caller)
    return redirect(request, "/contributions")


def _drawn(text: object) -> list[Box] | None:
    """The boxes of a photo; `None` where nobody drew any."""
    return [box.as_box() for box in drawn_boxes.read(text)] or None if isinstance(text, str) and text else None


def _waiting(outcomes: Sequence[Outcome]) -> list[str]:
    return [each.contribution.id for each in outcomes if each.contribution is not None and each.state == "waiting"]


async def _fetched(service: Service, url: str) -> Upload | Refused:
    until = time.monotonic() + service.config.deadline
    ((_, data),) = await service.predictor.gather([url], [], until)
    if isinstance(data, PlantmlError):
        raise data
    return await run_in_threadpool(service.uploads.check_one, display_name(url), data)
