"""`plantml models add`, `copy`, `pack` and `push`: models from one place to another."""

from typing import TYPE_CHECKING, Annotated

import typer

from plantml.cli.arguments import By, Forms, Model, Ref, Version, Why
from plantml.cli.command import command
from plantml.cli.console import Console, Page
from plantml.errors import UsageError
from plantml.export.config import ExportConfig

if TYPE_CHECKING:
    from plantml.registry.ledger import Ledger


@command(
    "plantml models add runs/first models/leaf",
    "plantml models add runs/night s3://bucket/models/leaf --alias challenger --why 'trained on the photos of May'",
    "plantml models add leaf.plantml models/leaf",
    "plantml models add runs/first models/leaf --form int8 --form bfloat16",
)
def add(
    console: Console,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Run, bundle or pack.")],
    model: Model,
    alias: Annotated[str | None, typer.Option(metavar="ALIAS", help="Point this alias to the new version.")] = None,
    forms: Forms = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Photos to compare forms on.", show_default="the model's dataset"),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Tolerated drop of a form's macro-F1, or of the AP of boxes."
            f" [default: {ExportConfig.model_fields['max_drop'].default}]",
        ),
    ] = None,
    why: Why = "",
    by: By = None,
) -> None:
    """Add a model to a registry, as the next version.

    Every file is verified first. Adding the same model again changes nothing; an interrupted add leaves no version.
    With --form, the bundle first gets the faster forms that it lacks, as by `plantml export --form`, compared on the
    photos that it was tested on, or on those of --data.
    """
    from plantml import registry
    from plantml.extras import need_train
    from plantml.model import proven_forms

    if not forms and (data is not None or max_drop is not None):
        raise UsageError(
            "--data and --max-drop need --form",
            "they say how the forms that it adds are compared",
            "Add a form, such as --form int8, or remove them.",
        )
    if forms:
        proven_forms.check_names(forms)
        need_train()
        from plantml.export import bundle_forms

        config, progress = ExportConfig(data=data), console.progress("comparing")
        if max_drop is not None:
            config = config.model_copy(update={"max_drop": max_drop})
        bundle_forms.add_missing(bundle, forms, config, machine=console.machine, progress=progress)
    result = registry.add(bundle, model, by=by, why=why, alias=alias, cache=console.machine.cache())
    if forms:
        bundle_forms.check_has(f"{model}@{result.number}", forms)
    _show_added(console, registry.load(model), result.number, changed=result.changed)


@command("plantml models copy models/leaf@production s3://customer/models/leaf")
def copy(console: Console, version: Version, model: Model, why: Why = "", by: By = None) -> None:
    """Copy a version to another registry, with its history but without aliases."""
    from plantml import registry

    registry.resolve(version)  # only versions are copied; other models are added
    result = registry.add(version, model, by=by, why=why, cache=console.machine.cache())
    _show_added(console, registry.load(model), result.number, changed=result.changed)


def _show_added(console: Console, state: "Ledger", number: int, *, changed: bool) -> None:
    entry = state.entries[number]
    content = {"model": state.url, "version": number, "url": entry.url, "digest": entry.digest, "changed": changed}

    def show(page: Page) -> None:
        if not changed:
            page.line(f"Nothing to do: this model is already version {number}.")
        page.line(f"{state.url}@{number}: model {entry.digest[:12]}, {entry.size / 1e6:.1f} MB", style="bold")
        dataset = entry.event.content["dataset"]["url"]
        against = f" --against {state.url}@production --max-drop 0.01" if "production" in state.aliases else ""
        page.next(
            f"plantml validate {dataset} --model {state.url}@{number}{against} --out evidence",
            f"plantml models promote {state.url}@{number} production --evidence evidence",
        )

    console.result(content, show)


@command("plantml models pack models/leaf@3 leaf.plantml")
def pack(
    console: Console, ref: Ref, out: Annotated[str, typer.Argument(metavar="FILE.plantml", help="URL of the file.")]
) -> None:
    """Pack a model into one file for transfer; unpack it with `models add`."""
    from plantml.registry import packs

    result = packs.pack(ref, out, console.machine.cache())
    content = {"out": result.url, "digest": result.bundle.digest, "bytes": result.size}

    def show(page: Page) -> None:
        page.line(f"Wrote {result.url}, {result.size / 1e6:.1f} MB, model {result.bundle.digest[:12]}", style="bold")
        page.hint(f"Next, at the destination: plantml models add {out} REGISTRY/NAME")

    console.result(content, show)


@command(
    "plantml models push models/leaf@production mlflow://tracking:5000",
    "plantml models push models/leaf@3 sqlite:///mlflow.db --name beans",
)
def push(
    console: Console,
    version: Version,
    store: Annotated[
        str, typer.Argument(metavar="URI", help="MLflow tracking URI: mlflow://HOST:PORT, https://…, sqlite:///FILE.")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model in MLflow. [default: NAME]")
    ] = None,
) -> None:
    """Push a version to MLflow, as an ONNX model with the same aliases; needs [mlflow]."""
    from plantml.registry import mlflow_push

    result = mlflow_push.push(version, store, name=name, cache=console.machine.cache())
    content = {"store": result.store, "name": result.name, "version": result.number, "aliases": list(result.aliases),
               "digest": result.entry.digest, "changed": result.changed}  # fmt: skip

    def show(page: Page) -> None:
        aliases = f", {' and '.join(result.aliases)}" if result.aliases else ""
        page.line(f"{result.name} version {result.number} at {result.store}{aliases}", style="bold")
        if not result.changed:
            page.line("The model was already there; its aliases have been updated.")
        page.next(f"mlflow.onnx.load_model('models:/{result.name}/{result.number}')")

    console.result(content, show)
