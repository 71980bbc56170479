"""`plantml pipeline`."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, Page


@command(
    "plantml pipeline export s3://lab/retrain.yaml --to kubeflow --image registry.lab/plantml-worker:0.1.0",
    "plantml pipeline export s3://lab/retrain.yaml --to airflow --out dags/retrain.py",
    "plantml pipeline export retrain.yaml --to github --out .github/workflows/retrain.yaml",
)
def export(
    console: Console,
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="Configuration of retrain, where the engine's machines read it.")
    ],
    to: Annotated[
        Literal["kubeflow", "vertex", "airflow", "github", "cloudbuild"],
        typer.Option(help="Engine that runs the pipeline."),
    ],
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Output file.", show_default="retrain_ENGINE.py or .yaml")
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Container image with plantml, for engines that run containers.")
    ] = None,
    schedule: Annotated[str, typer.Option(metavar="CRON", help="When to run, as five fields of cron.")] = "0 2 * * *",
) -> None:
    """Write the retraining loop as a pipeline of another engine.

    Each step of the pipeline runs one step of `plantml retrain` and keeps its results in the work folder, so the engine
    may repeat a step or run it on another machine. If nothing is new, the steps after the first do nothing.
    """
    from plantml.retrain import pipelines

    result = pipelines.export(config, to, out=out, image=image, schedule=schedule)

    def show(page: Page) -> None:
        page.line(f"{result.file}: {len(result.steps)} steps for {result.engine}")
        page.line(f"Next: {result.next}")

    console.result(asdict(result), show)


COMMANDS = (export,)
