"""The table of commands, and the one handler of errors."""

import contextlib
import gc
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import typer

import plantml
from plantml.cli.command import group
from plantml.cli.console import RESULT_FORMAT, Streams
from plantml.errors import Exit, PlantmlError, TerminatedError

_HELP = """From a folder of plant photos to a model that a machine can trust.

Every path may be a URL: a local path, s3://, gs://, az://, https://, memory://.
"""
_SIGPIPE = 141

COMMANDS = ("dataset", "train", "validate", "export", "detect", "models", "retrain", "demo")
"""Modules of `plantml.cli`, each with the command of its name, as the help page lists them."""


def build(only: str = "") -> typer.Typer:
    """The whole command line; or only one of `COMMANDS`, which does not wait for the others' imports."""
    app = group("plantml", _HELP)
    for name in [only] if only in COMMANDS else COMMANDS:
        importlib.import_module(f"plantml.cli.{name}").register(app)

    @app.callback(invoke_without_command=True)
    def root(
        ctx: typer.Context,
        version: bool = typer.Option(False, "--version", help="Show the version and stop."),
    ) -> None:
        if version:
            print(f"plantml {plantml.__version__}", file=ctx.obj.stdout)
            raise typer.Exit

    root.__doc__ = _HELP
    return app


def run(argv: Sequence[str], streams: Streams | None = None) -> int:
    """Run one command line and return its exit code."""
    streams = streams or Streams()
    asks_json, debug = "--json" in argv, "--debug" in argv
    # Help pages are printed by typer, which knows the real streams only.
    with _terminable(), contextlib.redirect_stdout(streams.stdout), contextlib.redirect_stderr(streams.stderr):
        try:
            result = build(argv[0] if argv else "")(list(argv), standalone_mode=False, obj=streams, prog_name="plantml")
        except PlantmlError as error:
            if debug:
                traceback.print_exc(file=streams.stderr)
            _tell(streams, error, asks_json=asks_json)
            return int(error.exit_code)
        except typer.TyperException as error:
            return _tell_usage(streams, error)
        except (KeyboardInterrupt, typer.Abort):
            print("Interrupted.", file=streams.stderr)
            return int(Exit.INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has enough; point stdout elsewhere so that its last flush is silent.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), streams.stdout.fileno())
            return _SIGPIPE
        except Exception as error:  # noqa: BLE001 - whatever comes here is a bug, and is told as one
            _tell_bug(streams, error, debug=debug)
            return int(Exit.BUG)
    return result if isinstance(result, int) else int(Exit.DONE)


def main() -> NoReturn:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # a file name need not be Unicode
    # pydantic would read what every installed package says of itself, to look for plug-ins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    code = run(sys.argv[1:])
    if "torch" not in sys.modules:  # whose compiler counts what is left at the end, and calls it leaked
        gc.freeze()  # else the interpreter looks through all objects several times before it ends, for up to 70 ms
    sys.exit(code)


def _tell(streams: Streams, error: PlantmlError, *, asks_json: bool) -> None:
    if asks_json and not error.answered:  # one document on stdout, not two
        import json

        content = {
            "what": error.what,
            "why": error.why,
            "hint": error.hint,
            "exit_code": int(error.exit_code),
        }
        print(json.dumps({"plantml_result": RESULT_FORMAT, "error": content}, indent=2), file=streams.stdout)
    print(f"Error: {error.what}.", file=streams.stderr)
    if error.why:
        print(f"  Why: {error.why}", file=streams.stderr)
    if error.hint:
        print(f"  Next: {error.hint}", file=streams.stderr)


def _tell_usage(streams: Streams, error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    if message:
        print(f"Error: {message}.", file=streams.stderr)
    path = context.command_path if context is not None else "plantml"
    print(f"  Next: {path} --help", file=streams.stderr)
    return int(Exit.USAGE)


def _tell_bug(streams: Streams, error: Exception, *, debug: bool) -> None:
    if debug:
        traceback.print_exc(file=streams.stderr)
    print(f"Error: plantml has a bug: {type(error).__name__}: {error}", file=streams.stderr)
    if not debug:
        print("  Next: repeat with --debug and report what it shows.", file=streams.stderr)


@contextlib.contextmanager
def _terminable():  # type: ignore[no-untyped-def]
    """SIGTERM ends a command like Ctrl-C does, with its own exit code."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TerminatedError("Terminated", "", "Repeat the command; what was finished is kept.")

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: a test or a host program owns the signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
