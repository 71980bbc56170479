"""`/v2`: the Open Inference Protocol, for clients that speak it already."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from plantml.about import __version__
from plantml.errors import PlantmlError
from plantml.serve.access import CallerDep
from plantml.serve.models.inference import cancelled_with, gone
from plantml.serve.models.model_pool import OpenModel
from plantml.serve.predict import openinference
from plantml.serve.predict.openinference import HEADER, InferenceAnswer, InferenceRequest, TensorMetadata
from plantml.serve.predict.predictions import visible_view
from plantml.serve.service import ServiceDep
from plantml.serve.users.caller import Caller
from plantml.serve.web.problems import answer_error, for_clients, responses


class _Route(APIRoute):
    """Adds the member `error` to problems, where clients of the protocol look for the message."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of requests."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except PlantmlError as error:
                shown = for_clients(error, request)
                return answer_error(shown, more={"error": str(shown)})

        return answer


router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=_Route)
_MODEL, _VERSION = "/models/{name}", "/models/{name}/versions/{version}"


class ServerMetadata(BaseModel):
    """Name, version and extensions of the server."""

    name: str = Field(examples=["plantml"])
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """Inputs and outputs of a model."""

    name: str = Field(examples=["leaf"])
    versions: list[str] = Field(examples=[["1", "2"]])
    platform: str = Field(examples=["onnxruntime_onnx"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Liveness(BaseModel):
    """The server is alive."""

    live: bool


class ServerReadiness(BaseModel):
    """The server is ready."""

    ready: bool


class ModelReadiness(BaseModel):
    """A model is ready."""

    name: str = Field(examples=["leaf"])
    ready: bool


@router.get("", summary="Describe the server.")
async def describe_server() -> ServerMetadata:
    """Name, version, and extensions of the protocol."""
    return ServerMetadata(name="plantml", version=__version__, extensions=["binary_tensor_data"])


@router.get("/health/live", summary="Check that the process responds.")
async def live() -> Liveness:
    """As `/healthz`."""
    return Liveness(live=True)


@router.get("/health/ready", summary="Check that the server is ready.", responses=responses(503))
def ready(service: ServiceDep) -> ServerReadiness:
    """As `/readyz`."""
    service.check()
    return ServerReadiness(ready=True)


@router.get(_MODEL, summary="Describe the model in service.", responses=responses(401, 403, 404, 503))
@router.get(
    _VERSION, name="describe_version", summary="Describe a version of a model.", responses=responses(401, 403, 404, 503)
)
def describe_model(service: ServiceDep, caller: CallerDep, name: str, version: str = "") -> ModelMetadata:
    """Input and outputs, as far as the caller's roles allow them."""
    model = service.models.get(_ref(name, version))
    contract = model.pipeline.bundle.contract
    return ModelMetadata(
        name=model.name,
        versions=[str(number) for number in service.models.numbers(model.name)],
        platform="onnxruntime_onnx",
        inputs=[openinference.describe_input(contract)],
        outputs=_outputs(model, caller),
    )


@router.get(f"{_MODEL}/ready", summary="Check that the model in service is ready.", responses=responses(401, 404, 503))
@router.get(
    f"{_VERSION}/ready",
    name="version_ready",
    summary="Check that a version is ready.",
    responses=responses(401, 404, 503),
)
def model_ready(service: ServiceDep, _: CallerDep, name: str, version: str = "") -> ModelReadiness:
    """Opens it if necessary."""
    return ModelReadiness(name=service.models.get(_ref(name, version)).name, ready=True)


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": InferenceRequest.model_json_schema(ref_template="#/components/schemas/{model}")
            },
            "application/octet-stream": {"schema": {"type": "string"}},
        },
    }
}
_ANSWERS = responses(400, 401, 403, 404, 413, 503)
_ANSWERS[200] = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}


@router.post(
    f"{_MODEL}/infer",
    summary="Run the model in service on pixels.",
    response_model=InferenceAnswer,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
@router.post(
    f"{_VERSION}/infer",
    name="infer_version",
    summary="Run a version of a model on pixels.",
    response_model=InferenceAnswer,
    responses=_ANSWERS,
    openapi_extra=_BODY,
)
async def infer(request: Request, service: ServiceDep, caller: CallerDep, name: str, version: str = "") -> Response:
    """Raw outputs for uint8 [N, H, W, 3], decoded and resized by the client, in JSON or in binary."""
    service.queue.check()
    model = await service.models.find(_ref(name, version))
    outputs, expected = _outputs(model, caller), openinference.describe_input(model.pipeline.bundle.contract)
    body, most = await request.body(), service.config.most_predicted
    header = request.headers.get(HEADER)
    inference = await run_in_threadpool(openinference.parse, body, header, expected, outputs, most)
    items = [(photo, photo.nbytes) for photo in inference.photos]
    async with cancelled_with(lambda: gone(request)):
        rows = await service.queue.compute(model.outputs, items, service.config.deadline)
    content, size = await run_in_threadpool(openinference.answer, inference, rows, model.name, str(model.version))
    if size is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={HEADER: str(size)})


def _ref(name: str, version: str) -> str:
    return f"{name}@{version}" if version else name


def _outputs(model: OpenModel, caller: Caller) -> list[TensorMetadata]:
    view = visible_view(model, caller)
    return openinference.describe_outputs(view.bundle.contract, is_whole=view is model.pipeline)
