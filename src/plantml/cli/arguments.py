"""Arguments that several commands share."""

from typing import Annotated

import typer

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="URL of the dataset; append @N or @TAG for a version.")]
DatasetUrl = Annotated[str, typer.Argument(metavar="DATASET", help="URL of the dataset.")]
"""Of a command that changes it, always from its newest version."""

MAX_SEED = 2**63 - 1
"""The largest seed that both torch and numpy accept."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")]
Html = Annotated[str | None, typer.Option(metavar="FILE", help="Write a report as one HTML file.")]
MinAge = Annotated[
    float, typer.Option(metavar="HOURS", min=0, help="Keep files younger than this; a running command may need them.")
]
ImageColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the list that holds photos.")]
AllowRoot = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL", help="Also read photos listed under this folder or URL, and follow links into it. Repeatable."
    ),
]
Embedding = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Model for embeddings: a run, a bundle, or an .onnx file with an output `embedding`."
        " [default: the pretrained backbone]",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ENGINE",
        help="Split the photos across processes or machines: local:N (processes), ray (the cluster of RAY_ADDRESS, else"
        " of this machine, else a new one), ray://HOST:PORT or slurm."
        " [default: this process]",
    ),
]
Model = Annotated[str, typer.Argument(metavar="REGISTRY/NAME", help="URL of a registered model.")]
Version = Annotated[str, typer.Argument(metavar="REGISTRY/NAME@N", help="Version of a model: a number or an alias.")]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="Alias, such as production or challenger.")]
Ref = Annotated[str, typer.Argument(metavar="MODEL", help="Registered version, run, bundle or pack.")]
Forms = Annotated[
    list[str] | None,
    typer.Option("--form", metavar="FORM", help="Add a form to the bundle, for --speed: int8 or bfloat16. Repeatable."),
]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Author, for the history. [default: user@machine]")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="Reason, for the history.")]
