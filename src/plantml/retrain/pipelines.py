"""Write the steps of `plantml retrain` as a pipeline of an engine: each step calls the command line."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from plantml import settings, storage
from plantml.about import __version__
from plantml.errors import AlreadyExistsError, InputError, UsageError
from plantml.retrain import consistency
from plantml.retrain.config import RetrainConfig
from plantml.retrain.rounds import STEPS

Engine = Literal["kubeflow", "vertex", "airflow", "github", "cloudbuild"]
IDLE = "nothing to do"
"""The outcome of the first step that ends a run early."""


@dataclass(frozen=True)
class Form:
    """How an engine wants its pipeline: the template, the extension of the file, whether steps run in containers."""

    template: str
    suffix: str
    runs_image: bool


FORMS: dict[str, Form] = {
    "kubeflow": Form("kubeflow.py.jinja", ".py", runs_image=True),
    "vertex": Form("kubeflow.py.jinja", ".py", runs_image=True),
    "airflow": Form("airflow.py.jinja", ".py", runs_image=False),
    "github": Form("github.yaml.jinja", ".yaml", runs_image=False),
    "cloudbuild": Form("cloudbuild.yaml.jinja", ".yaml", runs_image=True),
}


_FIELD = r"[\d*/,\-A-Za-z]+"
_CRON = re.compile(rf"{_FIELD}( {_FIELD}){{4}}")


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline that was written, and how to go on."""

    file: str
    engine: str
    steps: tuple[str, ...]
    next: str


def export(config_url: str, engine: Engine, *, out: str | None, image: str | None, schedule: str) -> PipelineFile:
    """Write the pipeline of a retraining configuration.

    `config_url` is where the engine's machines read the configuration. Without `out`, the file is `retrain_ENGINE` in
    the working directory.

    Raises:
        UsageError: an argument does not fit the engine, or the file exists.
        InputError: the configuration is invalid, or names places that other machines cannot read.
    """
    form = FORMS[engine]
    if not _CRON.fullmatch(schedule):
        raise UsageError(
            f"--schedule cannot be {schedule!r}", "it needs the five fields of cron", "Such as '0 2 * * *'."
        )
    if form.runs_image and not image:
        raise UsageError(
            f"--to {engine} needs --image", "its steps run in containers",
            "Build the `worker` target of the Dockerfile, push it, and name it with --image.",
        )  # fmt: skip
    if image and not form.runs_image:
        raise UsageError(f"--to {engine} takes no --image", "its steps do not run in containers", "Leave it out.")
    config = settings.resolve(RetrainConfig, "retrain", file=config_url).value
    consistency.check(config)
    if engine != "airflow":  # whose workers may share a disk
        _check_places(config, config_url if form.runs_image else None, engine)
    name = re.sub(r"[^a-z0-9]+", "-", storage.basename(config.model).lower()).strip("-") or "model"
    file = out or f"retrain_{engine}{form.suffix}"
    shown: dict[str, Any] = {
        "config": config_url if form.runs_image or not storage.is_local(config_url) else _portable(config_url, engine),
        "engine": engine,
        "feeds": [feed.source for feed in config.feeds],
        "file": storage.basename(file),
        "idle": IDLE,
        "image": image,
        "name": f"plantml-retrain-{name}",
        "schedule": schedule,
        "steps": STEPS,
        "version": __version__,
    }
    try:
        storage.create(file, _render(form.template, shown).encode())
    except AlreadyExistsError as error:
        raise UsageError(f"{file} exists", "it may have been edited", "Remove it, or choose another --out.") from error
    return PipelineFile(file, engine, STEPS, _next(engine, file))


def _portable(config_url: str, engine: Engine) -> str:
    """The configuration's path as the engine's machines read it: in the checkout for GitHub, absolute for Airflow."""
    if engine != "github":
        return storage.absolute(config_url)
    path = storage.local_path(config_url)
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(
            f"{config_url} is not in the repository", "a workflow reads it from its checkout",
            "Name it relative to the root of the repository.",
        )  # fmt: skip
    return path.as_posix()


def _check_places(config: RetrainConfig, config_url: str | None, engine: Engine) -> None:
    """Raise `InputError` for a place on this machine, which the engine's machines cannot read."""
    named = {"dataset": config.dataset, "model": config.model, "work": config.work}
    named |= {f"feeds[{index}].source": feed.source for index, feed in enumerate(config.feeds)}
    if config_url is not None:
        named["CONFIG"] = config_url
    for key, url in named.items():
        if storage.is_local(url):
            raise InputError(
                f"{key} is a path on this machine: {url}",
                f"each step of {engine} runs on a machine of its own",
                "Copy it to an object store, and name its URL (s3://, gs://, az://).",
            )


def _render(template: str, shown: dict[str, Any]) -> str:
    import jinja2

    # Values are inserted by `tojson`, whose strings are those of Python and YAML, too.
    environment = jinja2.Environment(  # noqa: S701 - no HTML
        loader=jinja2.PackageLoader("plantml.retrain"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        variable_start_string="[[",
        variable_end_string="]]",
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.get_template(template).render(shown)


def _next(engine: Engine, file: str) -> str:
    return {
        "kubeflow": f"python {file}    (with kfp: compiles it; --local runs it here)",
        "vertex": f"python {file}    (with kfp: compiles it; --local runs it here)",
        "airflow": f"copy {file} to Airflow's folder of DAGs",
        "github": f"git add {file}    (in .github/workflows)",
        "cloudbuild": f"gcloud builds submit --no-source --config {file}",
    }[engine]
