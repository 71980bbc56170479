"""The application: routes, errors, and the OpenAPI document."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from plantml.about import __version__
from plantml.serve import headers, problems
from plantml.serve.page import routes as page
from plantml.serve.routes import datasets, documentation, models, operations, predict, session, users
from plantml.serve.service import Service

ROUTERS = (
    session.router,
    users.router,
    predict.router,
    models.router,
    datasets.router,
    operations.router,
    documentation.router,
    page.router,
)
TAGS = {
    "session": "Sign in. A token lasts minutes; a machine sends an API key in its place.",
    "users": "Users, their roles and API keys, and who did what.",
    "predict": "Photos in, records out: those of `plantml detect`, with the targets that the caller's roles allow.",
    "datasets": "What the datasets have, and photos for them, which wait until a reviewer accepts them.",
    "models": "The registry: models, versions, aliases, and which version is in service.",
    "operations": "For load balancers, orchestrators and monitoring.",
}
"""Subjects of the routes, in the order of /docs. A router names its own by `tags`."""


class Problem(BaseModel):
    """An error, after RFC 9457: what, why (`detail`), what to do next (`hint`), and the code of the command line."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    hint: str
    code: int


def create_app(service: Service) -> FastAPI:
    """The application of a service, which it closes at its end."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="plantml",
        summary="Which plant is it, is it healthy, and what is wrong with it?",
        version=__version__,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,  # FastAPI's pages load their scripts from the internet
        redoc_url=None,
        lifespan=lifespan,
        max_body_size=service.config.max_upload,
    )
    app.state.service = service
    problems.add_handlers(app)
    headers.add_middleware(app, service.config)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=documentation.FOLDER / "static"))
    _add_schema(app, Problem)
    return app


def _add_schema(app: FastAPI, model: type[BaseModel]) -> None:
    """Name a model in the OpenAPI document that no route returns by itself."""
    original = app.openapi

    def openapi() -> dict[str, object]:
        document = original()
        document["components"]["schemas"].setdefault(model.__name__, model.model_json_schema())
        return document

    app.openapi = openapi  # type: ignore[method-assign]
