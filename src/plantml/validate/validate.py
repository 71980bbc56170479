"""`plantml validate`: a model's answers for a dataset's photos, held against the labels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from plantml import __version__, metrics, storage
from plantml.concurrency import Progress, Stop, silent
from plantml.errors import InputError, UsageError
from plantml.metrics import Interval, Report
from plantml.metrics.bootstrap import LEVEL
from plantml.model.bundle import Contract
from plantml.model.pipeline import Pipeline, Prediction
from plantml.model.records import allowed_failures
from plantml.targets import Target
from plantml.validate import (
    ci_reports,
    compare,
    gates,
    leaks,
    prediction_tables,
    review,
    robustness,
    scoring,
    selection,
    slices,
)
from plantml.validate import predictions as answers
from plantml.validate.compare import Comparison
from plantml.validate.config import ValidateConfig
from plantml.validate.gates import Gate
from plantml.validate.leaks import Leaks
from plantml.validate.prediction_cache import Kept, identity
from plantml.validate.predictions import Answers
from plantml.validate.robustness import Robustness
from plantml.validate.scoring import Answered, Judgement
from plantml.validate.selection import DATASET, Photos
from plantml.validate.slices import Slice

METRICS_FORMAT = 2
METRICS = "metrics.json"

__all__ = ["METRICS", "METRICS_FORMAT", "Machine", "ValidateConfig", "Validated", "as_json", "validate"]


@dataclass(frozen=True)
class Machine:
    """What a validation has around it.

    Attributes:
        cache: folder in which answers are kept.
        stop: asks for the end.
        progress: makes a listener for one part of the work.
    """

    cache: Path
    stop: Stop
    progress: Callable[[str], Progress] = lambda _: silent


@dataclass(frozen=True)
class Validated:
    """What a validation found.

    Attributes:
        versions: reference, fingerprint and judged photos of each dataset.
        split: judged.
        model: digest.
        contract: of the model.
        photos: that were judged.
        failed: name and reason of photos that gave no answer; they count as nothing in the scores.
        reports: by target that model and dataset share and that is labelled.
        scores: headline numbers.
        intervals: of all scores that have one.
        groups: of photos, which the intervals are over.
        decisions: photos by decision.
        slices: the worst first.
        leaks: score without what the model has as good as seen; `None` where its training photos are not known.
        robustness: if it was asked for.
        comparison: with another model, if one was named.
        gates: judged ones.
        left_out: by target, photos whose class a model does not know.
        review: photos to label next.
        out: URL of the folder that was written, or none.
        written: URLs of single files that were written.
        allowed: photos without an answer that still end well.
        new: answers that were computed now.
        config: what was asked.
    """

    versions: Sequence[tuple[str, str, int]]
    split: str
    model: str
    contract: Contract
    photos: int
    failed: Sequence[tuple[str, str]]
    reports: Sequence[Report]
    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    groups: int
    decisions: Mapping[str, int]
    slices: Sequence[Slice]
    leaks: Leaks | None
    robustness: Robustness | None
    comparison: Comparison | None
    gates: Sequence[Gate]
    left_out: Mapping[str, int]
    review: int
    out: str | None
    written: Sequence[str]
    allowed: int
    new: int
    config: ValidateConfig

    @property
    def dataset(self) -> str:
        """References of the versions."""
        return ", ".join(ref for ref, _, _ in self.versions)

    @property
    def passed(self) -> bool:
        """True if no gate failed."""
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True)
class Work:
    """What the outputs are made from.

    Attributes:
        result: of the validation.
        pipeline: of the model.
        selected: the photos.
        answers: to them.
        answered: places of photos with an answer, whose numbers are in
        found: labels and outputs.
        theirs: answers of the other model, and its targets.
    """

    result: Validated
    pipeline: Pipeline
    selected: Photos
    answers: Answers
    answered: Sequence[int]
    found: Answered
    theirs: tuple[Answers, Sequence[Target]] | None


def validate(
    refs: str | Sequence[str],
    pipeline: Pipeline,
    config: ValidateConfig,
    *,
    machine: Machine,
    other: Pipeline | None = None,
) -> Validated:
    """Judge a model on a split of one or more datasets, and write what the settings ask for.

    Args:
        refs: datasets.
        pipeline: of the model.
        config: what is asked.
        machine: cache, signals, progress.
        other: model to compare with, which `config.against` names.

    Raises:
        InputError: the split is empty, model and dataset share no target, or a label is unknown to the
            model; it is named.
        UsageError: a gate names a number that there is not, or what is asked for contradicts itself.
        StoppedError: a signal came; the answers so far are kept.
    """
    wanted = [*gates.parse("min", config.min), *gates.parse("max", config.max)]
    _check(config, other)
    models = [each.bundle.contract.targets for each in (pipeline, other) if each is not None]
    selected = selection.select([refs] if isinstance(refs, str) else refs, models, config)
    said = _predict(pipeline, selected.rows, "validating", config, machine)
    theirs = _predict(other, selected.rows, "the other model", config, machine) if other else None
    places = [at for at in said.answered if theirs is None or theirs.predictions[at].probabilities is not None]
    found = scoring.answered(selected.targets, selected, said, places)
    judgement = scoring.judge(found, resamples=config.resamples, seed=config.seed)
    comparison = None
    their_targets: list[Target] = []
    if other and theirs:
        their_targets = _theirs(selected.targets, other.bundle.contract.targets)
        if not their_targets:
            raise InputError(
                "The two models share no target with labels",
                f"the other one predicts {', '.join(target.name for target in other.bundle.contract.targets)}",
            )
        others = scoring.answered(their_targets, selected, theirs, places)
        judged = scoring.judge(others, resamples=config.resamples, seed=config.seed)
        comparison = compare.compare(
            config.against or "",
            other.bundle.digest,
            (found, judgement),
            (others, judged),
            names=selected.rows["name"].gather(places).to_list(),
            max_drop=config.max_drop,
            same_model=other.bundle.digest == pipeline.bundle.digest,
        )
    passed = gates.judge(wanted, judgement.every, judgement.intervals) if wanted else []
    rows = selected.rows[places]
    trained = leaks.training_rows(selected.versions, pipeline.bundle.contract)
    result = Validated(
        versions=[
            (version.ref, version.fingerprint, int((selected.rows[DATASET] == version.ref).sum()))
            for version in selected.versions
        ],
        split=config.split,
        model=pipeline.bundle.digest,
        contract=pipeline.bundle.contract,
        photos=len(said.predictions),
        failed=_failed(selected.rows, said.predictions, theirs),
        reports=judgement.reports,
        scores=judgement.scores,
        intervals=judgement.intervals,
        groups=found.groups.count,
        decisions=_decisions(said.predictions),
        slices=slices.slices(
            found, rows, _learnt(trained, selected.targets), resamples=config.resamples, seed=config.seed
        ),
        leaks=_leaks(trained, selected, said, places, judgement, config=config),
        robustness=_robustness(pipeline, selected, config, machine) if config.robustness else None,
        comparison=comparison,
        gates=[*passed, *(comparison.gates if comparison else ())],
        left_out=selected.left_out,
        review=0,
        out=storage.absolute(config.out) if config.out else None,
        written=(),
        allowed=allowed_failures(config.max_failures, len(said.predictions)),
        new=said.new + (theirs.new if theirs else 0),
        config=config,
    )
    both = (theirs, their_targets) if theirs else None
    return _write(Work(result, pipeline, selected, said, places, found, both), machine)


def _check(config: ValidateConfig, other: Pipeline | None) -> None:
    if config.max_drop is not None and other is None:
        raise UsageError("--max-drop compares with nothing", "", "Name the other model: --against RUN")
    if config.review and not config.out:
        raise UsageError("--review has no place to write to", "", "Name a folder: --out DIR")


def _kept(pipeline: Pipeline, what: str, config: ValidateConfig, machine: Machine) -> Kept:
    model = identity(pipeline.bundle, pipeline.runtime.name, config.device)
    return Kept.open(machine.cache, model, what, fresh=config.fresh)


def _predict(pipeline: Pipeline, rows: pl.DataFrame, name: str, config: ValidateConfig, machine: Machine) -> Answers:
    kept = _kept(pipeline, "photos", config, machine)
    return answers.predict(pipeline, rows, kept, machine.stop, machine.progress(name))


def _theirs(ours: Sequence[Target], targets: Sequence[Target]) -> list[Target]:
    """The other model's targets that ours has too; with its own classes."""
    by_name = {target.name: target for target in targets}
    return [by_name[each.name] for each in ours if each.name in by_name and by_name[each.name].kind == each.kind]


