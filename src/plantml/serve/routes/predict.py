"""`/v1/predict`: photos in, records out; `/v1/predictions`: past predictions of the caller."""

import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import Receive, Scope, Send

from plantml.detect.output_row import to_line
from plantml.serve.access import CallerDep, caller_of
from plantml.serve.config import ServeConfig
from plantml.serve.models.inference import cancelled_with, gone
from plantml.serve.predict.predictions import Photo, PredictionOptions, visible_view
from plantml.serve.service import ServiceDep
from plantml.serve.users.visibility import visible_record
from plantml.serve.web import forms, openapi
from plantml.serve.web.problems import RequestError, reasons, responses

NDJSON = "application/x-ndjson"
_MOST_JSON = 2**20
_LONGEST_NAME = 1024
_RECORD: dict[str, Any] = {
    "plantml_record": 1, "image": "leaf.jpg", "image_id": "9f86d0…", "width": 4000, "height": 3000, "model": "3b1a…",
    "targets": {"category": {"label": "tomato", "score": 0.97, "top": [["tomato", 0.97], ["bean", 0.03]]}},
    "boxes": [], "decision": "accept", "unknown": 0.12, "failure": None,
}  # fmt: skip


class _PredictRoute(APIRoute):
    """Resolves the dependencies of `predict` by calling them: FastAPI's own way takes as long as decoding a photo."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] != "POST":
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        caller = await caller_of(request)
        try:
            options = PredictionOptions.model_validate(dict(request.query_params))
        except ValidationError as error:
            errors = [{**each, "loc": ("query", *each["loc"])} for each in error.errors()]
            raise RequestValidationError(errors) from error
        response = await predict(request, request.app.state.service, caller, options)
        await response(scope, receive, send)


router = APIRouter(
    prefix="/v1", tags=["predict"], route_class=_PredictRoute, generate_unique_id_function=openapi.operation_id
)
past = APIRouter(prefix="/v1", tags=["predict"])


class PhotoReferences(BaseModel):
    """Photos that the server fetches itself."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"urls": ["https://example.org/leaf.jpg"]}, {"items": ["leaves@7/tomato/0001.jpg"]}]
        },
    )

    urls: list[Annotated[str, Field(min_length=1, max_length=2048)]] = Field(
        default=[], description="http or https URLs of public hosts."
    )
    items: list[Annotated[str, Field(min_length=1, max_length=2048)]] = Field(
        default=[], description="Photos of served datasets, as DATASET@VERSION/NAME or DATASET/IMAGE_ID."
    )


class Predictions(BaseModel):
    """Records, one per photo, in order: files, then URLs, then items."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "leaf@3", "records": [_RECORD]}]})

    model: str = Field(description="NAME@NUMBER of the model that answered.")
    records: list[dict[str, Any]] = Field(description="Records of `plantml detect`; docs/records.md describes them.")


class PastPrediction(BaseModel):
    """A prediction of the caller's history."""

    id: int
    time: datetime
    model: str = Field(examples=["leaf@3"])
    record: dict[str, Any] = Field(examples=[_RECORD])


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
                            "description": "Photos. Each file name comes back as the `image` of its record.",
                        }
                    },
                }
            },
            "application/json": {"schema": PhotoReferences.model_json_schema()},
            "image/*": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}},
        },
    }
}
_NDJSON_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {"schema": {"type": "string"}, "example": to_line(_RECORD) + "\n"}}}
}


@router.post(
    "/predict",
    summary="Predict photos.",
    response_model=Predictions,
    responses=responses(400, 401, 403, 404, 413, 415, 422, 503) | _NDJSON_ANSWER,
    openapi_extra=_BODY,
)
async def predict(
    request: Request,
    service: ServiceDep,
    caller: CallerDep,
    options: Annotated[PredictionOptions, Query()],
) -> Response:
    """Records of `plantml detect`, with the targets that the caller's roles allow.

    Send photos as files (`multipart/form-data`), one photo as it is (`image/*`), or name URLs and dataset items
    (`application/json`). A photo that cannot be read has a record with the reason. With
    `Accept: application/x-ndjson` the answer is the JSON Lines of `plantml detect`.
    """
    service.queue.check()
    opened = await service.models.find(options.model)
    visible_view(opened, caller)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    urls, items, files = list[str](), list[str](), list[Photo]()
    if kind == "multipart/form-data":
        files = await _files(request, service.config)
    elif kind == "application/json":
        references = await _references(request)
        urls, items = references.urls, references.items
    elif kind.startswith("image/"):  # of whatever kind the photo truly is, as everywhere
        files = [("", await request.body())]
    else:
        hint = "Send multipart/form-data, image/* or application/json."
        raise RequestError(415, "The request is of another type", kind, hint)
    _check_number(len(files) + len(urls) + len(items), service.config)
    until = time.monotonic() + service.config.deadline
    async with cancelled_with(lambda: gone(request)):
        others = await service.predictor.gather(urls, items, until)
        records = await service.predictor.predict(opened, caller, [*files, *others], options, until)
    if NDJSON in request.headers.get("accept", ""):
        return Response("".join(f"{to_line(record)}\n" for record in records), media_type=NDJSON)
    # The records are JSON already: validating them once more would cost as much as a small photo.
    return JSONResponse({"model": opened.ref, "records": records})


@past.get("/predictions", summary="List your predictions, newest first.", responses=responses(401, 422, 503))
def list_predictions(
    service: ServiceDep,
    caller: CallerDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: Annotated[int | None, Query(description="The last id of the previous page.", ge=1, le=2**31 - 1)] = None,
) -> list[PastPrediction]:
    """Your own predictions, with the targets that your roles allow now."""
    entries = service.predictor.history.entries(caller, limit, before)
    return [
        PastPrediction(id=each.id, time=each.time, model=each.model, record=visible_record(each.record, caller))
        for each in entries
    ]


async def _files(request: Request, config: ServeConfig) -> list[Photo]:
    files = forms.files(request.headers["content-type"], await request.body(), "files", config.max_photos)
    return [(name[:_LONGEST_NAME], data) for name, data in files]


async def _references(request: Request) -> PhotoReferences:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_JSON:
            raise RequestError(413, "The request is too large", f"at most {_MOST_JSON} bytes of JSON", "Name less.")
    try:
        return PhotoReferences.model_validate_json(bytes(body))
    except ValidationError as error:
        why = reasons(error.errors()[:1])
        raise RequestError(422, "The request is malformed", why, "See /docs for the fields.") from error


def _check_number(photos: int, config: ServeConfig) -> None:
    if not photos:
        raise RequestError(422, "The request has no photos", "it has no files, urls or items", "Send at least one.")
    most = config.most_predicted
    if photos > most:
        raise RequestError(413, "Too many photos", f"{photos} of at most {most}", "Send several requests.")
