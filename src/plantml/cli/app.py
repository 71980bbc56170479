"""The table of commands, and the one handler of errors."""

import contextlib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn, TextIO

import typer

from plantml.about import __version__
from plantml.cli.command import group
from plantml.cli.console import RESULT_FORMAT, Streams
from plantml.concurrency import terminable
from plantml.errors import Exit, InputError, PlantmlError, StorageError
from plantml.loading import freeze, without_collection

_HELP = """Train and run image models for plant photos, from dataset to production.

Every path can be a URL: s3://, gs://, az://, https:// or memory://.
"""
_SIGPIPE = 141

COMMANDS = {
    "dataset": "Import, inspect, clean, split and compare datasets of photos.",
    "train": "Train a model on a dataset with splits.",
    "validate": "Validate a model on a split, with the same code as detect.",
    "export": "Export a model to another format, and verify it.",
    "detect": "Classify images and find plants, one record per image.",
    "models": "Register, compare, promote and distribute models.",
    "retrain": "Train a challenger on new photos; promote it if it is better.",
    "pipeline": "Write the retraining loop as a pipeline of another engine.",
    "serve": "Serve models over HTTP: an API, and a page for people.",
    "work": "Run the trainings that were requested on a server.",
    "demo": "Run the whole workflow on synthetic plant photos.",
    "doctor": "Check this machine and the storage that you name.",
}
"""Modules of `plantml.cli`, each with the command of its name, and the first line of its help page."""


