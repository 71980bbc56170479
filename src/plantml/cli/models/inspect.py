"""`plantml models list`, `show`, `diff` and `history`: read-only commands."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.arguments import Model, Ref
from plantml.cli.command import command
from plantml.cli.console import Console, Page

if TYPE_CHECKING:
    from plantml.model.proven_forms import ProvenForm
    from plantml.registry.inspection import ModelComparison, ModelDetails
    from plantml.registry.ledger import Ledger
    from plantml.storage.event_log import Event

_EVENT_COLUMNS = ("event", "time", "by", "operation", "reason", "evidence")


@command("plantml models list s3://bucket/models", "plantml models list models/leaf --json")
def list_(
    console: Console,
    url: Annotated[str, typer.Argument(metavar="REGISTRY[/NAME]", help="URL of a registry or of a registered model.")],
) -> None:
    """List the models of a registry, or the versions of one model."""
    from plantml.registry import inspection

    ledgers = inspection.models(url)
    content = {"models": [_ledger_json(state) for state in ledgers]}

    def show(page: Page) -> None:
        if not ledgers:
            page.line(f"No model is registered at {url}.")
            page.next(f"plantml models add RUN {url.rstrip('/')}/NAME")
        for state in ledgers:
            page.line(state.url, style="bold")
            page.table(("version", "aliases", "model", "added", "by", "MB", "trained on", "metric", ""), _rows(state))

    console.result(content, show)


def _ledger_json(state: "Ledger") -> dict[str, Any]:
    return {
        "model": state.url,
        "aliases": dict(state.aliases),
        "versions": [
            {
                "version": entry.number,
                "url": entry.url,
                "digest": entry.digest,
                "bytes": entry.size,
                "aliases": state.names(entry.number),
                "time": entry.event.time,
                "by": entry.event.content["by"],
                "why": entry.event.content["why"],
                "dataset": entry.event.content["dataset"],
                "metrics": entry.event.content["metrics"],
            }
            for entry in state.entries.values()
        ],
    }


def _rows(state: "Ledger") -> list[list[Any]]:
    rows = []
    for entry in reversed(state.entries.values()):
        content = entry.event.content
        name, score = next(iter(content["metrics"].items()), ("", None))
        data = f"{content['dataset']['url']}@{content['dataset']['version']}"
        aliases = ", ".join(state.names(entry.number))
        rows.append([entry.number, aliases, entry.digest[:12], entry.event.time, content["by"],
                     f"{entry.size / 1e6:.1f}", data, score, name])  # fmt: skip
    return rows


@command("plantml models show models/leaf@production", "plantml models show models/leaf@3 --card")
def show(
    console: Console, ref: Ref, card: Annotated[bool, typer.Option("--card", help="Also print the model card.")] = False
) -> None:
    """Show the targets, metrics, lineage and history of a model."""
    from plantml.registry import inspection

    result = inspection.show(ref, console.machine.cache())
    console.result(result.as_json(), lambda page: _show(page, result, card=card))


def _show(page: Page, result: "ModelDetails", *, card: bool) -> None:
    contract = result.bundle.contract
    names = result.state.names(result.entry.number) if result.state and result.entry else []
    url, aliases = result.bundle.url.removeprefix("zip://::"), f" ({', '.join(names)})" if names else ""
    page.line(f"{url}: model {result.bundle.digest[:12]}{aliases}", style="bold")
    targets = [[each.name, each.kind, ", ".join(each.classes) or each.unit] for each in contract.targets]
    page.table(("target", "kind", "classes or unit"), targets)
    page.table(("validation split", "metric"), [pair for pair in contract.metrics.items() if "[" not in pair[0]])
    if result.bundle.forms:
        page.table(
            ("forms beside float32", "digest", "photos", "same labels", "same decisions"),
            [
                _form_row(f"{each.name}{stage}", each)
                for form in result.bundle.forms.values()
                for stage, each in (("", form), (" of the classifier", form.classifier))
                if each
            ],
        )
    data = contract.dataset
    page.table(
        ("lineage", ""),
        [
            ["dataset", f"{data.url}@{data.version}"],
            ["fingerprint", data.fingerprint],
            ["parent model", result.parent or "none" if result.plan else "not known"],
            ["digest", result.bundle.digest],
            ["made with", ", ".join(f"{name} {version}" for name, version in contract.versions.items())],
        ],
    )
    if result.config:
        page.table(("config", ""), [[key, str(value)] for key, value in result.config.items()])
    if result.state and result.entry:
        page.table(_EVENT_COLUMNS, [_event_row(event) for event in result.events()])
    if card:
        page.line(result.card)
    elif result.card:
        page.line(f"Model card: --card, or {result.bundle.url}/README.md")


def _form_row(name: str, form: "ProvenForm") -> list[Any]:
    proof = form.proof
    shares = [f"{proof[key]:.1%}" if key in proof else "" for key in ("agreement", "decisions")]
    return [name, form.model[:12], proof.get("photos", ""), *shares]


@command("plantml models diff models/leaf@production models/leaf@challenger")
def diff(console: Console, first: Ref, second: Ref) -> None:
    """Compare the metrics, classes, settings and data of two models.

    For a comparison on the same photos, use `plantml validate --against`.
    """
    from plantml.registry import inspection

    result = inspection.diff(first, second)
    console.result(result.as_json(), lambda page: _show_diff(page, result, first, second))


def _show_diff(page: Page, result: "ModelComparison", first: str, second: str) -> None:
    if result.first.bundle.digest == result.second.bundle.digest:
        page.line("Both are the same model.", style="bold")
        return
    rows = [
        [name, *pair, "" if None in pair else f"{pair[1] - pair[0]:+.4f}"]  # type: ignore[operator]
        for name, pair in result.metrics.items()
        if "[" not in name
    ]
    page.table(("validation split", first, second, "difference"), rows)
    for target, pair in result.classes.items():
        for name, classes in zip((first, second), pair, strict=True):
            if classes:
                page.line(f"{target}: only {name} knows {', '.join(classes)}")
    if not result.classes:
        page.line("Both predict the same targets and classes.")
    one, other = (each.bundle.contract.dataset for each in (result.first, result.second))
    if result.same_data:
        page.line(f"Both were trained on the same content: {one.url}@{one.version}")
    else:
        page.line(
            f"Data: {one.url}@{one.version} and {other.url}@{other.version}; the metrics are from different photos."
        )
        page.next(f"plantml dataset diff {one.url}@{one.version} {other.url}@{other.version}")
    if result.config:
        page.table(
            ("config", first, second),
            [[key, *(None if each is None else str(each) for each in pair)] for key, pair in result.config.items()],
        )


@command("plantml models history models/leaf", "plantml models history models/leaf --json")
def history(console: Console, model: Model) -> None:
    """Show the history of a model: author, time, version, reason and evidence."""
    from plantml import registry

    events = registry.history(model)
    content = {"model": model, "events": [event.as_json() for event in events]}
    rows = [_event_row(event) for event in events if event.content["act"] != "begin"]
    console.result(content, lambda page: page.table(_EVENT_COLUMNS, rows))


def _event_row(event: "Event") -> list[Any]:
    """The cells of an event under `_EVENT_COLUMNS`."""
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
