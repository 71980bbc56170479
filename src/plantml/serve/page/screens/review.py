"""Review: one photo at a time, the least certain first; a label is one click or one key, boxes can be moved."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from plantml.data import boxes as dataset_boxes
from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.errors import PlantmlError
from plantml.serve.access import Reviewer
from plantml.serve.models.model_pool import OpenModel
from plantml.serve.page import labels
from plantml.serve.page.rendering import PageRoute, render
from plantml.serve.photos import drawn_boxes
from plantml.serve.photos.review import Decision, NewBox, Task
from plantml.serve.service import Service, ServiceDep
from plantml.serve.users.caller import Caller
from plantml.targets import Target

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Skipped = Annotated[list[str], Query(default_factory=list, max_length=500)]


@dataclass(frozen=True)
class Photo:
    """A photo as its form shows it.

    Attributes:
        task: the photo.
        version: of the dataset that the reviewer sees.
        targets: that are judged, the visible ones.
        chosen: by target, what the form proposes: the label, or what the model predicts.
        boxes: that the editor begins with, as JSON; `None` without an editor.
        is_again: true if the reviewer comes back to it.
        keyed: the target that the digits choose for: the one that the model is least certain of.
    """

    task: Task
    version: int
    targets: Sequence[Target]
    chosen: dict[str, Any]
    boxes: str | None
    is_again: bool
    keyed: str


@router.get("/review")
def show(request: Request, service: ServiceDep, _caller: Reviewer, dataset: str = "") -> Response:
    """The frame, which loads the first photo."""
    names = service.datasets.names
    chosen = dataset if dataset in names else next(iter(names), "")
    waiting = sum(each.state == "waiting" for name in names for each in service.contributions.all(name))
    return render(request, "review.html", datasets=names, dataset=chosen, waiting=waiting)


@router.get("/review/next")
def show_next(request: Request, service: ServiceDep, caller: Reviewer, dataset: str, skip: Skipped) -> Response:
    """The next photo; those that were skipped come later."""
    return _next_page(request, service, caller, dataset, skip)


@router.get("/review/photo")
def show_again(
    *, request: Request, service: ServiceDep, caller: Reviewer, dataset: str, image_id: str, skip: Skipped
) -> Response:  # fmt: skip
    """A photo that was reviewed before, to think again."""
    version, task = service.reviews.task(dataset, image_id, caller)
    photo = _photo(task, version, caller, is_again=True)
    return render(request, "review_photo.html", photo=photo, dataset=dataset, skip=skip, last="")


@router.post("/review")
async def decide(
    *, request: Request, service: ServiceDep, caller: Reviewer, dataset: Annotated[str, Form()],
    image_id: Annotated[str, Form(pattern="^[0-9a-f]{64}$")], seen: Annotated[int, Form(ge=1, le=10**9)],
) -> Response:  # fmt: skip
    """Keep the labels and boxes of one photo as a version of its dataset; show the next photo."""
    form = await request.form()

    def work() -> Response:
        version = service.datasets.load(dataset)
        targets = labels.visible(version.targets, caller)
        drawn = form.get("boxes")
        chosen = labels.read(form, targets)
        for target in targets:
            if target.kind == "multilabel" and f"{labels.FIELD}{target.name}" in form:
                chosen[target.name] = [str(each) for each in form.getlist(f"{labels.FIELD}{target.name}") if each]
        decision = Decision(
            image_id,
            labels=chosen,
            boxes=_redrawn(drawn) if isinstance(drawn, str) else None,
            seen=seen,
            new_class=form.get("new_class") == "true",
        )
        decided = service.reviews.decide(dataset, decision, None, caller)
        skip = [str(each) for each in form.getlist("skip")]
        return _next_page(request, service, caller, dataset, skip, last=image_id, number=decided.number)

    return await run_in_threadpool(work)


def _next_page(
    request: Request,
    service: Service,
    caller: Caller,
    dataset: str,
    skip: Sequence[str],
    *,
    last: str = "",
    number: int = 0,
) -> Response:
    model = _model(service)
    queue = service.reviews.queue(dataset, model, caller, len(skip) + 1)
    task = next((task for task in queue.tasks if task.image_id not in skip), None)
    photo = None
    if task is not None:
        version = service.datasets.load(f"{dataset}@{queue.version}")
        photo = _photo(task, version, caller)
    return render(
        request, "review_photo.html", photo=photo, queue=queue, dataset=dataset, skip=skip, last=last, number=number
    )


def _model(service: Service) -> OpenModel | None:
    """The default model, if there is one."""
    try:
        return service.models.get()
    except PlantmlError:
        return None


def _photo(task: Task, version: Version, caller: Caller, *, is_again: bool = False) -> Photo:
    targets = labels.visible(version.targets, caller)
    predicted = (task.prediction or {}).get("targets") or {}
    chosen = {
        name: answer["label"] if "label" in answer else [label for label, _ in answer["labels"]]
        for name, answer in predicted.items()
        if "label" in answer or "labels" in answer
    } | dict(task.labels)
    boxes = None
    if task.boxes is not None:
        boxes = [{**_sides(box), "labels": dict(box.labels), "index": at} for at, box in enumerate(task.boxes)]
    elif task.predicted_boxes is not None:
        boxes = [{**{side: box[side] for side in "xywh"}, "labels": box["labels"]} for box in task.predicted_boxes]
    if boxes is not None:
        of_boxes = dataset_boxes.targets_of(version.rows["boxes"].explode().drop_nulls(), version.targets)
        targets = labels.visible(of_boxes or version.targets, caller)
    return Photo(
        task,
        version.number,
        targets,
        chosen,
        None if boxes is None else json.dumps(boxes),
        is_again,
        _keyed(targets, predicted),
    )


def _keyed(targets: Sequence[Target], predicted: Mapping[str, Any]) -> str:
    """The name of the target with the lowest score, of those with a choice."""
    open_ones = [target.name for target in targets if len(target.classes) > 1]
    return min(open_ones, key=lambda name: predicted.get(name, {}).get("score", 1.0), default="")


def _sides(box: Box) -> dict[str, float]:
    return {"x": box.x, "y": box.y, "w": box.w, "h": box.h}


def _redrawn(text: str) -> list[NewBox]:
    return [NewBox(box.as_box(), box.index) for box in drawn_boxes.read(text)]
