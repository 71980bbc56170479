"""What can go wrong, and how it ends: every error knows its exit code and the next step.

An error says three things: what happened, why, and what to do next. Library code raises these;
one handler in `plantml.cli.app` turns them into a message and an exit code.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of the command line."""

    DONE = 0
    BUG = 1
    USAGE = 2
    INPUT = 3
    GATE = 4
    FAILURES = 5
    STORAGE = 6
    MISSING = 7
    INTERRUPTED = 130
    TERMINATED = 143


class PlantmlError(Exception):
    """Base of all errors that plantml raises on purpose.

    Args:
        what: one sentence: what happened.
        why: the cause, as far as it is known.
        hint: what to do next; a command where there is one.
    """

    exit_code = Exit.BUG

    answered = False
    """True if the command printed its result before it failed, as a gate does."""

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.hint = what, why, hint

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # The default would lose why and hint on the way out of a worker process.
        return type(self), (self.what, self.why, self.hint)


class UsageError(PlantmlError):
    """The command line or the arguments of a call make no sense together."""

    exit_code = Exit.USAGE


class InputError(PlantmlError):
    """Data, a dataset, a model or a config file is not what it should be."""

    exit_code = Exit.INPUT


class GateError(PlantmlError):
    """A check or gate that the user asked for did not pass."""

    exit_code = Exit.GATE


class FailuresError(PlantmlError):
    """The work is done, but more images failed than was allowed."""

    exit_code = Exit.FAILURES


class StorageError(PlantmlError):
    """Storage or network did not do what was asked."""

    exit_code = Exit.STORAGE


class NotFoundError(InputError):
    """There is nothing at that URL."""


class RefusedError(InputError):
    """What is at that URL is not read: a pipe, a device, a file beyond the limit."""


class DamagedError(StorageError):
    """Bytes are not those that their hash names."""


class AlreadyExistsError(StorageError):
    """Exclusive creation lost: somebody else created this URL first."""


class MissingExtraError(PlantmlError):
    """An optional part of plantml is not installed."""

    exit_code = Exit.MISSING

    def __init__(self, what: str, why: str = "", hint: str = "", *, extra: str = "") -> None:
        super().__init__(what, why, hint or f"Install it: pip install 'plantml[{extra}]'")


class StoppedError(PlantmlError):
    """A signal asked for the end: the work so far is saved."""

    exit_code = Exit.INTERRUPTED


class TerminatedError(StoppedError):
    """SIGTERM asked for the end: the work so far is saved."""

    exit_code = Exit.TERMINATED
