"""Check the options of a detection, and name those that determine its records."""

import json
from typing import Any

from plantml import storage
from plantml.detect import writers
from plantml.detect.alias_watcher import output_schema, watched_alias
from plantml.detect.config import STDOUT, DetectConfig
from plantml.detect.results import Extras
from plantml.errors import UsageError
from plantml.model.bundle import Bundle
from plantml.model.contract import Contract
from plantml.model.records import allowed_failures
from plantml.settings import flag_name

_NEED_FILE = (
    "sheet",
    "embeddings",
    "annotate",
    "sort_into",
    "changed_only",
    "engine",
    "shard",
    "journal",
    "retry_failed",
)
"""Options that need an output file."""


_NEED_PHOTO_TARGETS = {
    "tta": "flips of a photo give different boxes, which cannot be averaged",
    "similar": "it has no embeddings of photos",
    "embeddings": "it has no embeddings of photos",
    "advice": "it predicts nothing of whole photos",
    "sort_into": "it predicts nothing of whole photos",
}
"""Options that a detector cannot serve, and why."""


_NOT_FOR_ANOMALIES = {
    "tta": "the heat maps of flips cannot be averaged",
    "tile": "it has learnt from whole photos",
    "similar": "it has no embeddings of photos",
    "embeddings": "it has no embeddings of photos",
}
"""Options that a model of anomalies cannot serve, and why."""


def check(config: DetectConfig, bundle: Bundle) -> None:
    """Raise `UsageError` for options that contradict each other or the model, before any image is processed."""
    if bundle.contract.detection is not None:
        _check_detector(config)
    if bundle.contract.anomaly is not None:
        _check_anomaly(config)
    if bundle.form and config.similar:
        raise UsageError(
            f"--similar cannot be used with --speed {config.speed}",
            f"the dataset is embedded in float32, and the embeddings of {bundle.form.name} differ",
            "Use --speed exact.",
        )
    allowed_failures(config.max_failures, 0)
    if config.out == STDOUT:
        _check_stdout(config)
    else:
        writers.writer_of(config.out, config.format, config.rows)
    check_output(config, bundle.contract)
    if config.shard is not None:
        _check_shard(config, config.shard)
    if config.engine is not None and (config.shard or config.watch):
        raise UsageError(
            "--on excludes --shard and --watch", "it cuts the photos into parts itself", "Leave one of them out."
        )
    if config.watch and (config.changed_only or config.since):
        raise UsageError(
            "--watch excludes --changed-only and --since", "it processes each new file once", "Leave one of them out."
        )
    if config.embeddings is not None:
        from plantml.detect import embedding_files

        embedding_files.writer_of(config.embeddings)
    if config.sort_into is not None:
        from plantml.detect import sorting

        sorting.sort_target(bundle.contract.targets, config.sort_by)
    if config.where is not None:
        from plantml.detect import record_filters

        record_filters.check(config.where, bundle.contract)


def check_output(config: DetectConfig, contract: Contract) -> None:
    """Raise `UsageError` if the model's records do not fit the output."""
    for option in ("--rows boxes", "--format yolo"):
        flag, value = option.removeprefix("--").split()
        if getattr(config, flag) == value and contract.detection is None:
            raise UsageError(
                f"{option} needs a model that finds boxes", "this one predicts for whole photos", "Leave it out."
            )
    if config.format == "yolo" and storage.suffix(config.out) != ".zip":
        raise UsageError(
            f"{config.out} cannot hold YOLO's files", "they are written as one zip file", "--out boxes.zip"
        )


def check_places(config: DetectConfig) -> None:
    """Raise `UsageError` if an output would replace another one, or a file of the model."""
    model = storage.absolute(config.model or "")
    flags: dict[str, str] = {}
    for name in ("out", "sheet", "embeddings", "annotate", "sort_into", "journal"):
        url, flag = getattr(config, name), f"--{name.replace('_', '-')}"
        if url is None or url == STDOUT:
            continue
        place = storage.absolute(url)
        if place in flags:
            raise UsageError(f"{flag} and {flags[place]} name the same place", url, "Name two places.")
        if config.model and storage.is_within(place, model):
            raise UsageError(f"{flag} would replace a part of the model", url, "Choose another place.")
        flags[place] = flag
        if name != "journal":
            storage.check_output(storage.join(url, "x") if name in {"annotate", "sort_into"} else url)


def _check_stdout(config: DetectConfig) -> None:
    for name in _NEED_FILE:
        if getattr(config, name):
            option = flag_name(name, DetectConfig.model_fields[name])
            raise UsageError(f"{option} needs an output file", "", "Name one: --out records.jsonl")
    if config.format not in {None, "jsonl"} or config.rows == "boxes":
        raise UsageError("Standard output supports JSON Lines only", "", "Name a file: --out FILE")


def _check_detector(config: DetectConfig) -> None:
    for name, why in _NEED_PHOTO_TARGETS.items():
        if getattr(config, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} cannot be used with a model that finds boxes",
                why,
                "Leave it out, or name a model of whole photos: --model RUN.",
            )


def _check_anomaly(config: DetectConfig) -> None:
    for name, why in _NOT_FOR_ANOMALIES.items():
        if getattr(config, name):
            raise UsageError(
                f"--{name} cannot be used with a model of anomalies",
                why,
                "Leave it out, or name a model that predicts targets: --model RUN.",
            )


def _check_shard(config: DetectConfig, shard: str) -> None:
    from plantml.detect.shards import Shard

    Shard.parse(shard)
    if not writers.is_jsonl(config):
        raise UsageError("--shard writes JSON Lines only", f"{config.out} is not", "--out PART.jsonl")
    if config.where or config.changed_only or config.watch:
        raise UsageError(
            "--shard excludes --where, --changed-only and --watch", "a shard must be complete", "Leave one of them out."
        )


def journal_options(bundle: Bundle, config: DetectConfig, extras: Extras) -> dict[str, Any]:
    """The model and options that determine the records: one journal must not mix different ones."""
    options = {"model": bundle.digest, "runtime": config.runtime, "device": config.device, "top_k": config.top_k}
    if alias := watched_alias(bundle, config):  # the model may change, but not what it predicts
        options |= {"model": alias, "predicts": json.dumps(output_schema(bundle, config))}
        if config.speed != "exact":  # the next model may have other forms
            options["speed"] = config.speed
    elif bundle.form:
        options["form"] = bundle.form.name
    if config.tta:
        options["tta"] = True
    if config.tile is not None:
        options |= {"tile": config.tile, "overlap": config.overlap}
    if extras.similar is not None:
        options |= {"similar": extras.similar.ref, "neighbours": config.neighbours}
    if config.embeddings is not None:
        options["embeddings"] = True
    return options
