"""A registry of models in Python: what `plantml models` does, as methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plantml import registry, settings, storage
from plantml.api import html
from plantml.api.model import Model, load
from plantml.api.run import ModelInput, model_ref
from plantml.registry import AddedVersion, Change, Event, Ledger, inspection, publishing

if TYPE_CHECKING:
    from plantml.validate.results import ValidationResult


class Registry:
    """A folder of registered models, here or in a bucket.

    Args:
        url: of the folder; it need not exist before a model is added.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = storage.absolute(str(url))

    def __repr__(self) -> str:
        return f"<Registry {self.url}>"

    def models(self) -> Mapping[str, Ledger]:
        """The state of every model, by its name. Raises `NotFoundError` if there is no registry."""
        return {ledger.url.removeprefix(self.url).strip("/"): ledger for ledger in inspection.models(self.url)}

    def add(
        self, model: ModelInput, name: str, *, why: str = "", by: str | None = None,
        alias: str | None = None
    ) -> AddedVersion:  # fmt: skip
        """Make a model the next version of `name`. The same model is added once.

        Args:
            model: a model, a run, or a reference.
            name: of the registered model; a new one starts with version 1.
            why: for the history.
            by: who; user and machine if not given.
            alias: to point to the version; `production` needs `promote`.

        Raises:
            InputError: it is not an intact bundle.
            UsageError: the alias needs evidence.
        """
        cache = settings.machine().cache()
        return registry.add(model_ref(model), self._at(name), by=by, why=why, alias=alias, cache=cache)

    def promote(
        self,
        name: str,
        number: int,
        alias: str,
        *,
        evidence: "ValidationResult | Mapping[str, Any] | str | None" = None,
        why: str = "",
        by: str | None = None,
        force: bool = False,
    ) -> Change:
        """Let an alias point to a version.

        Args:
            name: of the registered model.
            number: of the version.
            alias: `production`, and names that begin with it, need evidence.
            evidence: what `plantml.validate` returned, its JSON, or the URL of its folder.
            why: for the history; required with `force`.
            by: who; user and machine if not given.
            force: without evidence.

        Raises:
            InputError: there is no such version.
            GateError: the evidence does not allow it.
        """
        if evidence is not None and not isinstance(evidence, (str, Mapping)):
            from plantml.validate.results import as_json

            evidence = as_json(evidence)
        return registry.promote(self._at(name), number, alias, by=by, why=why, evidence=evidence, force=force)

    def rollback(self, name: str, alias: str, *, why: str = "", by: str | None = None) -> Change:
        """Let an alias point to the version before. Raises `InputError` if there is none."""
        return registry.rollback(self._at(name), alias, by=by, why=why)

    def history(self, name: str) -> Sequence[Event]:
        """All events of a model, oldest first."""
        return registry.history(self._at(name))

    def load(self, name: str, version: int | str, **options: Any) -> Model:
        """The model that a version's number or an alias names. Options are those of `plantml.load`."""
        return load(f"{self._at(name)}@{version}", **options)

    def _at(self, name: str) -> str:
        publishing.check_name(name)  # one with `..` would leave the registry
        return storage.join(self.url, name)

    def _repr_html_(self) -> str:
        rows = [
            (name, len(state.entries), ", ".join(f"{alias}: {number}" for alias, number in state.aliases.items()))
            for name, state in self.models().items()
        ]
        return html.table(("model", "versions", "aliases"), rows)
