"""`/v1/datasets` and `/v1/contributions`: what a server's datasets have, and photos for them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Path, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, Field

from plantml.data import summary, versions
from plantml.errors import InputError
from plantml.parsing import parse_json
from plantml.serve.access import CallerDep, Contributor, Reviewer
from plantml.serve.photos import drawn_boxes
from plantml.serve.photos.contributions import Contribution, Outcome, OutcomeState, State
from plantml.serve.photos.datasets import Photo
from plantml.serve.photos.drawn_boxes import DrawnBox
from plantml.serve.service import ServiceDep
from plantml.serve.users.caller import Caller
from plantml.serve.users.visibility import visible_labels
from plantml.serve.web.json_bodies import JsonRoute
from plantml.serve.web.problems import RequestError, forbidden, responses
from plantml.targets import Target

router = APIRouter(prefix="/v1", tags=["datasets"], route_class=JsonRoute)
DatasetName = Annotated[str, Path(description="Last segment of the dataset's URL.", examples=["leaves"])]
ImageId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the photo.")]
Side = Annotated[
    int | None,
    Query(ge=16, le=2048, description="Maximum width and height in pixels; without it, the photo as it came."),
]
_PHOTO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The photo.", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "The caller already has the photo."},
}


class DatasetSummary(BaseModel):
    """A dataset of this server."""

    name: str = Field(examples=["leaves"])
    version: int = Field(description="The newest one; 0 where there is none yet.", examples=[7])


class ClassCount(BaseModel):
    """A class and its photos."""

    name: str = Field(examples=["rust"])
    photos: dict[str, int] = Field(
        description="By split; `none` counts photos without a split.", examples=[{"train": 80, "val": 10}]
    )


class TargetCounts(BaseModel):
    """A target that the caller may see."""

    name: str = Field(examples=["disease"])
    kind: str = Field(examples=["class"])
    unit: str = ""
    classes: list[ClassCount]
    unlabelled: int


class DatasetDetail(DatasetSummary):
    """The content of the newest version of a dataset."""

    versions: list[int]
    created: str | None = Field(description="When the version was created, ISO 8601 in UTC.")
    operation: str | None = Field(description="The operation that created the version.", examples=["import"])
    photos: int = Field(description="Number of photos that are not excluded.")
    excluded: int
    splits: dict[str, int]
    targets: list[TargetCounts] = Field(description="Those that the caller's roles allow.")


class FlagAnswer(BaseModel):
    """What a reviewer should know of a photo."""

    code: Literal["exact-duplicate", "near-duplicate", "conflict", "new-class"]
    why: str
    target: str = ""
    image_id: str = Field("", description="Of the other photo, if there is one.")


class ContributionAnswer(BaseModel):
    """A contributed photo."""

    id: str
    dataset: str
    contributor: str
    file: str = Field(description="Its name; empty for who may not see all labels: it often is one.")
    image_id: str
    width: int
    height: int
    labels: dict[str, Any] = Field(description="Of targets that the caller's roles allow.")
    boxes: list[DrawnBox] | None = Field(description="Those that were drawn; null if nobody has drawn any.")
    flags: list[FlagAnswer]
    sent: str
    state: State
    reviewer: str
    decided: str
    why: str
    version: int = Field(description="Of the dataset, once the photo is accepted; 0 before that.")


class OutcomeAnswer(BaseModel):
    """What became of one file."""

    file: str
    state: OutcomeState
    id: str | None = Field(None, description="Of the contribution; null for a duplicate and a refused file.")
    image_id: str | None = None
    code: str = Field("", description="Short name of the reason for a refusal.", examples=["truncated"])
    why: str = ""
    flags: list[FlagAnswer] = []


class Sent(BaseModel):
    """One outcome per file, in order."""

    photos: list[OutcomeAnswer]


class Ids(BaseModel):
    """Contributions."""

    ids: list[str] = Field(min_length=1, max_length=10_000)


class Rejection(Ids):
    """Contributions to reject, and why."""

    why: str = Field(min_length=1, max_length=500, examples=["Not a leaf."])


class AcceptedAnswer(BaseModel):
    """A version of a dataset, and the contributions in it."""

    dataset: str
    version: int
    ids: list[str]


@router.get("/datasets", summary="List the datasets.", responses=responses(401, 503))
def list_datasets(service: ServiceDep, _: CallerDep) -> list[DatasetSummary]:
    """All datasets of this server."""
    datasets = service.datasets
    return [
        DatasetSummary(name=name, version=max(versions.numbers(datasets.url(name)), default=0))
        for name in datasets.names
    ]


@router.get("/datasets/{name}", summary="What a dataset has.", responses=responses(401, 404, 422, 503))
def show_dataset(service: ServiceDep, caller: CallerDep, name: DatasetName) -> DatasetDetail:
    """Counts of the newest version, by class and split; targets need their role."""
    version = service.datasets.head(name)
    counts = summary.count(version)
    return DatasetDetail(
        name=name,
        version=version.number,
        versions=versions.numbers(version.url),
        created=version.commit.time if version.commit else None,
        operation=version.commit.operation if version.commit else None,
        photos=counts.usable,
        excluded=sum(counts.excluded.values()),
        splits=dict(counts.splits),
        targets=[_counts(target, counts) for target in version.targets if caller.may_see(target.name)],
    )


@router.get(
    "/datasets/{name}/photos/{image_id}",
    summary="A photo of a dataset.",
    response_class=Response,
    responses={**responses(401, 403, 404, 422, 503), **_PHOTO},
)
def show_photo(
    *, request: Request, service: ServiceDep, caller: CallerDep, name: DatasetName, image_id: ImageId, size: Side = None
) -> Response:
    """The bytes of a photo as they came, or a small JPEG of it."""
    if not caller.roles:
        raise RequestError(403, "This is not allowed", "you have no role", "Ask an administrator for one.")
    tag = f'"{image_id[:32]}-{size or 0}"'
    if tag in request.headers.get("if-none-match", ""):
        service.datasets.url(name)
        return Response(status_code=304, headers={"ETag": tag})
    return photo_response(service.datasets.photo(name, image_id, size), tag)


@router.post(
    "/datasets/{name}/photos",
    summary="Contribute photos.",
    status_code=202,
    responses=responses(400, 401, 403, 404, 413, 422, 503),
)
async def contribute(
    *,
    service: ServiceDep,
    caller: Contributor,
    name: DatasetName,
    files: Annotated[list[UploadFile], File(description="Photos.")],
    labels: Annotated[
        str,
        Form(
            description="JSON: labels by target, one object for all files or a list with one per file.",
            examples=['{"category": "tomato", "disease": "rust"}'],
        ),
    ] = "{}",
    boxes: Annotated[
        str | None,
        Form(
            description="JSON: a list with the boxes of each file, in pixels of the upright photo; null for a file"
            " without annotation, an empty list for one without objects.",
            examples=['[[{"x": 10, "y": 20, "w": 64, "h": 48, "labels": {"category": "tomato"}}]]'],
        ),
    ] = None,
    new_class: Annotated[bool, Form(description="Allow classes that the dataset does not have.")] = False,
) -> Sent:
    """Photos and their labels, which wait for a reviewer. The response comes when they are stored durably.

    Sending a photo again is safe: it has the same id. Other labels replace those that the same user sent before.
    """
    by_file = _labels(labels, len(files))
    drawn = None if boxes is None else drawn_boxes.read_files(boxes, len(files))
    await run_in_threadpool(service.datasets.url, name)
    uploads = await service.uploads.check(files)
    outcomes = await run_in_threadpool(
        service.contributions.send, name, caller, uploads, by_file, drawn, new_class=new_class
    )
    if all(each.state == "refused" for each in outcomes):
        first = outcomes[0]
        raise InputError(
            f"{first.file} was not accepted" if len(outcomes) == 1 else "None of the photos was accepted",
            f"{first.code}: {first.why}",
            "Correct it and send it again.",
        )
    return Sent(photos=[_outcome(each, caller) for each in outcomes])


@router.get("/contributions", summary="List contributed photos.", responses=responses(401, 403, 404, 422, 503))
def list_contributions(
    *,
    service: ServiceDep,
    caller: CallerDep,
    dataset: Annotated[str | None, Query(description="Name of a dataset; all of them if left out.")] = None,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[ContributionAnswer]:
    """Newest first: all for a reviewer, their own for a contributor."""
    return [
        contribution_answer(each, caller) for each in _visible(service, caller, dataset) if state in {None, each.state}
    ][offset : offset + limit]


@router.get(
    "/contributions/{contribution}/photo",
    summary="Get the photo of a contribution.",
    response_class=Response,
    responses={**responses(401, 403, 404, 422, 503), 200: _PHOTO[200]},
)
def show_contribution(
    service: ServiceDep, caller: CallerDep, contribution: Annotated[str, Path(max_length=64)], size: Side = None
) -> Response:
    """For reviewers, and for the contributor."""
    (each,) = service.contributions.find([contribution])
    if not (caller.may("reviewer") or each.contributor == caller.name):
        raise forbidden("reviewer")
    return photo_response(service.contributions.photo(each, size), f'"{each.image_id[:32]}-{size or 0}"')


@router.post(
    "/contributions/accept",
    summary="Accept contributed photos.",
    responses=responses(400, 401, 403, 404, 409, 422, 503),
)
def accept(service: ServiceDep, caller: Reviewer, body: Ids) -> list[AcceptedAnswer]:
    """Add photos to their dataset: all of them in one new version."""
    return [
        AcceptedAnswer(dataset=each.dataset, version=each.version, ids=list(each.ids))
        for each in service.contributions.accept(body.ids, caller)
    ]


@router.post(
    "/contributions/reject",
    summary="Reject contributed photos.",
    responses=responses(401, 403, 404, 409, 422, 503),
)
def reject(service: ServiceDep, caller: Reviewer, body: Rejection) -> list[ContributionAnswer]:
    """Reject photos, with a reason that their contributor sees."""
    return [contribution_answer(each, caller) for each in service.contributions.reject(body.ids, body.why, caller)]


def photo_response(photo: Photo, tag: str) -> Response:
    """A photo for a browser, which must not take it for anything else, whatever else is in its bytes."""
    return Response(
        photo.data,
        media_type=photo.media_type,
        headers={
            "ETag": tag,
            "Cache-Control": "private, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


def contribution_answer(each: Contribution, caller: Caller) -> ContributionAnswer:
    """A contribution with what the caller may see of it."""
    sees_all = each.contributor == caller.name or all(map(caller.may_see, each.targets))
    return ContributionAnswer(
        id=each.id,
        dataset=each.dataset,
        contributor=each.contributor,
        file=each.name if sees_all else "",
        image_id=each.image_id,
        width=each.width,
        height=each.height,
        labels=visible_labels(each.labels, caller),
        boxes=None if each.boxes is None else drawn_boxes.visible(each.boxes, caller),
        flags=_flags(each, caller),
        sent=each.sent,
        state=each.state,
        reviewer=each.reviewer,
        decided=each.decided,
        why=each.why,
        version=each.version,
    )


def _visible(service: ServiceDep, caller: Caller, dataset: str | None) -> Sequence[Contribution]:
    if not (caller.may("reviewer") or caller.may("contributor")):
        raise forbidden("contributor")
    names = service.datasets.names if dataset is None else [dataset]
    every = [each for name in names for each in reversed(service.contributions.all(name))]
    return every if caller.may("reviewer") else [each for each in every if each.contributor == caller.name]


def _flags(each: Contribution, caller: Caller) -> list[FlagAnswer]:
    shown = [flag for flag in each.flags if not flag.target or caller.may_see(flag.target)]
    return [FlagAnswer.model_validate(flag.as_json()) for flag in shown]


def _outcome(outcome: Outcome, caller: Caller) -> OutcomeAnswer:
    each = outcome.contribution
    answer = OutcomeAnswer(id=None, file=outcome.file, state=outcome.state, code=outcome.code, why=outcome.why)
    if each is None:
        return answer
    return answer.model_copy(update={"id": each.id, "image_id": each.image_id, "flags": _flags(each, caller)})


def _counts(target: Target, counts: summary.Info) -> TargetCounts:
    by_class = counts.classes.get(target.name, {})
    return TargetCounts(
        name=target.name,
        kind=target.kind,
        unit=target.unit,
        classes=[ClassCount(name=name, photos=dict(photos)) for name, photos in by_class.items()],
        unlabelled=counts.unlabelled[target.name],
    )


def _labels(text: str, count: int) -> list[Mapping[str, Any]]:
    """Labels of each file from the form field. Raises `RequestError` 422."""
    content = parse_json(text, "labels")
    by_file = [content] * count if isinstance(content, dict) else content
    if isinstance(by_file, list) and len(by_file) == count and all(isinstance(each, dict) for each in by_file):
        return by_file
    raise RequestError(
        422,
        "The labels are malformed",
        f"they are one object for all files, or a list of {count}",
        'Write them like {"category": "tomato"}.',
    )
