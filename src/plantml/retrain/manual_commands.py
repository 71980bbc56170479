"""The command line of each step, to run it by hand."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plantml.data import versions
from plantml.parsing import dump_yaml
from plantml.retrain import data_steps, model_steps, rounds
from plantml.retrain.rounds import Work
from plantml.train import plan as plans

Lines = list[list[str]]


def commands_for(work: Work, name: str) -> list[str]:
    """Shell commands that do the same as a step; none for one that only reads the results before it."""
    return [shlex.join(["plantml", *line]) for line in (_LINES[name](work) if name in _LINES else ())]


def _add(work: Work) -> Lines:
    lines: Lines = []
    for feed in work.config.feeds:
        is_first = not lines and not versions.numbers(work.config.dataset)
        places = [feed.source, work.config.dataset]
        line = ["dataset", "import", *places] if is_first else ["dataset", "add", *reversed(places)]
        line += _options({"format": feed.format if feed.format != "auto" else None,
                          "labels": feed.labels if feed.labels != "auto" else None, "taxonomy": feed.taxonomy,
                          "image-column": feed.image_column, "group-column": feed.group_column})  # fmt: skip
        line += [part for target in feed.targets for part in ("--target", target)]
        line += ["--new-classes"] * (feed.new_classes and not is_first) + ["--reference"] * feed.reference
        line += [part for root in feed.allow_root for part in ("--allow-root", root)]
        lines.append(line)
    return lines


def _clean(work: Work) -> Lines:
    return [["dataset", "clean", work.config.dataset, "--apply", work.config.clean]] if work.config.clean else []


def _split(work: Work) -> Lines:
    config = work.config
    options = {"ratios": config.ratios, "group-by": config.group_by, "seed": config.seed}
    return [["dataset", "split", config.dataset, *_options(options), "--keep"]]


def _production(work: Work) -> Lines:
    return [["models", "show", f"{work.config.model}@{work.config.alias}"]]


def _train(work: Work) -> Lines:
    settings = plans.non_defaults(work.config.train.model_dump(mode="json"))
    sets = [f"{key}={dump_yaml(value, one_line=True)}" for key, value in settings.items()]
    line = ["train", _dataset(work), "--out", work.round.place(rounds.CHALLENGER)]
    if work.config.start == "warm" and "production" in work.round.results and work.model:
        line += ["--from", work.model]
    return [[*line, *(part for text in sets for part in ("--set", text))]]


def _predict(work: Work) -> Lines:
    return [
        ["validate", _dataset(work), "--model", url, "--shared-classes", "--out", work.round.place("predictions", name)]
        for name, url in _models(work).items()
    ]


def _compare(work: Work) -> Lines:
    both, gates, lines = _models(work), work.config.gates, []
    sets = data_steps.test_sets(work) if "split" in work.round.results else {"all": None}
    for name, where in sets.items():
        line = ["validate", _dataset(work), "--model", both[rounds.CHALLENGER]]
        if model_steps.IN_SERVICE in both:
            line += ["--against", both[model_steps.IN_SERVICE], "--max-drop", f"{gates.max_drop:g}", "--shared-classes"]
        line += [part for kind in ("min", "max") for text in getattr(gates, kind) for part in (f"--{kind}", text)]
        lines.append([*line, *_options({"where": where}), "--out", work.round.place("compare", name)])
    return lines


def _register(work: Work) -> Lines:
    config = work.config
    add = ["models", "add", work.round.place(rounds.CHALLENGER), config.model, "--alias", config.challenger]
    evidence = work.round.place("compare", "all")
    promote = ["models", "promote", f"{config.model}@{config.challenger}", config.alias, "--evidence", evidence]
    refused = work.round.results.get("choose", {}).get("decision") == model_steps.REFUSE
    return [add] if refused else [add, promote]


def _dataset(work: Work) -> str:
    return str(work.round.results.get("split", {}).get("dataset", work.config.dataset))


def _models(work: Work) -> dict[str, str]:
    models = {rounds.CHALLENGER: work.round.place(rounds.CHALLENGER)}
    if "production" in work.round.results and work.model:
        models[model_steps.IN_SERVICE] = work.model
    return models


def _options(values: Mapping[str, Any]) -> list[str]:
    return [part for name, value in values.items() if value is not None for part in (f"--{name}", str(value))]


_LINES: Mapping[str, Callable[[Work], Sequence[list[str]]]] = {
    "add": _add,
    "clean": _clean,
    "split": _split,
    "production": _production,
    "train": _train,
    "predict": _predict,
    "compare": _compare,
    "register": _register,
}
