"""`/v1/review`: the photos that a person should look at next, and what they decide."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from plantml.errors import NotFoundError
from plantml.serve.access import Reviewer
from plantml.serve.models.model_pool import OpenModel
from plantml.serve.photos import drawn_boxes
from plantml.serve.photos.drawn_boxes import RedrawnBox
from plantml.serve.photos.review import Decision, NewBox, Reason, Task
from plantml.serve.routes.datasets import ContributionAnswer, contribution_answer
from plantml.serve.service import Service, ServiceDep
from plantml.serve.web.json_bodies import JsonRoute
from plantml.serve.web.problems import RequestError, responses

router = APIRouter(prefix="/v1", tags=["review"], route_class=JsonRoute)


class BoxAnswer(BaseModel):
    """A box of the dataset."""

    index: int
    x: float
    y: float
    w: float
    h: float
    labels: dict[str, Any]


class PredictedBox(BaseModel):
    """A box of the model."""

    x: float
    y: float
    w: float
    h: float
    score: float
    labels: dict[str, Any]


class ReviewTask(BaseModel):
    """A photo to review."""

    name: str = Field(description="Empty for callers who may not see all labels: a file's name often is one.")
    image_id: str
    width: int
    height: int
    why: Reason
    score: float | None
    labels: dict[str, Any] = Field(description="The photo's labels, of targets that the caller's roles allow.")
    boxes: list[BoxAnswer] | None = Field(description="Null if nobody has annotated the photo.")
    prediction: dict[str, Any] | None = Field(description="The model's record.")
    predicted_boxes: list[PredictedBox] | None


class ReviewQueue(BaseModel):
    """The photos to review next."""

    dataset: str
    version: int
    model: str | None = Field(
        description="NAME@NUMBER of the model whose predictions these are; null while the registry has no model."
    )
    state: Literal["ready", "computing"] = Field(description="While `computing`, more photos are still to come.")
    done: int = Field(description="Photos that the model has predicted.")
    total: int
    photos: list[ReviewTask]
    contributions: list[ContributionAnswer] = Field(description="Contributions that wait for a decision, oldest first.")


class ReviewDecision(BaseModel):
    """A reviewer's decision on a photo: labels, boxes, or that all is correct."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"dataset": "leaves", "image_id": "0" * 64, "labels": {"disease": "rust"}, "version": 7}]
        },
    )

    dataset: str
    image_id: str = Field(pattern="^[0-9a-f]{64}$")
    labels: dict[str, Any] = {}
    boxes: list[RedrawnBox] | None = Field(None, max_length=drawn_boxes.MOST, description="All boxes of the photo.")
    accept: bool = Field(
        False,
        description="The labels and boxes are correct, and so is the model's prediction of those that are missing.",
    )
    model: str | None = Field(None, description="Whose prediction is accepted, as NAME@NUMBER.")
    version: int | None = Field(
        None, ge=1, description="The version that the reviewer saw; 409 if the photo has changed since."
    )
    why: str = Field("", max_length=500)
    new_class: bool = Field(False, description="Allow classes that the dataset does not have.")


class Reviewed(BaseModel):
    """The version of the dataset that has the decision."""

    dataset: str
    version: int


@router.get("/review", summary="List the photos to review next.", responses=responses(400, 401, 403, 404, 422, 503))
def review_queue(
    *,
    service: ServiceDep,
    caller: Reviewer,
    dataset: Annotated[str | None, Query(description="Name; may be left out if there is only one.")] = None,
    model: Annotated[str | None, Query(description="NAME, NAME@ALIAS or NAME@NUMBER.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> ReviewQueue:
    """Photos without a label first, then those whose label the model doubts; and what contributors have sent.

    Predictions are computed in the background: ask again while the state is `computing`.
    """
    name = dataset or _only_dataset(service)
    waiting = [each for each in service.contributions.all(name) if each.is_open]
    opened = _model(service, model)
    queue = None if service.datasets.head(name).number == 0 else service.reviews.queue(name, opened, caller, limit)
    return ReviewQueue(
        dataset=name,
        version=queue.version if queue else 0,
        model=opened.ref if opened else None,
        state="computing" if queue and queue.done < queue.total else "ready",
        done=queue.done if queue else 0,
        total=queue.total if queue else 0,
        photos=[_task(task) for task in queue.tasks] if queue else [],
        contributions=[contribution_answer(each, caller) for each in waiting[:limit]],
    )


@router.post("/review", summary="Accept or correct a photo.", responses=responses(400, 401, 403, 404, 409, 422, 503))
def review(service: ServiceDep, caller: Reviewer, body: ReviewDecision) -> Reviewed:
    """Commit a version of the dataset in which the photo has the reviewer's labels and boxes."""
    if not (body.labels or body.accept or body.boxes is not None):
        raise RequestError(422, "There is no decision", "it has no labels, no boxes, and no accept", "Send one.")
    if body.version is None and any(box.index is not None for box in body.boxes or ()):
        raise RequestError(422, "A box cannot be identified", "its index needs the version", "Send the version, too.")
    decision = Decision(
        image_id=body.image_id,
        labels=body.labels,
        boxes=None if body.boxes is None else [NewBox(box.as_box(), box.index) for box in body.boxes],
        accept=body.accept,
        seen=body.version,
        why=body.why,
        new_class=body.new_class,
    )
    model = service.models.get(body.model) if body.model else None
    version = service.reviews.decide(body.dataset, decision, model, caller)
    return Reviewed(dataset=body.dataset, version=version.number)


def _only_dataset(service: Service) -> str:
    names = service.datasets.names
    if len(names) != 1:
        raise RequestError(400, "No dataset is named", f"there are {', '.join(names) or 'none'}", "Add ?dataset=NAME.")
    return names[0]


def _model(service: Service, ref: str | None) -> OpenModel | None:
    """The model that is asked for; none where the registry has none yet and none was asked for."""
    try:
        return service.models.get(ref)
    except NotFoundError:
        if ref is not None:
            raise
        return None


def _task(task: Task) -> ReviewTask:
    boxes = None
    if task.boxes is not None:
        boxes = [
            BoxAnswer(index=index, x=box.x, y=box.y, w=box.w, h=box.h, labels=dict(box.labels))
            for index, box in enumerate(task.boxes)
        ]
    predicted = None
    if task.predicted_boxes is not None:
        predicted = [PredictedBox.model_validate(box) for box in task.predicted_boxes]
    return ReviewTask(
        name=task.name,
        image_id=task.image_id,
        width=task.width,
        height=task.height,
        why=task.why,
        score=task.score,
        labels=dict(task.labels),
        boxes=boxes,
        prediction=None if task.prediction is None else dict(task.prediction),
        predicted_boxes=predicted,
    )
