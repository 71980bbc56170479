"""Turns a function, and the settings that it takes, into a command."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from plantml.cli.console import Console
from plantml.errors import Exit, PlantmlError, UsageError

if TYPE_CHECKING:
    from plantml.settings import Config

ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Read settings from a YAML file.")]
Annotations = Mapping[str, Any]

_OUTPUT: Annotations = {
    "json": Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Print more details.")],
    "offline": Annotated[
        bool, typer.Option("--offline", help="Do not use the network, except for URLs that you name.")
    ],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}
_SETTINGS: Annotations = {
    "sets": Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any setting; see docs/settings.md. Repeatable."),
    ],
    "print_config": Annotated[
        bool, typer.Option("--print-config", help="Show every setting and where it came from, then exit.")
    ],
}


class _HelpGroup(TyperGroup):
    """A group that shows its help page if no command is given.

    A command of the group's own name is what the group itself does: it takes every line that does not begin with the
    name of another command.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.own = self.commands.pop(self.name, None) if self.name else None

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the group, or of its own command."""
        if self.own is not None and (not args or args[0] not in self.commands):
            return self.own.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without arguments, print the help page and exit with the code of wrong usage, as typer does.

        Typer would raise an error that holds the page, which would go to stderr.
        """
        if not args:
            typer.echo(ctx.get_help())
            raise typer.Exit(int(Exit.USAGE))
        return super().parse_args(ctx, args)


class _Command(TyperCommand):
    """A command that spends no time on options that are not given: typer would build a validator for each."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        for option in self.params:
            if option.default is None and not option.required and option.callback is None:
                option.process_value = functools.partial(_process, option.process_value)  # type: ignore[method-assign]


def _process(process_value: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    return None if value is None else process_value(ctx, value)


def group(name: str, help_: str) -> typer.Typer:
    """A Typer that holds commands and shows plain help."""
    return typer.Typer(
        name=name,
        cls=_HelpGroup,
        help=help_,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


AddCommand = Callable[[typer.Typer], None]


def command(
    *examples: str,
    config: "type[Config] | None" = None,
    config_file: Any = ConfigFile,
    section: str | None = None,
    only: Sequence[str] | None = None,
) -> Callable[[Callable[..., None]], AddCommand]:
    """Turn a function `f(console, …)`, or `f(console, resolved, …)` with a `config`, into what adds it to an app.

    The command has the name of the function. The function declares its arguments, and the flags that are no settings.
    Flags of output are added, and a `Console` made of them is passed first. The flags of `config` are made from its
    fields, and passed as one `settings.Resolved`.

    Args:
        examples: command lines for the end of the help page.
        config: the settings of the command.
        config_file: annotation of the parameter that names a file of settings.
        section: command whose settings these are, if it is another one.
        only: settings that have a flag here; all by default.
    """

    def declare(function: Callable[..., None]) -> AddCommand:
        name = function.__name__.strip("_").replace("_", "-")

        def add_to(app: typer.Typer) -> None:
            call, parameters = (
                _plain(function)
                if config is None
                else _configured(function, section or name, config, config_file, only)
            )

            @functools.wraps(function)
            def run(ctx: typer.Context, **values: Any) -> None:
                output = {key: values.pop(key) for key in _OUTPUT}
                output.pop("debug")  # the handler of errors reads it from the command line itself
                console = Console(ctx.obj, ctx.command_path.partition(" ")[2], **output)
                try:
                    with console.relaying_log():
                        _check_numbers(values)
                        call(console, values)
                except PlantmlError as error:
                    error.answered = console.answered
                    raise
                finally:
                    console.close()

            context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
            parameters = [context, *parameters, *_parameters(_OUTPUT, default=False)]
            run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
            epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)
            app.command(name, cls=_Command, help=inspect.getdoc(function), epilog=epilog)(run)

        return add_to

    return declare


Call = Callable[[Console, dict[str, Any]], None]


def _plain(function: Callable[..., None]) -> tuple[Call, list[inspect.Parameter]]:
    """A call of a function with the values of its parameters, and these parameters.

    A dataclass as annotation stands for its fields: options that several commands share.
    """
    own = _own(function)[1:]
    shared: dict[str, Any] = {each.name: each.annotation for each in own if dataclasses.is_dataclass(each.annotation)}
    fields = {name: _own(group) for name, group in shared.items()}

    def call(console: Console, values: dict[str, Any]) -> None:
        groups = {name: shared[name](**{each.name: values.pop(each.name) for each in fields[name]}) for name in shared}
        function(console, **values, **groups)

    return call, [parameter for each in own for parameter in fields.get(each.name, [each])]


def _configured(
    function: Callable[..., None], name: str, config: "type[Config]", config_file: Any, only: Sequence[str] | None
) -> tuple[Call, list[inspect.Parameter]]:
    """The same of a function that takes resolved settings, with parameters for these."""
    from plantml import settings
    from plantml.cli import flags  # pydantic would make every other help page wait

    annotations = {key: kind for key, kind in flags.annotations(config).items() if only is None or key in only}

    def call(console: Console, values: dict[str, Any]) -> None:
        chosen = flags.split_lists(config, {key: values.pop(key) for key in annotations})
        file, sets, print_config = (values.pop(key) for key in ("config_file", *_SETTINGS))
        resolved = settings.resolve(config, name, flags=chosen, sets=sets or (), file=file)
        if print_config:
            for line in resolved.lines():
                print(line, file=console.streams.stdout)
        else:
            function(console, resolved, **values)

    own = _own(function)[2:]
    options = [each for each in own if each.default is not inspect.Parameter.empty]
    file = inspect.Parameter("config_file", inspect.Parameter.KEYWORD_ONLY, annotation=config_file)
    return call, [
        *(each for each in own if each.default is inspect.Parameter.empty),
        *_parameters(annotations),
        *options,
        file.replace(default=None) if config_file is ConfigFile else file,
        *_parameters(_SETTINGS),
    ]


def _own(function: Callable[..., None]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]


def _parameters(annotations: Annotations, default: Any = None) -> list[inspect.Parameter]:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(key, keyword, default=default, annotation=kind) for key, kind in annotations.items()]


def _check_numbers(values: Mapping[str, Any]) -> None:
    """Raise `UsageError` for `nan` and `inf`, which pass every bound of an option."""
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(
                f"--{name.rstrip('_').replace('_', '-')} cannot be {value}",
                "it is not a finite number",
                "Write a number such as 0.5.",
            )
