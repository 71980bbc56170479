"""Arguments that several commands share."""

from typing import Annotated

import typer

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="URL of the dataset; @N or @TAG for a version.")]
