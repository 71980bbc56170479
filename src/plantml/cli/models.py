"""`plantml models …`: registered models, their versions and aliases."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantml.cli.command import command, group
from plantml.cli.console import Console, Page, count

if TYPE_CHECKING:
    from plantml.registry import Change
    from plantml.registry.inspection import ModelComparison, ModelDetails
    from plantml.registry.ledger import Ledger
    from plantml.storage.event_log import Event

Model = Annotated[str, typer.Argument(metavar="REGISTRY/NAME", help="URL of a model in its registry.")]
Version = Annotated[
    str, typer.Argument(metavar="REGISTRY/NAME@N", help="A version of a model, by its number or an alias.")
]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="Letters, digits, dashes: production, challenger…")]
Ref = Annotated[str, typer.Argument(metavar="MODEL", help="A version in a registry, a run, a bundle or a pack.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who acts. [default: user@machine]")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the history.")]

ADD_EXAMPLES = [
    "plantml models add runs/first models/leaf",
    "plantml models add runs/night s3://bucket/models/leaf --alias challenger --why 'photos of May'",
    "plantml models add leaf.plantml models/leaf",
]


def add(
    console: Console,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A run, a bundle, or a pack.")],
    model: Model,
    alias: Annotated[str | None, typer.Option(metavar="ALIAS", help="Let it point to the new version.")] = None,
    why: Why = "",
    by: By = None,
) -> None:
    """Make a model the next version of a registered one.

    Every file is checked first. The same model is added once; what was not added whole is no version.
    """
    from plantml import registry

    done = registry.add(
        bundle, model, by=by or registry.current_user(), why=why, alias=alias, cache=console.machine.cache()
    )
    _tell_added(console, "models add", registry.load(model), done.number, changed=done.changed)


COPY_EXAMPLES = ["plantml models copy models/leaf@production s3://customer/models/leaf"]


def copy(console: Console, version: Version, model: Model, why: Why = "", by: By = None) -> None:
    """Add a version of one registry to another, with its history. Aliases are not taken along."""
    from plantml import registry

    registry.resolve(version)  # only versions are copied; what else is a model is added
    done = registry.add(version, model, by=by or registry.current_user(), why=why, cache=console.machine.cache())
    _tell_added(console, "models copy", registry.load(model), done.number, changed=done.changed)


def _tell_added(console: Console, name: str, state: "Ledger", number: int, *, changed: bool) -> None:
    entry = state.entries[number]
    content = {"model": state.url, "version": number, "url": entry.url, "digest": entry.digest, "changed": changed}

    def show(page: Page) -> None:
        if not changed:
            page.line(f"Nothing to do: this very model is version {number}.")
        page.line(f"{state.url}@{number}: model {entry.digest[:12]}, {entry.size / 1e6:.1f} MB", style="bold")
        dataset = entry.event.content["dataset"]["url"]
        against = f" --against {state.url}@production --max-drop 0.01" if "production" in state.aliases else ""
        page.next(
            f"plantml validate {dataset} --model {state.url}@{number}{against} --out evidence",
            f"plantml models promote {state.url}@{number} production --evidence evidence",
        )

    console.result(name, content, show)


LIST_EXAMPLES = ["plantml models list s3://bucket/models", "plantml models list models/leaf --json"]


def list_(
    console: Console,
    url: Annotated[str, typer.Argument(metavar="REGISTRY[/NAME]", help="URL of a registry, or of one model in it.")],
) -> None:
    """List the models of a registry with their aliases, or the versions of one model."""
    from plantml.registry import inspection

    found = inspection.models(url)
    content = {"models": [_ledger_json(state) for state in found]}

    def show(page: Page) -> None:
        if not found:
            page.line(f"No model is registered at {url}.")
            page.next(f"plantml models add RUN {url.rstrip('/')}/NAME")
        for state in found:
            page.line(state.url, style="bold")
            page.table(("version", "aliases", "model", "added", "by", "MB", "trained on", "score", ""), _rows(state))

    console.result("models list", content, show)


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
        made = entry.event.content
        name, score = next(iter(made["metrics"].items()), ("", None))
        data = f"{made['dataset']['url']}@{made['dataset']['version']}"
        aliases = ", ".join(state.names(entry.number))
        rows.append([entry.number, aliases, entry.digest[:12], entry.event.time, made["by"],
                     f"{entry.size / 1e6:.1f}", data, score, name])  # fmt: skip
    return rows


SHOW_EXAMPLES = ["plantml models show models/leaf@production", "plantml models show models/leaf@3 --card"]


def show(
    console: Console,
    ref: Ref,
    card: Annotated[bool, typer.Option("--card", help="Print the model card too.")] = False,
) -> None:
    """Show a model: what it predicts, how well, where it came from, and what was done to it."""
    from plantml.registry import inspection

    found = inspection.show(ref, console.machine.cache())
    console.result("models show", found.as_json(), lambda page: _show(page, found, card=card))


def _show(page: Page, found: "ModelDetails", *, card: bool) -> None:
    contract = found.bundle.contract
    names = found.state.names(found.entry.number) if found.state and found.entry else []
    url, aliases = found.bundle.url.removeprefix("zip://::"), f" ({', '.join(names)})" if names else ""
    page.line(f"{url}: model {found.bundle.digest[:12]}{aliases}", style="bold")
    targets = [[each.name, each.kind, ", ".join(each.classes) or each.unit] for each in contract.targets]
    page.table(("target", "kind", "classes or unit"), targets)
    page.table(("validation split", "score"), [pair for pair in contract.metrics.items() if "[" not in pair[0]])
    data = contract.dataset
    page.table(
        ("lineage", ""),
        [
            ["dataset", f"{data.url}@{data.version}"],
            ["fingerprint", data.fingerprint],
            ["parent model", found.parent or "none" if found.plan else "not known"],
            ["digest", found.bundle.digest],
            ["made with", ", ".join(f"{name} {version}" for name, version in contract.versions.items())],
        ],
    )
    if found.config:
        page.table(("config", ""), [[key, str(value)] for key, value in found.config.items()])
    if found.state and found.entry:
        page.table(_ACT_COLUMNS, [_act_row(event) for event in found.events()])
    if card:
        page.line(found.card)
    elif found.card:
        page.line(f"Model card: --card, or {found.bundle.url}/README.md")


DIFF_EXAMPLES = ["plantml models diff models/leaf@production models/leaf@challenger"]


def diff(console: Console, first: Ref, second: Ref) -> None:
    """Compare two models: their metrics, classes, configs and data. For a paired comparison: validate --against."""
    from plantml.registry import inspection

    found = inspection.diff(first, second)
    console.result("models diff", found.as_json(), lambda page: _show_diff(page, found, first, second))


def _show_diff(page: Page, found: "ModelComparison", first: str, second: str) -> None:
    if found.first.bundle.digest == found.second.bundle.digest:
        page.line("They are the same model.", style="bold")
        return
    rows = [
        [name, *pair, "" if None in pair else f"{pair[1] - pair[0]:+.4f}"]  # type: ignore[operator]
        for name, pair in found.metrics.items()
        if "[" not in name
    ]
    page.table(("validation split", first, second, "difference"), rows)
    for target, pair in found.classes.items():
        for name, classes in zip((first, second), pair, strict=True):
            if classes:
                page.line(f"{target}: only {name} knows {', '.join(classes)}")
    if not found.classes:
        page.line("Both predict the same targets and classes.")
    one, other = (each.bundle.contract.dataset for each in (found.first, found.second))
    if found.same_data:
        page.line(f"Both were trained on the same content: {one.url}@{one.version}")
    else:
        page.line(f"Data: {one.url}@{one.version} and {other.url}@{other.version}; the scores are of other photos.")
        page.next(f"plantml dataset diff {one.url}@{one.version} {other.url}@{other.version}")
    if found.config:
        page.table(
            ("config", first, second),
            [[key, *(None if each is None else str(each) for each in pair)] for key, pair in found.config.items()],
        )


PROMOTE_EXAMPLES = [
    "plantml models promote models/leaf@3 production --evidence evidence",
    "plantml models promote models/leaf@3 challenger",
    "plantml models promote models/leaf@1 production --force --why 'the only one so far'",
]


def promote(
    console: Console,
    version: Version,
    alias: Alias,
    evidence: Annotated[
        str | None, typer.Option(metavar="URL", help="What `plantml validate --against … --out DIR` wrote.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Without evidence; needs --why.")] = False,
    expect: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only if the alias points to this version, 0 for none.")
    ] = None,
    why: Why = "",
    by: By = None,
) -> None:
    """Let an alias point to a version.

    The alias `production`, and those that begin with it in any case, need evidence: a validation on the whole test
    split, as it is in the newest version of the dataset, with every gate passed, and if a version is in service, a
    comparison with that version with the gate --max-drop. Without: exit code 4.
    """
    from plantml import registry

    state, entry = registry.resolve(version)
    now = state.aliases.get(alias, 0) if expect is None else expect
    done = registry.promote(
        state.url,
        entry.number,
        alias,
        by=by or registry.current_user(),
        why=why,
        evidence=evidence,
        expected=now,
        force=force,
    )
    _tell_moved(console, "models promote", done)


ROLLBACK_EXAMPLES = ["plantml models rollback models/leaf production --why 'takes soil for rust'"]


def rollback(
    console: Console,
    model: Model,
    alias: Alias = "production",
    expect: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only if the alias points to this version.")
    ] = None,
    why: Why = "",
    by: By = None,
) -> None:
    """Let an alias point to the version again that it pointed to before."""
    from plantml import registry

    now = registry.aliases(model).get(alias) if expect is None else expect
    done = registry.rollback(model, alias, by=by or registry.current_user(), why=why, expected=now)
    _tell_moved(console, "models rollback", done)


UNALIAS_EXAMPLES = ["plantml models unalias models/leaf challenger"]


def unalias(console: Console, model: Model, alias: Alias, why: Why = "", by: By = None) -> None:
    """Take an alias away."""
    from plantml import registry

    _tell_moved(console, "models unalias", registry.unalias(model, alias, by=by or registry.current_user(), why=why))


def _tell_moved(console: Console, name: str, done: "Change") -> None:
    content = {"model": done.model, "alias": done.alias, "version": done.number, "before": done.before,
               "changed": done.changed, "event": done.event.number if done.event else None}  # fmt: skip

    def show(page: Page) -> None:
        now = f"is version {done.number}" if done.number else "is no alias"
        before = f", before: version {done.before}" if done.before and done.changed else ""
        page.line(f"{done.model}@{done.alias} {now}{before}", style="bold")
        if not done.changed:
            page.line("Nothing to do.")
        elif done.before and done.number and name == "models promote":
            page.hint(f"To go back: plantml models rollback {done.model} {done.alias}")

    console.result(name, content, show)


HISTORY_EXAMPLES = ["plantml models history models/leaf", "plantml models history models/leaf --json"]
_ACT_COLUMNS = ("event", "time", "by", "act", "why", "evidence")


def history(console: Console, model: Model) -> None:
    """Show every act: who, when, which version, why, with what evidence."""
    from plantml import registry

    events = registry.history(model)
    content = {"model": model, "events": [event.as_json() for event in events]}
    rows = [_act_row(event) for event in events if event.content["act"] != "begin"]
    console.result("models history", content, lambda page: page.table(_ACT_COLUMNS, rows))


def _act_row(event: "Event") -> list[Any]:
    done = event.content
    number, alias, before = done.get("version"), done.get("alias"), done.get("from")
    moved = f"{before or 'none'} → {number or 'none'}"
    said = f"{done['act']} {alias}: {moved}" if alias else f"{done['act']} {number}"
    return [event.number, event.time, done["by"], said, done.get("why", ""), _shown(done)]


def _shown(done: Mapping[str, Any]) -> str:
    if done.get("forced"):
        return "forced"
    found = (done.get("evidence") if done["act"] == "promote" else None) or {}
    decisive = found.get("decisive")
    if decisive:
        return (
            f"{decisive['name']} {decisive['this']:.4f} against {decisive['other']:.4f}, {found['gates']} gates passed"
        )
    scores = found.get("scores") or {}
    name, score = next(((each, scores[each]) for each in ("macro_f1", *scores) if each in scores), ("", None))
    return f"{name} {score:.4f}" if score is not None else ""


VERIFY_EXAMPLES = ["plantml models verify models/leaf", "plantml models verify s3://bucket/models/leaf@production"]


def verify(
    console: Console,
    ref: Annotated[str, typer.Argument(metavar="REGISTRY/NAME[@N]", help="A model, or one version of it.")],
) -> None:
    """Read every file and compare its hash: bit rot and missing files end with exit code 4."""
    from plantml.cli import verification
    from plantml.registry import maintenance

    found = maintenance.verify(ref, progress=console.progress("verifying"))
    hint = "Restore from a backup or another registry; out of service with: plantml models rollback"
    verification.tell(console, "models verify", found, kind="model", came="added", hint=hint)


PACK_EXAMPLES = ["plantml models pack models/leaf@3 leaf.plantml"]


def pack(
    console: Console,
    ref: Ref,
    out: Annotated[str, typer.Argument(metavar="FILE.plantml", help="URL of the file.")],
) -> None:
    """Write a model as one file, to be sent; `add FILE.plantml REGISTRY/NAME` takes it in."""
    from plantml.registry import packs

    done = packs.pack(ref, out, console.machine.cache())
    content = {"out": done.url, "digest": done.bundle.digest, "bytes": done.size}

    def show(page: Page) -> None:
        page.line(f"Wrote {done.url}, {done.size / 1e6:.1f} MB, model {done.bundle.digest[:12]}", style="bold")
        page.hint(f"Next, where it is needed: plantml models add {out} REGISTRY/NAME")

    console.result("models pack", content, show)


REMOVE_EXAMPLES = ["plantml models remove models/leaf@2 --why 'trained on the wrong labels'"]


def remove(console: Console, version: Version, why: Why = "", by: By = None) -> None:
    """Remove a version to which no alias points. Its number is never used again; gc removes its files."""
    from plantml import registry
    from plantml.registry import ledger

    url, at = ledger.parse_reference(version)
    number = int(at) if at and at.isdecimal() else registry.resolve(version)[1].number
    done = registry.remove(url, number, by=by or registry.current_user(), why=why)
    content = {"model": done.model, "version": number, "changed": done.changed}

    def show(page: Page) -> None:
        page.line(f"Version {number} of {url} is removed." if done.changed else "Nothing to do: it was removed before.")
        page.hint(f"Its files go with: plantml models gc {url}")

    console.result("models remove", content, show)


GC_EXAMPLES = ["plantml models gc models/leaf --dry-run", "plantml models gc models/leaf --min-age 0"]


def gc(
    console: Console,
    model: Model,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    min_age: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="Leave what is younger: an add may be under way.")
    ] = 24.0,
    by: By = None,
) -> None:
    """Remove the files of versions that were removed, and what killed commands left behind."""
    from plantml import registry
    from plantml.registry import maintenance

    found = maintenance.collect_garbage(
        model, by=by or registry.current_user(), dry_run=dry_run, min_age=3600 * min_age
    )
    content = {"unfinished": list(found.unfinished), "removed": list(found.removed), "files": list(found.files),
               "bytes": found.bytes, "gone": found.gone}  # fmt: skip

    def show(page: Page) -> None:
        for what, numbers in (("never finished", found.unfinished), ("removed", found.removed)):
            if numbers:
                page.line(f"Versions {what}: {', '.join(map(str, numbers))}")
        said = "removed" if found.gone else "would be removed"
        page.line(f"{count(len(found.files), 'file')}, {found.bytes / 1e6:.1f} MB, {said}")

    console.result("models gc", content, show)


PUSH_EXAMPLES = [
    "plantml models push models/leaf@production mlflow://tracking:5000",
    "plantml models push models/leaf@3 sqlite:///mlflow.db --name beans",
]


def push(
    console: Console,
    version: Version,
    store: Annotated[
        str, typer.Argument(metavar="URI", help="MLflow's tracking URI: mlflow://HOST:PORT, https://…, sqlite:///FILE.")
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the model there. [default: as here]")] = None,
) -> None:
    """Register a version with MLflow, as an ONNX model with the same aliases; needs [mlflow]."""
    from plantml.registry import mlflow_push

    done = mlflow_push.push(version, store, name=name, cache=console.machine.cache())
    content = {"store": done.store, "name": done.name, "version": done.number, "aliases": list(done.aliases),
               "digest": done.entry.digest, "changed": done.changed}  # fmt: skip

    def show(page: Page) -> None:
        aliases = f", {' and '.join(done.aliases)}" if done.aliases else ""
        page.line(f"{done.name} version {done.number} at {done.store}{aliases}", style="bold")
        if not done.changed:
            page.line("That very model was there; its aliases are as here now.")
        page.next(f"mlflow.onnx.load_model('models:/{done.name}/{done.number}')")

    console.result("models push", content, show)


COMMANDS: tuple[tuple[str, Callable[..., None], list[str]], ...] = (
    ("add", add, ADD_EXAMPLES),
    ("list", list_, LIST_EXAMPLES),
    ("show", show, SHOW_EXAMPLES),
    ("diff", diff, DIFF_EXAMPLES),
    ("promote", promote, PROMOTE_EXAMPLES),
    ("rollback", rollback, ROLLBACK_EXAMPLES),
    ("unalias", unalias, UNALIAS_EXAMPLES),
    ("history", history, HISTORY_EXAMPLES),
    ("verify", verify, VERIFY_EXAMPLES),
    ("copy", copy, COPY_EXAMPLES),
    ("pack", pack, PACK_EXAMPLES),
    ("remove", remove, REMOVE_EXAMPLES),
    ("gc", gc, GC_EXAMPLES),
    ("push", push, PUSH_EXAMPLES),
)
"""Name, function and examples of each command, in the order of the help page."""


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    models = group("models", "Register models, choose the one in service, hand them on.")
    for name, function, examples in COMMANDS:
        command(models, name, examples=examples)(function)
    app.add_typer(models)
