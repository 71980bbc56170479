"""How a function becomes a command: shared options are added, a console is passed in."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from plantml.cli.console import Console, Streams
from plantml.errors import Exit, PlantmlError, UsageError

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Offline = Annotated[bool, typer.Option("--offline", help="Open no socket except to URLs that are named.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="YAML file of settings.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key; may be repeated.")]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Show every setting and where it came from, and stop.")
]

_SHARED = {"json": Json, "quiet": Quiet, "verbose": Verbose, "offline": Offline, "debug": Debug}


class _InOrder(TyperGroup):
    """Lists commands in the order of the work, groups of commands among them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names as the help page shows them."""
        return sorted(super().list_commands(ctx), key=lambda name: name != "dataset")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With nothing to parse, the help page and the code of wrong usage, by typer's own convention.

        Typer raises an error that holds the page, which would go to stderr.
        """
        if not args:
            typer.echo(ctx.get_help())
            raise typer.Exit(int(Exit.USAGE))
        return super().parse_args(ctx, args)


def group(name: str, help_: str) -> typer.Typer:
    """A Typer that holds commands and shows plain help."""
    return typer.Typer(
        name=name,
        cls=_InOrder,
        help=help_,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def command(
    app: typer.Typer, name: str, *, examples: Sequence[str]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function `f(console, …)` as a command.

    The options of output that every command has are added to its own, and a `Console` made of them is
    passed as its first argument.

    Args:
        app: the group it belongs to.
        name: of the command.
        examples: command lines for the end of the help page.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @functools.wraps(function)
        def call(ctx: typer.Context, **given: Any) -> None:
            shared = {key: given.pop(key) for key in _SHARED}
            shared.pop("debug")  # the handler of errors reads it from the command line itself
            streams = ctx.obj if isinstance(ctx.obj, Streams) else Streams()
            console = Console(streams, **shared)
            try:
                with console.hearing():
                    _check_numbers(given)
                    function(console, **given)
            except PlantmlError as error:
                error.answered = console.answered
                raise
            finally:
                console.close()

        keyword = inspect.Parameter.KEYWORD_ONLY
        added = [inspect.Parameter(key, keyword, default=False, annotation=kind) for key, kind in _SHARED.items()]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [context, *(parameter.replace(kind=keyword) for parameter in own), *added]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)
        app.command(name, help=inspect.getdoc(function), epilog=epilog)(call)
        return function

    return register


def _check_numbers(given: Mapping[str, Any]) -> None:
    """Raise `UsageError` for `nan` and `inf`, which pass every bound of an option."""
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{name.rstrip('_').replace('_', '-')} cannot be {value}", "it is no finite number")


def show_config(console: Console, lines: Sequence[str]) -> None:
    """Print resolved settings, one a line."""
    for line in lines:
        print(line, file=console.streams.stdout)
