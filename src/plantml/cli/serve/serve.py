"""`plantml serve`."""

import gc
from typing import Annotated

import typer

from plantml.cli.command import command
from plantml.cli.console import Console
from plantml.serve.config import ServeConfig
from plantml.settings import Resolved


@command(
    "plantml serve models --dataset leaves",
    "plantml serve s3://bucket/models --dataset s3://bucket/leaves --state s3://bucket/serve --database postgresql+psycopg://plantml@db/plantml",
    config=ServeConfig,
)
def serve(
    console: Console,
    resolved: Resolved[ServeConfig],
    registry: Annotated[str, typer.Argument(metavar="REGISTRY", help="Registry of models: a folder or URL.")],
) -> None:
    """Serve models over HTTP: an API, and a page for people.

    Starts with an empty database on the local disk. The API is described at /docs. Manage users there, on the
    page, or with `plantml serve users`.
    """
    from plantml.extras import need_serve

    need_serve()
    gc.disable()  # what is imported stays: nothing of it is garbage to look for
    from plantml.serve import server

    server.serve(registry, resolved.value, console.machine, console.listener)
