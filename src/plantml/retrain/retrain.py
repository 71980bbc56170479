"""`plantml retrain`: one round of the loop, from wherever an earlier call left it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plantml import registry, storage
from plantml.concurrency import Progress, silent
from plantml.errors import InputError, StoppedError, StorageError, UsageError
from plantml.registry import ledger
from plantml.retrain import consistency, data_steps, manual_commands, model_steps, report, rounds, triggers
from plantml.retrain.config import RetrainConfig
from plantml.retrain.lease import HeldStop, Lease
from plantml.retrain.round_context import Result, Work
from plantml.retrain.rounds import STEPS, Round
from plantml.settings import Machine

FUNCTIONS: Mapping[str, Callable[[Work], Result]] = {
    "add": data_steps.add,
    "clean": data_steps.clean,
    "split": data_steps.split,
    "production": model_steps.production,
    "train": model_steps.train,
    "predict": model_steps.predict,
    "compare": model_steps.compare,
    "choose": model_steps.choose,
    "register": model_steps.register,
    "report": report.report,
}
"""Every step: from the results before it to its own, the same again if it is done again."""

MEANING = {
    "add": "new labelled photos from the feeds",
    "clean": "check them, and clean by policy",
    "split": "place them around the frozen test set",
    "production": "the model in service",
    "train": "the challenger",
    "predict": "the test photos, with both",
    "compare": "both, on all, frozen and recent test photos",
    "choose": "by the gates",
    "register": "the challenger; promote it or not",
    "report": "and the hook",
}

_AT_ONCE = frozenset({"lease", "on_result"})
"""Settings that a round under way takes from now, not from when it began: they change no result."""


@dataclass(frozen=True)
class Listener:
    """Where the loop tells what it does; `warn` is for what somebody must see."""

    say: Callable[[str], None] = lambda _: None
    progress: Callable[[str], Progress] = lambda _: silent
    warn: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Retrained:
    """What a call came to.

    Attributes:
        outcome: `nothing to do`, `busy`, `waiting` (a step was asked for, and there is more to do), `promoted`,
            `refused`, `not promoted` (the model in service changed meanwhile) or `abandoned`; of a plan, `would begin`
            or `goes on`.
        reasons: why.
        round: number; 0 where there was none.
        done: steps that this call did.
        results: of all steps of the round so far.
        news: what there is to learn, where that was looked for.
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
    asked: RetrainConfig,
    *,
    machine: Machine,
    stop: HeldStop,
    step: str | None = None,
    listener: Listener | None = None,
) -> Retrained:
    """Do what there is to do: begin a round if it is time for one, or go on with the one that is open.

    Args:
        asked: the configuration; a round keeps that with which it began.
        machine: see `settings.Machine`.
        stop: asked after each step, and within the long ones.
        step: do this one only.
        listener: told what happens.

    Raises:
        InputError: the step waits for another one, or whatever a step found wrong with its input.
        StorageError: the step was not done, as somebody else works on the round.
        StoppedError: a signal came, or another machine took over; repeating the call goes on.
    """
    consistency.check(asked)
    if step is not None and step not in STEPS:
        raise UsageError(f"There is no step {step!r}", "", f"Steps: {', '.join(STEPS)}.")
    listener = listener or Listener()
    _check_work(asked)
    idle, _ = _look(asked, machine, step)
    if idle is not None:
        return _told(idle, listener)
    with _leased(asked, stop) as holder:
        if holder is not None:
            return _busy(asked, holder, step)
        idle, why = _look(asked, machine, step)  # what was true before the lease may be done by now
        if idle is not None:
            return _told(idle, listener)
        work = _opened(asked, why, machine, stop, listener)
        try:
            done = _steps(work, step)
        except StoppedError:
            if not stop.lost or step is not None:
                raise
            return Retrained("busy", ["another machine took the work over"], work.round.number)
        return _ended(work, done)


def abandon(asked: RetrainConfig, stop: HeldStop) -> Retrained:
    """Give the open round up: what it did to the dataset stays, its model does not go into service."""
    if not rounds.state(asked.work).open:
        return Retrained("nothing to do", ["no round is open"])
    with _leased(asked, stop) as holder:
        if holder is not None:
            return _busy(asked, holder, "--abandon")
        number = rounds.state(asked.work).open
        if not number:
            return Retrained("nothing to do", ["no round is open"])
        rounds.end(asked.work, number, {"outcome": "abandoned"})
        return Retrained("abandoned", ["as was asked for"], number)


def planned(asked: RetrainConfig, machine: Machine) -> tuple[Retrained, dict[str, list[str]]]:
    """What a call would do, and the ordinary commands of the steps that are left; nothing is changed."""
    consistency.check(asked)
    _check_work(asked)
    idle, why = _look(asked, machine, None)
    state = rounds.state(asked.work)
    number = state.open or max(state.begun, default=0) + 1
    begun = state.begun.get(number) or {"config": asked.model_dump(mode="json"), "base": 0}
    work = _work(asked, number, begun, machine=machine, stop=HeldStop(), listener=Listener())
    left = {name: manual_commands.of_step(work, name) for name in STEPS if name not in work.round.results}
    if idle is not None:
        return idle, {}
    goes_on = f"round {number} goes on at {work.round.next}"
    outcome = "goes on" if state.open else "would begin"
    return Retrained(outcome, [goes_on if state.open else why], number, (), work.round.results), left


