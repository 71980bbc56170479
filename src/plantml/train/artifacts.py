"""The files of a run besides its bundle: metrics, history, plots, configuration and environment."""

import ast
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from plantml.parsing import dump_yaml
from plantml.reporting import charts
from plantml.settings import usable_cores
from plantml.train.history import History
from plantml.train.learner import PackagedModel
from plantml.train.run_folder import HISTORY, METRICS, RunFolder

METRICS_FORMAT = 1
CONFIG, ENVIRONMENT, PLOTS = "config.yaml", "environment.json", "plots"

_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""Environment variables that change speed or the order of additions. No others are recorded."""


def write(run: RunFolder, history: History, model: PackagedModel) -> None:
    """Write the results of a finished training."""
    if len(history.rows) > 1:
        run.write(f"{PLOTS}/curves.png", charts.learning_curves(history.rows, history.best_epoch))
    for name, plot in model.plots.items():
        run.write(f"{PLOTS}/{name}", plot)
    run.write(HISTORY, history.csv())
    run.write(ENVIRONMENT, _json(environment()))
    content = {
        "plantml_metrics": METRICS_FORMAT,
        "split": "val",
        "model": model.digest,
        "dataset": model.contract.dataset.model_dump(mode="json"),
        "best_epoch": history.best_epoch,
        **model.metrics,
    }
    run.write(METRICS, _json(content))


def write_config(run: RunFolder, lines: Sequence[str]) -> None:
    """Write the configuration with the origin of each value, as `settings.Resolved.lines` gives it."""
    if lines:
        run.write(CONFIG, config_yaml(lines).encode())


def config_yaml(lines: Sequence[str]) -> str:
    """Convert lines `key = value  # origin`, with Python literals, to YAML that `--config` reads."""
    text, current = [], ""
    for line in lines:
        setting, _, origin = line.rpartition("  # ")
        key, _, value = setting.partition(" = ")
        section, _, name = key.rpartition(".")
        if section and section != current:
            text.append(f"{section}:")
        current = section
        scalar = dump_yaml(_plain(ast.literal_eval(value)), one_line=True)
        text.append(f"{'  ' if section else ''}{name}: {scalar}  # {' '.join(origin.split())}")
    return "\n".join(text) + "\n"


def environment() -> dict[str, Any]:
    """The machine and the software that trained a model, for reproduction."""
    import torch

    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "libraries": libraries(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
    return facts


def libraries() -> Mapping[str, str]:
    """Versions of plantml and of its installed dependencies, by name."""
    names = {"plantml"}
    for requirement in metadata.requires("plantml") or ():
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match:
            names.add(match.group().lower())
    installed = {}
    for name in sorted(names):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
