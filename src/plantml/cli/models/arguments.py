"""Arguments that several commands of models share."""

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="REGISTRY/NAME", help="URL of a registered model.")]
Version = Annotated[str, typer.Argument(metavar="REGISTRY/NAME@N", help="Version of a model: a number or an alias.")]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="Alias, such as production or challenger.")]
Ref = Annotated[str, typer.Argument(metavar="MODEL", help="Registered version, run, bundle or pack.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Author, for the history. [default: user@machine]")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="Reason, for the history.")]
