"""`plantml models history`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from plantml.cli.console import Console
from plantml.cli.models.arguments import Model

if TYPE_CHECKING:
    from plantml.storage.event_log import Event


HISTORY_EXAMPLES = ["plantml models history models/leaf", "plantml models history models/leaf --json"]
EVENT_COLUMNS = ("event", "time", "by", "operation", "reason", "evidence")


def history(console: Console, model: Model) -> None:
    """Show the history of a model: author, time, version, reason and evidence."""
    from plantml import registry

    events = registry.history(model)
    content = {"model": model, "events": [event.as_json() for event in events]}
    rows = [event_row(event) for event in events if event.content["act"] != "begin"]
    console.result("models history", content, lambda page: page.table(EVENT_COLUMNS, rows))


def event_row(event: "Event") -> list[Any]:
    """The cells of an event under `EVENT_COLUMNS`."""
    content = event.content
    number, alias, before = content.get("version"), content.get("alias"), content.get("from")
    moved = f"{before or 'none'} → {number or 'none'}"
    operation = f"{content['act']} {alias}: {moved}" if alias else f"{content['act']} {number}"
    return [event.number, event.time, content["by"], operation, content.get("why", ""), _evidence(content)]


def _evidence(event: Mapping[str, Any]) -> str:
    if event.get("forced"):
        return "forced"
    evidence = (event.get("evidence") if event["act"] == "promote" else None) or {}
    decisive = evidence.get("decisive")
    if decisive:
        values = f"{decisive['this']:.4f} against {decisive['other']:.4f}"
        return f"{decisive['name']} {values}, {evidence['gates']} gates passed"
    scores = evidence.get("scores") or {}
    name, score = next(((each, scores[each]) for each in ("macro_f1", *scores) if each in scores), ("", None))
    return f"{name} {score:.4f}" if score is not None else ""