def _learnt(trained: pl.DataFrame, targets: Sequence[Target]) -> dict[str, dict[str, int]]:
    """By class target, training photos of each class."""
    return {
        target.name: dict(trained[target.name].drop_nulls().value_counts().iter_rows())
        for target in targets
        if target.kind == "class" and target.name in trained.columns
    }


def _leaks(
    trained: pl.DataFrame,
    selected: Photos,
    said: Answers,
    places: Sequence[int],
    raw: Judgement,
    *,
    config: ValidateConfig,
) -> Leaks | None:
    if trained.is_empty():
        return None
    leaked = leaks.seen(selected.rows[list(places)], trained)
    clean = None
    rest = [at for at, seen in zip(places, leaked, strict=True) if not seen]
    if leaked.any() and rest:
        found = scoring.answered(selected.targets, selected, said, rest)
        clean = scoring.judge(found, resamples=config.resamples, seed=config.seed)
    return leaks.leaks(leaked, trained.height, raw, clean)


def _robustness(pipeline: Pipeline, selected: Photos, config: ValidateConfig, machine: Machine) -> Robustness:
    return robustness.robustness(
        pipeline,
        selected,
        _kept(pipeline, "changed", config, machine),
        most=config.robustness_photos,
        seed=config.seed,
        stop=machine.stop,
        progress=machine.progress("changed photos"),
    )