def _look(asked: RetrainConfig, machine: Machine, step: str | None) -> tuple[Retrained | None, str]:
    """Why there is nothing to do, if there is nothing, and else why a round shall begin; writes nothing."""
    state = rounds.state(asked.work)
    if state.open:
        return None, ""
    if step not in {None, STEPS[0]}:
        return Retrained("nothing to do", ["no round is open"]), ""
    news = triggers.look(asked, state, offline=machine.offline)
    is_due, why = triggers.due(asked, news, state, machine)
    if news.unread and len(news.unread) == len(asked.feeds):
        source, said = next(iter(news.unread.items()))
        hint = "Look whether it is there; relative paths are those of the working directory."
        raise InputError("No feed can be read", f"{source}: {said}", hint)
    told = [f"feed {source} is left out: {said}" for source, said in news.unread.items()]
    told += [
        f"feed {source}: {count} photos have other labels there than in the dataset, which keeps its own: see relabel"
        for source, count in news.relabelled.items()
    ]
    return (None, why) if is_due else (Retrained("nothing to do", [why, *told], news=news.as_json()), "")


def _told(idle: Retrained, listener: Listener) -> Retrained:
    """What is left out belongs where cron looks, too."""
    for reason in idle.reasons[1:]:
        listener.warn(reason)
    return idle


def _check_work(asked: RetrainConfig) -> None:
    """Raise `UsageError` if the work folder is that of another loop, or the dataset is none."""
    if ledger.is_model(asked.dataset):
        raise UsageError(f"{asked.dataset} is a registered model", "dataset names the photos", "Name the dataset.")
    state = rounds.state(asked.work)
    for name in ("dataset", "model"):
        known = state.begun[max(state.begun)]["config"][name] if state.begun else getattr(asked, name)
        if storage.absolute(known) != getattr(asked, name):
            raise UsageError(
                f"The work folder {asked.work} is that of another loop", f"its {name} is {known}",
                "Each configuration needs a work folder of its own.",
            )  # fmt: skip


def _busy(asked: RetrainConfig, holder: Mapping[str, Any], step: str | None) -> Retrained:
    """Somebody else works: good news for a whole round, and a step that was not done."""
    who = f"{holder['host']}, process {holder['pid']}, works on it"
    if step is not None:
        what = "The round was not given up" if step == "--abandon" else f"Step {step} was not done"
        raise StorageError(what, who, "Repeat it later.")
    return Retrained("busy", [who], rounds.state(asked.work).open)


@contextlib.contextmanager
def _leased(asked: RetrainConfig, stop: HeldStop) -> Iterator[Mapping[str, Any] | None]:
    """The lease for the block, or who has it."""
    lease = Lease(rounds.log(asked.work), asked.lease)
    holder = lease.take()
    if holder is not None:
        yield holder
        return
    with lease:
        stop.lease = lease
        yield None


def _opened(asked: RetrainConfig, why: str, machine: Machine, stop: HeldStop, listener: Listener) -> Work:
    """The open round, or a new one, which begins because of `why`."""
    state = rounds.state(asked.work)
    if state.open:
        work = _work(asked, state.open, state.begun[state.open], machine=machine, stop=stop, listener=listener)
        listener.say(f"Round {state.open} goes on at {work.round.next or 'its end'}.")
        if work.config != asked:
            told = "The configuration was changed since; this round keeps the one that it began with"
            listener.warn(f"{told}. To give it up: plantml retrain CONFIG --abandon")
        return work
    head = triggers.head_of(asked.dataset)
    pinned = asked.model_dump(mode="json")
    content = {"config": pinned, "base": head.number if head else 0, "why": why, "by": registry.me()}
    number = rounds.begin(asked.work, content)
    listener.say(f"Round {number} begins: {why}.")
    begun = rounds.state(asked.work).begun[number]
    return _work(asked, number, begun, machine=machine, stop=stop, listener=listener)


def _work(
    asked: RetrainConfig,
    number: int,
    begun: Mapping[str, Any],
    *,
    machine: Machine,
    stop: HeldStop,
    listener: Listener,
) -> Work:
    pinned = RetrainConfig.model_validate(begun["config"])
    pinned = pinned.model_copy(update={name: getattr(asked, name) for name in _AT_ONCE})
    by = str(begun.get("by") or registry.me())
    place = Round(asked.work, number, begun)
    return Work(pinned, place, machine, by, stop, listener.say, listener.progress, listener.warn)


def _steps(work: Work, only: str | None) -> list[str]:
    done = []
    while (name := work.round.next) is not None and only not in work.round.results:
        if only is not None and name != only:
            raise InputError(
                f"Step {only} of round {work.round.number} waits for {name}",
                "each step takes the results of those before it",
                f"Do that one first: --step {name}",
            )
        if work.stop:
            raise work.stop.error(f"Stopped before step {name}", "Repeat the same command to go on.")
        _step(work, name)
        done.append(name)
    return done


def _step(work: Work, name: str) -> None:
    work.say(f"{STEPS.index(name) + 1}/{len(STEPS)} {name}: {MEANING[name]}")
    lines = manual_commands.of_step(work, name)
    for line in lines:
        work.say(f"    {line}")
    started = time.monotonic()
    result = FUNCTIONS[name](work)
    about = {"by": registry.me(), "seconds": round(time.monotonic() - started, 2), "commands": lines}
    work.round.record(name, result, about)


def _ended(work: Work, done: Sequence[str]) -> Retrained:
    results = work.round.results
    if work.round.next is not None:
        return Retrained("waiting", [f"next is {work.round.next}"], work.round.number, done, results)
    registered = results["register"]
    outcome = str(registered["outcome"])
    rounds.end(work.config.work, work.round.number, {"outcome": outcome, "version": registered["version"]})
    folder = storage.split(results["report"]["html"])[0]
    return Retrained(outcome, registered["reasons"], work.round.number, done, results, report=folder)
