"""`plantml work`."""

from typing import Annotated

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, count


@command(
    "plantml work s3://bucket/models --state s3://bucket/serve",
    "plantml work /shared/models --state /shared/serve --dataset /mnt/leaves --once",
)
def work(
    console: Console,
    registry: Annotated[str, typer.Argument(metavar="REGISTRY", help="Registry that trained models are added to.")],
    state: Annotated[str, typer.Option(metavar="URL", help="State folder of the server: its --state.")] = "serve",
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET", help="URL of one of the server's datasets on this machine, if it differs. Repeatable."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Exit when no training waits.")] = False,
) -> None:
    """Run the trainings that were requested on a server.

    A worker runs one training at a time; any number of workers, on any machines, share them. A worker that is stopped
    by a signal saves its training; another worker, or the same one after a restart, resumes it.
    """
    from plantml.extras import need_train

    need_train()
    from plantml import storage
    from plantml.concurrency import Stop
    from plantml.serve.work.jobs import Jobs
    from plantml.serve.work.worker import Worker

    urls = [storage.absolute(url) for url in dataset or ()]
    with Stop() as stop:
        worker = Worker(
            Jobs(state),
            storage.absolute(registry),
            {storage.basename(url): url for url in urls},
            console.machine,
            stop,
            console.say,
        )
        done = worker.work(once=once)
    console.result({"done": done}, lambda page: page.line(f"{count(done, 'training')} done."))
