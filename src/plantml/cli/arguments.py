"""Arguments that several commands share."""

from typing import Annotated

import typer

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="URL of the dataset; append @N or @TAG for a version.")]
MAX_SEED = 2**63 - 1
"""The largest seed that both torch and numpy accept."""

AllowRoot = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="Also read photos listed under this folder or URL, and follow links into it. Repeatable.",
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