def build(names: Collection[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands; where `names` has none, all are listed, but not imported."""
    app = group("plantml", _HELP)
    lists_all = not COMMANDS.keys() & set(names)
    for name, summary in COMMANDS.items():
        if name not in names:
            if lists_all:
                app.command(name, help=summary)(lambda: None)
            continue
        module = importlib.import_module(f"plantml.cli.{name}")
        if hasattr(module, "COMMANDS"):
            app.add_typer(inner := group(name, summary))
            for add_to in module.COMMANDS:
                add_to(inner)
        else:
            getattr(module, name)(app)

    @app.callback(invoke_without_command=True)
    def root(
        ctx: typer.Context, version: bool = typer.Option(False, "--version", help="Show the version and exit.")
    ) -> None:
        if version:
            print(f"plantml {__version__}", file=ctx.obj.stdout)
            raise typer.Exit

    root.__doc__ = _HELP
    return app


def run(argv: Sequence[str], streams: Streams | None = None) -> int:
    """Run one command line and return its exit code."""
    streams = streams or Streams()
    # Help pages are printed by typer, which knows the real streams only.
    with terminable(), contextlib.redirect_stdout(streams.stdout), contextlib.redirect_stderr(streams.stderr):
        code = _exit_code(streams, argv, lambda: _run(argv, streams))
        # Output that is still in a buffer may fail to be written; that is an error, too.
        return _exit_code(streams, argv, lambda: _flush(streams, code))


def _run(argv: Sequence[str], streams: Streams) -> int:
    try:
        with without_collection():
            app = build(argv[:1])
        result = app(list(argv), standalone_mode=False, obj=streams, prog_name="plantml")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which typer turns into exit code 1
            raise end.__context__ from None
        raise
    return result if isinstance(result, int) else int(Exit.DONE)


def _flush(streams: Streams, code: int) -> int:
    streams.stdout.flush()
    return code


def _exit_code(streams: Streams, argv: Sequence[str], work: Callable[[], int]) -> int:
    """The exit code of the work, even if the streams are closed."""
    try:
        return _report(streams, argv, work)
    except BrokenPipeError:  # the reader of our output left
        code = _SIGPIPE
    except OSError:
        code = int(Exit.STORAGE)
    for stream in (streams.stdout, streams.stderr):
        _redirect_if_closed(stream)
    return code


def _report(streams: Streams, argv: Sequence[str], work: Callable[[], int]) -> int:
    """The exit code of the work; prints its error."""
    asks_json, debug = "--json" in argv, "--debug" in argv
    try:
        return work()
    except PlantmlError as error:
        return _print_error(streams, error, asks_json=asks_json, debug=debug)
    except typer.TyperException as error:
        return _print_usage_error(streams, error)
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=streams.stderr)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - anything else is a bug or a limit of this machine
        limit = _limit(error, of_stdout=_redirect_if_closed(streams.stdout))
        if limit is None:
            return _print_bug(streams, error, debug=debug)
        return _print_error(streams, limit, asks_json=asks_json, debug=debug)


def _redirect_if_closed(stream: TextIO) -> bool:
    """Redirect a stream that can no longer be written, so that its last flush does not fail; true if so."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


def _limit(error: Exception, *, of_stdout: bool) -> PlantmlError | None:
    """An error for a limit of the machine or its operating system; `None` for a bug."""
    from plantml import storage

    if isinstance(error, MemoryError):
        return StorageError("Out of memory", str(error), _HINTS[errno.ENOMEM])
    if isinstance(error, RecursionError):
        return InputError(
            "The input is nested too deeply", str(error), f"If no input file is nested like that: {_REPORT}"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return StorageError("No more threads can be started", str(error), _HINTS[errno.EAGAIN])
    if isinstance(error, UnicodeEncodeError) and not storage.is_unicode(error.object):
        return InputError("A name is not UTF-8", error.object[:300], "Rename the file or folder.")
    if isinstance(error, OSError) and error.errno is not None:
        what = "Could not write to standard output" if of_stdout else "The operating system refused a request"
        return StorageError(what, str(error), _HINTS.get(error.errno, f"If the reason is unclear: {_REPORT}"))
    return None


_REPORT = "repeat with --debug and report what it shows."
_MORE_FILES = "Raise the limit (ulimit -n), or use fewer --threads."
_HINTS = {
    errno.ENOSPC: "Make room on the disk, or choose another location. Finished work is kept.",
    errno.EDQUOT: "Make room within the quota, or choose another location. Finished work is kept.",
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: _MORE_FILES,
    errno.EAGAIN: "Raise the limit on processes (ulimit -u), or use fewer --threads.",
    errno.ENOMEM: "Close other programs, or use a smaller --batch, --size or --threads.",
    errno.EROFS: "Choose a writable location.",
    errno.EACCES: "Check the permissions of the file.",
}


def main() -> NoReturn:
    """The console script."""
    _use_utf8()
    # pydantic would read the metadata of every installed package to look for plug-ins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # numpy's threads for linear algebra would spin for a while after they start, one on each core.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    code = run(sys.argv[1:])
    freeze()  # saves up to 70 ms of garbage collection at exit
    sys.exit(code)


def _use_utf8() -> None:
    """Restart in Python's UTF-8 mode if the locale, such as C or latin-1, gives file names another encoding.

    Names in a manifest must not depend on the locale, and every name must be possible. Printed text keeps the
    encoding of the terminal.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.execv(sys.executable, [os.fsencode(word) for word in sys.orig_argv])  # noqa: S606 - no shell is wanted


def _print_error(streams: Streams, error: PlantmlError, *, asks_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=streams.stderr)
    if asks_json and not error.answered:  # one document on stdout, not two
        import json

        content = {"what": error.what, "why": error.why, "hint": error.hint, "exit_code": int(error.exit_code)}
        print(
            json.dumps({"plantml_result": RESULT_FORMAT, "error": content}, indent=2), file=streams.stdout, flush=True
        )
    print(f"Error: {error.what}.", file=streams.stderr)
    if error.why:
        print(f"  Why: {error.why}", file=streams.stderr)
    if error.hint:
        print(f"  Next: {error.hint}", file=streams.stderr)
    return int(error.exit_code)


def _print_usage_error(streams: Streams, error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    if message:
        print(f"Error: {message}.", file=streams.stderr)
    path = context.command_path if context is not None else "plantml"
    print(f"  Next: {path} --help", file=streams.stderr)
    return int(Exit.USAGE)


def _print_bug(streams: Streams, error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=streams.stderr)
    print(f"Error: plantml has a bug: {type(error).__name__}: {error}", file=streams.stderr)
    if not debug:
        print(f"  Next: {_REPORT}", file=streams.stderr)
    return int(Exit.BUG)
