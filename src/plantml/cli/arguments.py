"""Arguments that several commands share."""

from typing import Annotated

import typer

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="URL of the dataset; @N or @TAG for a version.")]
MAX_SEED = 2**63 - 1
"""Of options for seeds: the largest that torch and numpy both take."""

AllowRoot = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="Read what a list names under this folder or URL, too, and follow links to folders there."
        " May be repeated.",
    ),
]
Embedding = Annotated[
    str | None,
    typer.Option(
        metavar="M",
        help="Model whose embeddings are used: a run, a bundle, or an .onnx file with an output `embedding`."
        " The pretrained backbone if not given.",
    ),
]
