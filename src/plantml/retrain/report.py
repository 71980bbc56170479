"""Step 10: write the report as HTML, Markdown and JSON, and call the hook."""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from plantml import storage
from plantml.about import __version__
from plantml.reporting import documents
from plantml.retrain.rounds import STEPS, Result, Work
from plantml.validate.gates import describe

FORMAT = 1
_HOOK_SECONDS = 300
_SETS = {"all": "all test photos", "frozen": "the frozen test set", "recent": "the recent test set"}

_REPORTED = ("macro_f1", "joint_accuracy", ".accuracy", ".r2", ".mae", ".ece",
             ".macro_ap", ".ap", ".ap50", ".count_exact", ".count_mae",
             ".auroc", ".average_precision", ".sensitivity", ".false_alarms")  # fmt: skip
"""Suffixes of the metrics in the report; the others are in the folder of the comparison."""

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, header and rows."""


def report(work: Work) -> Result:
    """Write the report, and call the hook with its JSON; after a kill in between, the hook is called again."""
    content = as_json(work)
    tables = _tables(work)
    files = {
        "report.json": (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(),
        "report.md": _markdown(content, tables).encode(),
        "report.html": _page(content, tables).encode(),
    }
    storage.publish(work.round.url, files, last="report.json")
    hook = call_hook(work.config.on_result, content) if work.config.on_result else None
    if hook:
        work.listener.warn(hook)
    return {"html": work.round.place("report.html"), "markdown": work.round.place("report.md"),
            "json": work.round.place("report.json"), "hook": hook}  # fmt: skip


def as_json(work: Work) -> dict[str, Any]:
    """The round as JSON types."""
    registered = work.result("register")
    return {
        "plantml_retrain": FORMAT,
        "plantml": __version__,
        "round": work.round.number,
        **{key: registered[key] for key in ("outcome", "reasons", "version", "before", "now", "set_aside")},
        "why": work.round.begun["why"],
        "model": storage.absolute(work.config.model),
        "alias": work.config.alias,
        "dataset": work.result("split")["dataset"],
        "url": work.round.url,
        "steps": {name: work.result(name) for name in STEPS if name in work.round.results},
    }


def call_hook(command: str, content: Mapping[str, Any]) -> str:
    """Call a command with the report as JSON on its standard input. Returns why it failed; empty if it did not.

    `PLANTML_OUTCOME`, `PLANTML_ROUND` and `PLANTML_REPORT` are in its environment. It does not run in a shell.
    """
    variables = {"OUTCOME": content["outcome"], "ROUND": content["round"], "REPORT": content["url"]}
    environment = os.environ | {f"PLANTML_{name}": str(value) for name, value in variables.items()}
    try:
        process = subprocess.run(  # noqa: S603 - the user's own command
            shlex.split(command), input=json.dumps(content).encode(), env=environment, timeout=_HOOK_SECONDS,
            capture_output=True, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"The hook failed: {type(error).__name__}: {error}"
    message = process.stderr.decode("utf-8", "replace").strip()[-300:]
    return f"The hook ended with exit code {process.returncode}: {message}" if process.returncode else ""


def headline(content: Mapping[str, Any]) -> str:
    """The outcome in a sentence."""
    model, version, before, now = (content[key] for key in ("model", "version", "before", "now"))
    if content["outcome"] == "promoted":
        instead = f", instead of version {before}" if before else ""
        return f"{model}@{version} is in service as {content['alias']}{instead}."
    in_service = f"Version {now} is in service" if now else "No model is in service"
    return f"{in_service}: the challenger, version {version}, was {content['outcome']}."


# --- tables -----------------------------------------------------------------------------------


def _tables(work: Work) -> list[Table]:
    tables = [_photos(work)]
    for name, comparison in work.result("compare").items():
        tables += _comparison(_SETS[name], comparison)
    return tables


def _photos(work: Work) -> Table:
    added, cleaned, split = (work.result(name) for name in ("add", "clean", "split"))
    rows = [[f"new from {source}", str(number)] for source, number in added["by_source"].items()]
    rows += [[f"unusable from {source}", str(number)] for source, number in added["unusable"].items()]
    rows += [[f"feed left out: {source}", reason] for source, reason in added["refused"].items()]
    rows += [[f"left out by cleaning: {reason}", str(number)] for reason, number in cleaned["left_out"].items()]
    rows += [[f"{name} photos", str(split[name])] for name in ("train", "val", "test", "frozen", "recent")]
    return "Photos", ("", "photos"), rows


def _comparison(title: str, comparison: Mapping[str, Any]) -> list[Table]:
    rows = [
        [each["name"], f"{each['other']:.4f}", f"{each['this']:.4f}", f"{each['difference']:+.4f}",
         "" if each["interval"] is None else f"{each['interval'][0]:+.4f} to {each['interval'][1]:+.4f}",
         each["verdict"]]
        for each in comparison["differences"] if each["name"].endswith(_REPORTED)
    ]  # fmt: skip
    on = f"On {title}, {comparison['photos']} in {comparison['groups']} groups"
    if rows:
        head = ("metric", "in service", "challenger", "difference", "95 % interval", "challenger is")
        tables: list[Table] = [(f"{on}: {comparison['verdict']}", head, rows)]
    else:
        scores = [[name, f"{value:.4f}"] for name, value in comparison["scores"].items() if name.endswith(_REPORTED)]
        tables = [(on, ("metric", "challenger"), scores)]
    classes = [
        [each["target"], each["class"], str(each["photos"]), str(each["wins"]), str(each["losses"])]
        for each in comparison["classes"] if each["wins"] or each["losses"]
    ]  # fmt: skip
    if classes:
        columns = ("target", "class", "photos", "only the challenger right", "only the one in service right")
        tables.append((f"Class by class on {title}", columns, classes))
    gates = [_gate(gate) for gate in comparison["gates"]]
    if gates:
        tables.append((f"Gates on {title}", ("gate", "value", "required", ""), gates))
    return tables


def _gate(gate: Mapping[str, Any]) -> list[str]:
    name, limit = describe(gate)
    return [name, f"{gate['value']:.4f}", limit, "passed" if gate["passed"] else "FAILED"]


def _markdown(content: Mapping[str, Any], tables: Sequence[Table]) -> str:
    lines = [f"# Round {content['round']}: {content['outcome']}", "", headline(content), ""]
    lines += [f"- {reason}" for reason in content["reasons"]]
    lines += ["", f"Reason for this round: {content['why']}. Dataset {content['dataset']}.", ""]
    for title, head, rows in tables:
        lines += [f"## {documents.cell(title)}", "", *documents.table(head, rows)]
    return "\n".join(lines)


def _page(content: Mapping[str, Any], tables: Sequence[Table]) -> str:
    return documents.fill(
        "plantml.retrain",
        "report.html",
        headline=headline(content),
        tables=tables,
        **{key: content[key] for key in ("round", "outcome", "reasons", "why", "dataset")},
    )