def _failed(rows: pl.DataFrame, predictions: Sequence[Prediction], theirs: Answers | None) -> list[tuple[str, str]]:
    found = []
    for at, (name, prediction) in enumerate(zip(rows["name"], predictions, strict=True)):
        failure = prediction.record.failure or (theirs.predictions[at].record.failure if theirs else None)
        if failure is not None:
            found.append((name, failure))
    return found


def _decisions(predictions: Sequence[Prediction]) -> dict[str, int]:
    made = [found.record.decision for found in predictions if found.record.decision]
    return {name: made.count(name) for name in ("accept", "review", "unknown")}


# --- what is written --------------------------------------------------------------------------


def _write(work: Work, machine: Machine) -> Validated:
    from plantml.validate import report

    config = work.result.config
    files: dict[str, bytes] = {}
    result = work.result
    if config.review:
        found = _review(work, machine)
        files |= found
        result = replace(result, review=sum(name.startswith(f"{review.FOLDER}/images/") for name in found))
    written = []
    if config.report:
        storage.write(storage.absolute(config.report), report.render(work, machine.progress("report")))
        written.append(config.report)
    for url, render in ((config.markdown, ci_reports.markdown), (config.junit, ci_reports.junit)):
        if url:
            storage.write(storage.absolute(url), render(result))
            written.append(url)
    result = replace(result, written=[storage.absolute(url) for url in written])
    if result.out:
        files |= report.pictures(work)
        files |= prediction_tables.write(work)
        files[METRICS] = (json.dumps(as_json(result), indent=2) + "\n").encode()
        storage.publish(result.out, files, last=METRICS)
    return result


def _review(work: Work, machine: Machine) -> dict[str, bytes]:
    """Tasks for Label Studio: from photos without labels, or else from those that were judged."""
    targets, config = work.pipeline.bundle.contract.targets, work.result.config
    rows = review.candidates(work.selected.versions, work.selected.targets)
    said = work.answers.predictions
    if rows.is_empty():
        rows = work.selected.rows
    else:
        said = _predict(work.pipeline, rows, "photos without labels", config, machine).predictions
    chosen = review.choose(rows, said, targets, config.review)
    return review.files(rows, said, targets, chosen, work.result.model)


def as_json(result: Validated) -> dict[str, Any]:
    """The result as the content of `metrics.json`."""
    return {
        "plantml_metrics": METRICS_FORMAT,
        "plantml": __version__,
        "datasets": [
            {"ref": ref, "fingerprint": fingerprint, "photos": number} for ref, fingerprint, number in result.versions
        ],
        "split": result.split,
        "where": result.config.where,
        "model": result.model,
        "model_ref": result.config.model,
        "photos": result.photos,
        "left_out": dict(result.left_out),
        "failed": [list(pair) for pair in result.failed],
        "allowed_failures": result.allowed,
        "scores": dict(result.scores),
        "intervals": {name: [each.low, each.high] for name, each in result.intervals.items()},
        "bootstrap": {
            "level": LEVEL,
            "over": "groups",
            "groups": result.groups,
            "resamples": result.config.resamples,
            "seed": result.config.seed,
        },
        "targets": {found.target: metrics.as_json(found) for found in result.reports},
        "decisions": dict(result.decisions),
        "slices": slices.as_json(result.slices),
        "leaks": leaks.as_json(result.leaks) if result.leaks else None,
        "robustness": robustness.as_json(result.robustness) if result.robustness else None,
        "against": compare.as_json(result.comparison) if result.comparison else None,
        "gates": [gate.as_json() for gate in result.gates],
    }
