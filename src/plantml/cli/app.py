"""The table of commands, and the one handler of errors."""

import contextlib
import errno
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

import typer

import plantml
from plantml.cli.command import group
from plantml.cli.console import RESULT_FORMAT, Streams
from plantml.concurrency import terminable
from plantml.errors import Exit, InputError, PlantmlError, StorageError

_HELP = """From a folder of plant photos to a model that a machine can trust.

Every path may be a URL: a local path, s3://, gs://, az://, https://, memory://.
"""
_SIGPIPE = 141

COMMANDS = ("dataset", "train", "validate", "export", "detect", "models", "retrain", "demo", "doctor")
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
    # Help pages are printed by typer, which knows the real streams only.
    with terminable(), contextlib.redirect_stdout(streams.stdout), contextlib.redirect_stderr(streams.stderr):
        code = _ending(streams, argv, lambda: _run(argv, streams))
        # What is still in a buffer is lost if it cannot be written: that is an error too, and not the interpreter's.
        return _ending(streams, argv, lambda: _flushed(streams, code))


def _run(argv: Sequence[str], streams: Streams) -> int:
    try:
        result = build(argv[0] if argv else "")(list(argv), standalone_mode=False, obj=streams, prog_name="plantml")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which typer takes for itself, and ends with code 1
            raise end.__context__ from None
        raise
    return result if isinstance(result, int) else int(Exit.DONE)


def _flushed(streams: Streams, code: int) -> int:
    streams.stdout.flush()
    return code


def _ending(streams: Streams, argv: Sequence[str], work: Callable[[], int]) -> int:
    """The exit code of the work, also where nobody can be told how it ended."""
    try:
        return _told(streams, argv, work)
    except BrokenPipeError:  # whoever read our output has enough
        code = _SIGPIPE
    except OSError:
        code = int(Exit.STORAGE)
    for stream in (streams.stdout, streams.stderr):
        _silenced(stream)
    return code


def _told(streams: Streams, argv: Sequence[str], work: Callable[[], int]) -> int:
    """The exit code of the work, whose error is printed."""
    asks_json, debug = "--json" in argv, "--debug" in argv
    try:
        return work()
    except PlantmlError as error:
        return _tell(streams, error, asks_json=asks_json, debug=debug)
    except typer.TyperException as error:
        return _tell_usage(streams, error)
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=streams.stderr)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever comes here is a bug, or this machine has no more to give
        limit = _limit(error, of_stdout=_silenced(streams.stdout))
        if limit is None:
            return _tell_bug(streams, error, debug=debug)
        return _tell(streams, limit, asks_json=asks_json, debug=debug)


def _silenced(stream: TextIO) -> bool:
    """True if a stream takes nothing more; it then points elsewhere, so that its last flush does not fail again."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


def _limit(error: Exception, *, of_stdout: bool) -> PlantmlError | None:
    """What the machine or its operating system refused, for all that nothing closer explained; `None` for a bug."""
    from plantml import storage

    if isinstance(error, MemoryError):
        return StorageError("Out of memory", str(error), _HINTS[errno.ENOMEM])
    if isinstance(error, RecursionError):
        return InputError("The input is nested too deep", str(error), f"If no file here is like that: {_REPORT}")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return StorageError("No more threads can be started", str(error), _HINTS[errno.EAGAIN])
    if isinstance(error, UnicodeEncodeError) and not storage.is_unicode(error.object):
        return InputError("A name is not UTF-8", error.object[:300], "Rename the file or folder.")
    if isinstance(error, OSError) and error.errno is not None:
        what = "Could not write to standard output" if of_stdout else "The operating system refused a request"
        return StorageError(what, str(error), _HINTS.get(error.errno, f"If that explains nothing: {_REPORT}"))
    return None


_REPORT = "repeat with --debug and report what it shows."
_MORE_FILES = "Raise the limit (ulimit -n), or work with fewer --threads."
_HINTS = {
    errno.ENOSPC: "Make room on the disk, or name another place. What was finished is kept.",
    errno.EDQUOT: "Make room within the quota, or name another place. What was finished is kept.",
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: _MORE_FILES,
    errno.EAGAIN: "Raise the limit on processes (ulimit -u), or work with fewer --threads.",
    errno.ENOMEM: "Close other programs, or work on less at once: a smaller --batch, --size or --threads.",
    errno.EROFS: "Name a place that can be written.",
    errno.EACCES: "Check the permissions of the file.",
}


def main() -> NoReturn:
    """The console script."""
    _use_utf8()
    # pydantic would read what every installed package says of itself, to look for plug-ins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    code = run(sys.argv[1:])
    if "torch" not in sys.modules:  # whose compiler counts what is left at the end, and calls it leaked
        gc.freeze()  # else the interpreter looks through all objects several times before it ends, for up to 70 ms
    sys.exit(code)


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where a locale such as C or latin-1 gives file names another encoding.

    Names in a manifest must not depend on the locale that it was made in, and every name must be possible. What is
    printed keeps the encoding of the terminal.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.execv(sys.executable, [os.fsencode(word) for word in sys.orig_argv])  # noqa: S606 - no shell is wanted


def _tell(streams: Streams, error: PlantmlError, *, asks_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=streams.stderr)
    if asks_json and not error.answered:  # one document on stdout, not two
        import json

        content = {
            "what": error.what,
            "why": error.why,
            "hint": error.hint,
            "exit_code": int(error.exit_code),
        }
        print(
            json.dumps({"plantml_result": RESULT_FORMAT, "error": content}, indent=2), file=streams.stdout, flush=True
        )
    print(f"Error: {error.what}.", file=streams.stderr)
    if error.why:
        print(f"  Why: {error.why}", file=streams.stderr)
    if error.hint:
        print(f"  Next: {error.hint}", file=streams.stderr)
    return int(error.exit_code)


def _tell_usage(streams: Streams, error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    if message:
        print(f"Error: {message}.", file=streams.stderr)
    path = context.command_path if context is not None else "plantml"
    print(f"  Next: {path} --help", file=streams.stderr)
    return int(Exit.USAGE)


def _tell_bug(streams: Streams, error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=streams.stderr)
    print(f"Error: plantml has a bug: {type(error).__name__}: {error}", file=streams.stderr)
    if not debug:
        print(f"  Next: {_REPORT}", file=streams.stderr)
    return int(Exit.BUG)
