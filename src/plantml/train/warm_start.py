"""Start from the weights of a bundle; heads are matched by class name."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from plantml.data import versions
from plantml.errors import InputError
from plantml.model import bundle as bundles
from plantml.model.bundle import Bundle
from plantml.model.covariates import Covariate
from plantml.model.detector import CentreNet, DeployedDetector, rebuild
from plantml.model.network import PlantNet, read_weights
from plantml.registry import references
from plantml.train.plan import Plan

Renamed = Mapping[str, Mapping[str, str]]
"""The new name of each old class, by target."""


def parent_bundle(plan: Plan) -> Bundle:
    """The bundle that a plan starts from. Raises `InputError` if it has changed since the plan."""
    bundle = references.find(plan.warm_start)
    if bundle.digest != plan.parent:
        raise InputError(
            f"{plan.warm_start} has changed since the run started",
            f"the plan starts from model {plan.parent[:12]}, and it now holds {bundle.digest[:12]}",
            "Restore that model, or start over with --fresh.",
        )
    return bundle


def parent_detector(plan: Plan) -> DeployedDetector:
    """The detector that a plan starts from, with the targets that it knows. Raises as `parent_bundle`."""
    bundle = parent_bundle(plan)
    detector = rebuild(bundle.contract, read_weights(bundle.read(bundles.WEIGHTS)))
    assert isinstance(detector, DeployedDetector)
    return detector


def load_parent_weights(net: PlantNet, parent: Bundle, plan: Plan) -> list[str]:
    """Load the weights of a parent bundle into `net`.

    Classes that the parent lacks keep their random weights. Classes renamed since then are matched through the
    dataset's history.

    Returns:
        Targets and classes that the parent lacks, as text.

    Raises:
        InputError: the parent has another backbone.
    """
    contract, state = parent.contract, _state(parent, plan)
    net.backbone.load_state_dict(_below(state, "net.backbone."), strict=True)
    covariates = net.covariates if _described(contract.covariates or ()) == _described(plan.covariates) else None
    if covariates is not None:
        hidden = _below(state, "net.covariates.hidden.")
        hidden["weight"] = rescaled(hidden["weight"], contract.covariates or (), plan.covariates)
        covariates.hidden.load_state_dict(hidden)
    renamed = renames(plan, contract.dataset.url, contract.dataset.version)
    parent_targets = {target.name: target for target in contract.targets}
    new: list[str] = ["covariates"] if net.covariates is not covariates else []
    for target in plan.targets:
        before = parent_targets.get(target.name)
        if before is None or before.kind != target.kind:
            new.append(f"target {target.name}")
            continue
        rows = {renamed.get(target.name, {}).get(name, name): row for row, name in enumerate(before.classes)}
        pairs = [(0, 0)] if target.kind == "value" else [
            (row, rows[name]) for row, name in enumerate(target.classes) if name in rows
        ]  # fmt: skip
        parts = [f"heads.{target.name}.weight", f"heads.{target.name}.bias"]
        if covariates is not None:
            parts.append(f"covariates.heads.{target.name}.weight")
        for part in parts:
            weights: Tensor = state[f"net.{part}"]
            for row, parent_row in pairs:
                net.get_parameter(part).data[row] = weights[parent_row]
        new += [f"{target.name} {name}" for name in target.classes if name not in rows]
    return new


def load_detector_weights(net: CentreNet, parent: Bundle, plan: Plan) -> list[str]:
    """Load the weights of a parent bundle into a detector: of a classifier, those of the backbone.

    Returns:
        What the parent lacks, as text: boxes, and targets that it has not or with other classes.

    Raises:
        InputError: the parent has another backbone.
    """
    state, own = _state(parent, plan), net.state_dict()
    known = set(parent.contract.targets) if parent.contract.task == "boxes" else set()
    new = [] if parent.contract.detection else ["boxes"]
    new += [f"target {target.name}" for target in plan.targets if target not in known]
    skipped = tuple(f"heads.target_{target.name}." for target in plan.targets if target not in known)
    net.load_state_dict(
        {
            key: value
            for key, value in ((key.removeprefix("net."), value) for key, value in state.items())
            if key in own and own[key].shape == value.shape and not key.startswith(skipped)
        },
        strict=False,
    )
    return new


def _state(parent: Bundle, plan: Plan) -> dict[str, Tensor]:
    """The weights of a parent. Raises `InputError` if its backbone is not that of the plan."""
    backbone = parent.contract.architecture.backbone
    if backbone != plan.backbone:
        raise InputError(
            f"{parent.url} has another backbone",
            f"{backbone}, not {plan.backbone}",
            "Leave out --backbone to use the parent's.",
        )
    return read_weights(parent.read(bundles.WEIGHTS))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of a part of a network, by their names in it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def rescaled(weight: Tensor, before: Sequence[Covariate], after: Sequence[Covariate]) -> Tensor:
    """The hidden layer of covariates for other means and deviations: the same outputs for the same values.

    Args:
        weight: of the layer, [hidden, width]; see `CovariateNet.encode`.
        before: what it was trained for.
        after: the same covariates with the means and deviations of other photos.
    """
    weight, at = weight.clone(), 0
    for old, new in zip(before, after, strict=True):
        if new.classes:
            at += len(new.classes)
            continue
        assert old.mean is not None
        assert old.std is not None
        assert new.mean is not None
        assert new.std is not None
        value = weight[:, at].clone()  # (v - old.mean) / old.std is linear in (v - new.mean) / new.std and 1
        weight[:, at] = value * (new.std / old.std)
        weight[:, at + 1] += value * ((new.mean - old.mean) / old.std)
        at += 2
    return weight


def _described(covariates: Sequence[Covariate]) -> list[tuple[str, tuple[str, ...] | None]]:
    """What two models must have in common so that their layers fit; means and ranges may differ, see `rescaled`."""
    return [(covariate.name, covariate.classes) for covariate in covariates]


def renames(plan: Plan, url: str, since: int) -> Renamed:
    """Classes renamed in the plan's dataset since version `since` of the dataset at `url`; none in another dataset."""
    if url != plan.dataset:
        return {}
    renamed: dict[str, dict[str, str]] = {}
    for number, commit in sorted(versions.log(f"{plan.dataset}@{plan.dataset_version}")):
        if number <= since or commit.operation != "rename-class":
            continue
        target, old, new = (str(commit.parameters[key]) for key in ("target", "old", "new"))
        names = renamed.setdefault(target, {})
        for first, last in list(names.items()):
            if last == old:
                names[first] = new
        names.setdefault(old, new)
    return renamed
