"""Writes the pages that come from the code itself: the help of every command, and every setting.

python docs/generate.py          write them
python docs/generate.py --check  fail if they are not up to date
"""

import io
import os
import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from plantml import constraints
from plantml.cli import dataset, models
from plantml.cli.app import run
from plantml.cli.console import Streams
from plantml.detect.detect import DetectConfig
from plantml.retrain.config import DriftConfig, Feed, GateConfig, RetrainConfig
from plantml.settings import Machine
from plantml.train.config import TrainConfig
from plantml.validate.config import ValidateConfig

HERE = Path(__file__).parent
COMMANDS = [
    [],
    ["dataset"],
    *(["dataset", name] for name, _, _ in dataset.COMMANDS),
    ["train"],
    ["validate"],
    ["export"],
    ["detect"],
    ["models"],
    *(["models", name] for name, _, _ in models.COMMANDS),
    ["retrain"],
    ["demo"],
    ["doctor"],
]
EXIT_CODES = """
| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in plantml |
| 2 | wrong usage |
| 3 | bad input, dataset, model or config |
| 4 | a gate or check failed |
| 5 | finished, but more images failed than `--max-failures` allows |
| 6 | storage or network |
| 7 | an optional part is not installed; the message gives the install line |
| 130 | interrupted (Ctrl-C); work is saved |
| 141 | whoever read the output left early, as `head` does |
| 143 | terminated (SIGTERM); work is saved |
"""


def cli_page() -> str:
    """Every help page, as a person sees it at 100 columns."""
    os.environ["COLUMNS"] = "100"
    page = ["# The command line", "", "Made by `docs/generate.py` from the commands themselves.", "", "## Exit codes"]
    page.append(EXIT_CODES)
    for command in COMMANDS:
        out = io.StringIO()
        run([*command, "--help"], Streams(io.BytesIO(), out, io.StringIO()))
        text = "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())
        page += [f"## plantml {' '.join(command)}".rstrip(), "", "```text", text, "```", ""]
    return "\n".join(page)


def settings_page() -> str:
    """Every setting with its meaning, default and environment variable."""
    page = [
        "# Settings",
        "",
        "Made by `docs/generate.py` from the code. Strongest first: a flag, `--set key=value`, the environment,",
        "`--config file.yaml`, the default. `--print-config` shows every value and where it came from.",
        "",
    ]
    for title, prefix, model in (
        ("plantml train", "PLANTML_TRAIN__", TrainConfig),
        ("plantml validate", "PLANTML_VALIDATE__", ValidateConfig),
        ("plantml detect", "PLANTML_DETECT__", DetectConfig),
        ("plantml retrain", "PLANTML_RETRAIN__", RetrainConfig),
        ("plantml retrain: each of feeds", "", Feed),
        ("plantml retrain: drift", "PLANTML_RETRAIN__DRIFT__", DriftConfig),
        ("plantml retrain: gates", "PLANTML_RETRAIN__GATES__", GateConfig),
        ("The machine, for every command (environment only)", "PLANTML_", Machine),
    ):
        page += [f"## {title}", "", "| key | value | default | meaning | environment |", "|---|---|---|---|---|"]
        page += [*_rows(model, prefix), ""]
    return "\n".join(page)


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    values = constraints.of_model(model)
    return [
        f"| `{name}` | {values[name]} | {_default(field)} | {field.description} | {_variable(prefix, name)} |"
        for name, field in model.model_fields.items()
    ]


def _variable(prefix: str, name: str) -> str:
    return f"`{prefix}{name.upper()}`" if prefix else ""


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "must be given"
    if value is PydanticUndefined:
        return "of this machine"
    if isinstance(value, BaseModel):
        return "see its own table"
    return "–" if value is None or value == () else f"`{value}`"


def main() -> int:
    """Write or check; the exit code."""
    pages = {HERE / "cli.md": cli_page(), HERE / "settings.md": settings_page()}
    stale = [file.name for file, text in pages.items() if not file.exists() or file.read_text() != text]
    if "--check" in sys.argv:
        if stale:
            print(f"Not up to date: {', '.join(stale)}. Run: make format")
        return 1 if stale else 0
    for file, text in pages.items():
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
