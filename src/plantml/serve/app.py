"""The application: routes, errors, and the OpenAPI document."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from plantml.about import __version__
from plantml.serve.page import documentation
from plantml.serve.page import routes as page
from plantml.serve.routes import datasets, models, openinference, operations, predict, review, session, trainings, users
from plantml.serve.service import Service
from plantml.serve.telemetry import Telemetry
from plantml.serve.web import headers, openapi, problems

ROUTERS = (
    predict.past,
    session.router,
    users.router,
    models.router,
    datasets.router,
    trainings.router,
    review.router,
    openinference.router,
    operations.router,
    documentation.router,
    page.router,
)
TAGS = {
    "session": "Sign in. An access token lasts 15 minutes; machines send an API key instead.",
    "users": "Users, their roles and API keys, and who did what.",
    "predict": "Photos in, records out: those of `plantml detect`, with the targets that the caller's roles allow.",
    "datasets": "The datasets and their photos, and contributed photos, which wait until a reviewer accepts them.",
    "trainings": "Start trainings, which workers run, and follow them.",
    "review": "Photos that a person should review, and their decisions.",
    "models": "The registry: models, versions, aliases, and which version is in service.",
    "open inference protocol": "Pixels in, raw outputs out, for existing clients of the protocol.",
    "operations": "For load balancers, orchestrators and monitoring.",
}
"""Subjects of the routes, in the order of /docs. A router names its own by `tags`."""


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
        generate_unique_id_function=openapi.operation_id,
        docs_url=None,  # FastAPI's pages load their scripts from the internet
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    problems.add_handlers(app)
    headers.add_middleware(app, service.config)
    app.add_middleware(
        Telemetry, metrics=service.metrics, tracing=service.tracing
    )  # outermost: it counts what the others refuse
    # First, as routes are looked through in this order, and not in a router of its own, where FastAPI looks twice.
    app.router.routes += predict.router.routes
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=documentation.FOLDER / "static"))
    openapi.complete(app)
    return app
