"""`plantml retrain`: run one round of the loop, or resume an unfinished one."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plantml import registry, storage
from plantml.concurrency import Listener
from plantml.errors import InputError, StoppedError, StorageError, UsageError
from plantml.registry import ledger
from plantml.retrain import consistency, data_steps, manual_commands, model_steps, report, rounds, triggers
from plantml.retrain.config import RetrainConfig
from plantml.retrain.rounds import Result, Round, Work
from plantml.settings import Machine
from plantml.storage.lease import Lease, LeaseStop


@dataclass(frozen=True)
class Step:
    """A step of a round: a function that can be run again, and what it does, for the progress line."""

    run: Callable[[Work], Result]
    about: str


STEPS: Mapping[str, Step] = {
    "add": Step(data_steps.add, "import new labelled photos from the feeds"),
    "clean": Step(data_steps.clean, "check and clean them by the policy"),
    "split": Step(data_steps.split, "split them around the frozen test set"),
    "production": Step(model_steps.production, "find the model in service"),
    "train": Step(model_steps.train, "train the challenger"),
    "predict": Step(model_steps.predict, "predict the test photos with both models"),
    "compare": Step(model_steps.compare, "compare both on all, frozen and recent test photos"),
    "choose": Step(model_steps.choose, "decide by the gates"),
    "register": Step(model_steps.register, "register the challenger, and promote it if chosen"),
    "report": Step(report.report, "write the report and call the hook"),
}
"""The steps by name, in the order in which they run; `rounds.STEPS` numbers their results."""

_UPDATABLE = frozenset({"lease", "on_result"})
"""Settings that a resumed round takes from the current configuration, as they change no result."""


@dataclass(frozen=True)
class RetrainResult:
    """Result of a call.

    Attributes:
        outcome: `nothing to do`, `busy`, `waiting` (a single step is done, others are left), `promoted`, `refused`,
            `not promoted` (the model in service changed in the meantime) or `abandoned`; for a plan, `would begin` or
            `would resume`.
        reasons: reasons for the outcome.
        round: number; 0 for none.
        done: steps that this call ran.
        results: of all steps of the round so far.
        news: what is new, if that was checked.
        report: URL of the report's folder; empty without one.
    """

    outcome: str
    reasons: Sequence[str]
    round: int = 0
    done: Sequence[str] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    news: Mapping[str, Any] | None = None
    report: str = ""


def retrain(
    config: RetrainConfig,
    *,
    machine: Machine,
    stop: LeaseStop,
    step: str | None = None,
    listener: Listener = Listener(),  # noqa: B008 - frozen
) -> RetrainResult:
    """Begin a round if one is due, or resume the open one.

    A round keeps the configuration it began with. `stop` is checked after each step, and within long ones.

    Raises:
        InputError: an earlier step must run first, or a step rejects its input.
        StorageError: the single step did not run, as another process works on the round.
        StoppedError: a signal arrived, or another machine took over; repeating the call resumes.
    """
    consistency.check(config)
    if step is not None and step not in STEPS:
        raise UsageError(f"There is no step {step!r}", "", f"Steps: {', '.join(STEPS)}.")
    _check_work(config)
    idle, _ = _find_reason(config, machine, step)
    if idle is not None:
        return _warn(idle, listener)
    with _leased(config, stop) as holder:
        if holder is not None:
            return _busy(config, holder, step)
        idle, why = _find_reason(config, machine, step)  # another machine may have done it before the lease was taken
        if idle is not None:
            return _warn(idle, listener)
        work = _open_round(config, why, machine, stop, listener)
        try:
            done = _run_steps(work, step)
        except StoppedError:
            if not stop.lost or step is not None:
                raise
            return RetrainResult("busy", ["another machine took over"], work.round.number)
        return _finish(work, done)


def abandon(config: RetrainConfig, stop: LeaseStop) -> RetrainResult:
    """Abandon the open round: its changes to the dataset stay, its model is not promoted."""
    if not rounds.state(config.work).open:
        return RetrainResult("nothing to do", ["no round is open"])
    with _leased(config, stop) as holder:
        if holder is not None:
            return _busy(config, holder, "--abandon")
        number = rounds.state(config.work).open
        if not number:
            return RetrainResult("nothing to do", ["no round is open"])
        rounds.end(config.work, number, {"outcome": "abandoned"})
        return RetrainResult("abandoned", ["by --abandon"], number)


def plan(config: RetrainConfig, machine: Machine) -> tuple[RetrainResult, dict[str, list[str]]]:
    """What a call would do, and the command lines of the remaining steps; changes nothing."""
    consistency.check(config)
    _check_work(config)
    idle, why = _find_reason(config, machine, None)
    if idle is not None:
        return idle, {}
    state = rounds.state(config.work)
    number = state.open or max(state.begun, default=0) + 1
    begun = state.begun.get(number) or {"config": config.model_dump(mode="json"), "base": 0}
    work = _work(config, number, begun, machine=machine, stop=LeaseStop(), listener=Listener())
    commands = {name: manual_commands.commands_for(work, name) for name in STEPS if name not in work.round.results}
    outcome = "would resume" if state.open else "would begin"
    reason = f"round {number} resumes at {work.round.next}" if state.open else why
    return RetrainResult(outcome, [reason], number, (), work.round.results), commands


def _find_reason(config: RetrainConfig, machine: Machine, step: str | None) -> tuple[RetrainResult | None, str]:
    """The result if there is nothing to do, or else the reason to begin a round; writes nothing."""
    state = rounds.state(config.work)
    if state.open:
        return None, ""
    if step not in {None, rounds.STEPS[0]}:
        return RetrainResult("nothing to do", ["no round is open"]), ""
    news = triggers.find_news(config, state, offline=machine.offline)
    is_due, why = triggers.due(config, news, state, machine)
    if news.unread and len(news.unread) == len(config.feeds):
        source, error = next(iter(news.unread.items()))
        hint = "Check that it exists; relative paths start at the working directory."
        raise InputError("No feed can be read", f"{source}: {error}", hint)
    warnings = [f"feed {source} is left out: {error}" for source, error in news.unread.items()]
    warnings += [
        f"feed {source}: labels of {count} photos differ from the dataset, which keeps its own; see dataset relabel"
        for source, count in news.relabelled.items()
    ]
    return (None, why) if is_due else (RetrainResult("nothing to do", [why, *warnings], news=news.as_json()), "")


def _warn(idle: RetrainResult, listener: Listener) -> RetrainResult:
    """Warn about feeds that are left out, so that cron reports them."""
    for reason in idle.reasons[1:]:
        listener.warn(reason)
    return idle


def _check_work(config: RetrainConfig) -> None:
    """Raise `UsageError` if the work folder belongs to another configuration, or the dataset is a model."""
    if ledger.is_model(config.dataset):
        raise UsageError(f"{config.dataset} is a registered model", "`dataset` must be a dataset", "Name the dataset.")
    state = rounds.state(config.work)
    for name in ("dataset", "model"):
        known = state.begun[max(state.begun)]["config"][name] if state.begun else getattr(config, name)
        if storage.absolute(known) != getattr(config, name):
            raise UsageError(
                f"The work folder {config.work} belongs to another configuration", f"its {name} is {known}",
                "Use a separate work folder for each configuration.",
            )  # fmt: skip


def _busy(config: RetrainConfig, holder: Mapping[str, Any], step: str | None) -> RetrainResult:
    """Another process holds the lease: no error for a whole round, but an error for a single step."""
    who = f"{holder['host']}, process {holder['pid']}, is working on it"
    if step is not None:
        what = "The round was not abandoned" if step == "--abandon" else f"Step {step} did not run"
        raise StorageError(what, who, "Repeat the command later.")
    return RetrainResult("busy", [who], rounds.state(config.work).open)


@contextlib.contextmanager
def _leased(config: RetrainConfig, stop: LeaseStop) -> Iterator[Mapping[str, Any] | None]:
    """Hold the lease for the block; yields its holder if another process has it."""
    lease = Lease(rounds.log(config.work), config.lease)
    holder = lease.take()
    if holder is not None:
        yield holder
        return
    with lease:
        stop.lease = lease
        yield None


def _open_round(config: RetrainConfig, why: str, machine: Machine, stop: LeaseStop, listener: Listener) -> Work:
    """The open round, or a new one with `why` as its reason."""
    state = rounds.state(config.work)
    if state.open:
        work = _work(config, state.open, state.begun[state.open], machine=machine, stop=stop, listener=listener)
        listener.say(f"Round {state.open} resumes at {work.round.next or 'its end'}.")
        if work.config != config:
            changed = "The configuration has changed; this round keeps the one it began with"
            listener.warn(f"{changed}. To abandon it: plantml retrain CONFIG --abandon")
        return work
    head = triggers.head_of(config.dataset)
    content = {
        "config": config.model_dump(mode="json"),
        "base": head.number if head else 0,
        "why": why,
        "by": config.by or registry.current_user(),
    }
    number = rounds.begin(config.work, content)
    listener.say(f"Round {number} begins: {why}.")
    begun = rounds.state(config.work).begun[number]
    return _work(config, number, begun, machine=machine, stop=stop, listener=listener)


def _work(
    config: RetrainConfig,
    number: int,
    begun: Mapping[str, Any],
    *,
    machine: Machine,
    stop: LeaseStop,
    listener: Listener,
) -> Work:
    fixed = RetrainConfig.model_validate(begun["config"])
    fixed = fixed.model_copy(update={name: getattr(config, name) for name in _UPDATABLE})
    by = str(begun.get("by") or registry.current_user())
    open_round = Round(config.work, number, begun)
    return Work(fixed, open_round, machine, by, stop, listener)


def _run_steps(work: Work, only: str | None) -> list[str]:
    done = []
    while (name := work.round.next) is not None and only not in work.round.results:
        if only is not None and name != only:
            raise InputError(
                f"Step {only} of round {work.round.number} needs step {name}",
                "each step uses the results of those before it",
                f"Run that one first: --step {name}",
            )
        if work.stop:
            raise work.stop.error(f"Stopped before step {name}", "Repeat the same command to resume.")
        _run_step(work, name)
        done.append(name)
    return done


def _run_step(work: Work, name: str) -> None:
    work.listener.say(f"{rounds.STEPS.index(name) + 1}/{len(STEPS)} {name}: {STEPS[name].about}")
    commands = manual_commands.commands_for(work, name)
    for command in commands:
        work.listener.say(f"    {command}")
    started = time.monotonic()
    result = STEPS[name].run(work)
    about = {"by": registry.current_user(), "seconds": round(time.monotonic() - started, 2), "commands": commands}
    work.round.record(name, result, about)


def _finish(work: Work, done: Sequence[str]) -> RetrainResult:
    results = work.round.results
    if work.round.next is not None:
        return RetrainResult("waiting", [f"next is {work.round.next}"], work.round.number, done, results)
    registered = results["register"]
    outcome = str(registered["outcome"])
    rounds.end(work.config.work, work.round.number, {"outcome": outcome, "version": registered["version"]})
    folder = storage.split(results["report"]["html"])[0]
    return RetrainResult(outcome, registered["reasons"], work.round.number, done, results, report=folder)
