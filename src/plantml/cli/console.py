"""Streams, output options and progress of a command. Passed in, never global."""

import codecs
import contextlib
import functools
import io
import json as jsonlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from plantml.concurrency import Listener, Progress, silent

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from plantml.data.manifest import Version
    from plantml.settings import Machine

RESULT_FORMAT = 1
_PLAIN_EVERY = 10.0
_BAR_AFTER = 1.0

_PLAIN_TEXT, _JSON_TEXT = "plantml.text", "plantml.json"
"""Names of the two ways to write characters that the encoding of a stream lacks."""
_SIMILAR = {"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "×": "x", "±": "+-", "≥": ">=", "≤": "<=",
            "·": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "²": "2", "°": " deg"}  # fmt: skip


def _as_text(error: UnicodeError) -> tuple[str | bytes, int]:
    """Raw bytes of a file name that is not UTF-8; else a similar character or a backslash escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, after = error.object[error.start], error.start + 1
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), after
    return _SIMILAR.get(character) or character.encode("ascii", "backslashreplace").decode(), after


def _as_json(error: UnicodeError) -> tuple[str | bytes, int]:
    """An escape by the rules of JSON strings."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return jsonlib.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_PLAIN_TEXT, _as_text)
codecs.register_error(_JSON_TEXT, _as_json)


def _writable(stream: TextIO | None) -> TextIO:
    """A standard stream that accepts every text; one that was closed (`>&-`) discards it."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - stays open until the process exits
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_PLAIN_TEXT)
    return stream


@dataclass(frozen=True)
class Streams:
    """Standard input, output and error, which tests can replace.

    Writing text to output and error never fails because of their encoding.
    """

    stdin: BinaryIO = field(default_factory=lambda: sys.stdin.buffer if sys.stdin else io.BytesIO())
    stdout: TextIO = field(default_factory=lambda: _writable(sys.stdout))
    stderr: TextIO = field(default_factory=lambda: _writable(sys.stderr))

    def json_stdout(self) -> TextIO:
        """Standard output for a command that writes only JSON, which stays valid in every encoding."""
        if isinstance(self.stdout, io.TextIOWrapper):
            self.stdout.reconfigure(errors=_JSON_TEXT)
        return self.stdout


class Console:
    """One command's output: results to stdout, everything else to stderr."""

    def __init__(
        self,
        streams: Streams,
        command: str,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        offline: bool = False,
    ) -> None:
        self.streams, self._command = streams, command
        self.json, self.quiet, self.verbose = json, quiet, verbose
        self.offline = offline
        self.answered = False
        self._bar: RichProgress | None = None

    @functools.cached_property
    def machine(self) -> "Machine":
        """Threads, cache and network access of this machine."""
        from plantml.settings import machine  # pydantic would make every help page wait

        return machine(offline=self.offline)

    @property
    def listener(self) -> Listener:
        """What long work reports to."""
        return Listener(say=self.say, detail=self.detail, warn=self.warn, progress=self.progress)

    @property
    def interactive(self) -> bool:
        """True if stderr is a terminal."""
        return self.streams.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Print a message to stderr, unless `--quiet`."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print a message to stderr even with `--quiet`: cron mails it."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.streams.stderr, flush=True)

    def detail(self, text: str) -> None:
        """Print a message to stderr with `--verbose`."""
        if self.verbose:
            self.say(text)

    def result(self, content: Mapping[str, Any], show: Callable[["Page"], None]) -> None:
        """Print the result: one JSON document with `--json`, else the page that `show` writes."""
        self.close()
        if self.json:
            document = {"plantml_result": RESULT_FORMAT, "command": self._command, **content}
            print(jsonlib.dumps(document, ensure_ascii=False, indent=2), file=self.streams.json_stdout())
        else:
            show(Page(self.streams.stdout, hints=not self.quiet))
        self.streams.stdout.flush()
        self.answered = True

    @contextlib.contextmanager
    def relaying_log(self) -> Iterator[None]:
        """Print warnings that the library logs meanwhile, such as retries."""
        log, handler = logging.getLogger("plantml"), _LogHandler(self)
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)

    def progress(self, what: str) -> Progress:
        """Progress of long work: a bar on a terminal, else a line every ten seconds."""
        if self.quiet:
            return silent
        return self._drawn(what) if self.interactive else self._plain(what)

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _plain(self, what: str) -> Progress:
        started = last = time.monotonic()

        def update(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PLAIN_EVERY:
                last = now
                rate = done / max(now - started, 1e-9)
                left = f", about {_duration((total - done) / rate)} left" if total and rate else ""
                self.say(f"{what}: {done} of {total or '?'}, {rate:.3g}/s{left}")

        return update

    def _drawn(self, what: str) -> Progress:
        started = time.monotonic()
        task = None

        def update(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                if time.monotonic() - started < _BAR_AFTER:
                    return
                if self._bar is None:
                    self._bar = self._make_bar()
                task = self._bar.add_task(what, total=total or None)
            if self._bar is not None:
                self._bar.update(task, completed=done, total=total or None)
                if done >= total > 0:
                    self._bar.update(task, visible=False)

        return update

    def _make_bar(self) -> "RichProgress":
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        class _Speed(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.speed:.3g}/s" if task.speed else "")

        bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            TimeRemainingColumn(),
            console=RichConsole(file=self.streams.stderr),
            transient=True,
        )
        bar.start()
        return bar


class _LogHandler(logging.Handler):
    """Prints log records on a console."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        self._console.say(record.getMessage())


class Page:
    """A result as text; `hints` shows next commands."""

    def __init__(self, stream: TextIO, *, hints: bool = True) -> None:
        from rich.console import Console as RichConsole

        self._hints = hints

        # Rich assumes 80 columns if there is no terminal; a pipe has no width, so nothing is cut there.
        width = None if stream.isatty() else 200
        self._rich: RichConsole = RichConsole(file=stream, width=width, highlight=False, markup=False, emoji=False)

    def line(self, text: str = "", style: str | None = None) -> None:
        """A line of text."""
        self._rich.print(text, style=style, soft_wrap=True)

    def next(self, *commands: str) -> None:
        """The commands to run next."""
        for number, command in enumerate(commands):
            self.hint(f"{'      ' if number else 'Next: '}{command}")

    def hint(self, text: str) -> None:
        """A line that names a command, unless `--quiet`."""
        if self._hints:
            self.line(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
        """A table; numbers are right-aligned."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        cells = [[_cell(value) for value in row] for row in rows]
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
        for number, name in enumerate(columns):
            numeric = bool(cells) and all(_is_number(row[number]) for row in cells)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            table.add_row(*row)
        self._rich.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return not text.strip("0123456789.,%+-–")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_next(page: Page, version: "Version", dataset: str) -> None:
    """The next command for a dataset, and why it cannot be trained on yet."""
    from plantml.data import summary

    step = summary.next_step(version, dataset)
    if step.why:
        page.line(step.why)
    page.next(step.command)


def as_json(result: object, *hidden: str) -> dict[str, Any]:
    """The fields of a result, which are JSON types; a version of a dataset as its reference and fingerprint."""
    content = {key: value for key, value in vars(result).items() if key not in {"version", *hidden}}
    version = vars(result).get("version")
    return content if version is None else {"dataset": version.ref, "fingerprint": version.fingerprint, **content}


def count(number: int, one: str, many: str = "") -> str:
    """`1 photo`, `3 photos`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
