"""Weights of an earlier bundle as a start; heads are joined by the names of their classes."""

from collections.abc import Mapping

from torch import Tensor

from plantml.data import versions
from plantml.errors import InputError
from plantml.model import bundle as bundles
from plantml.model.bundle import Bundle
from plantml.model.network import PlantNet, read_weights
from plantml.registry import references
from plantml.train.plan import Plan

Renamed = Mapping[str, Mapping[str, str]]
"""The new name of each old class, by target."""


def parent_of(plan: Plan) -> Bundle:
    """The bundle that a plan starts from. Raises `InputError` if another one is there by now."""
    bundle = references.find(plan.warm_start)
    if bundle.digest != plan.parent:
        raise InputError(
            f"{plan.warm_start} is another model by now",
            f"the plan starts from {plan.parent[:12]}, and {bundle.digest[:12]} is there",
            "Restore it, or start over with --fresh.",
        )
    return bundle


def take_over(net: PlantNet, parent: Bundle, plan: Plan) -> list[str]:
    """Give `net` what the parent knows.

    Classes that it does not know keep a fresh start. Those that were renamed in the dataset since then are
    found by the dataset's own history.

    Returns:
        What is new, in words.

    Raises:
        InputError: the parent has another backbone.
    """
    contract = parent.contract
    if contract.architecture.backbone != plan.backbone:
        raise InputError(
            f"{parent.url} has another backbone",
            f"{contract.architecture.backbone}, not {plan.backbone}",
            "Leave --backbone away to take over its own.",
        )
    state = read_weights(parent.read(bundles.WEIGHTS))
    prefix = "net.backbone."
    net.backbone.load_state_dict(
        {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}, strict=True
    )
    renamed = renames(plan, contract.dataset.url, contract.dataset.version)
    known = {target.name: target for target in contract.targets}
    told: list[str] = []
    for target in plan.targets:
        before = known.get(target.name)
        if before is None or before.kind != target.kind:
            told.append(f"target {target.name}")
            continue
        old = {renamed.get(target.name, {}).get(name, name): place for place, name in enumerate(before.classes)}
        places = [(0, 0)] if target.kind == "value" else [
            (new, old[name]) for new, name in enumerate(target.classes) if name in old
        ]  # fmt: skip
        head = net.get_submodule(f"heads.{target.name}")
        for part in ("weight", "bias"):
            found: Tensor = state[f"net.heads.{target.name}.{part}"]
            for new, place in places:
                head.get_parameter(part).data[new] = found[place]
        told += [f"{target.name} {name}" for name in target.classes if name not in old]
    return told


def renames(plan: Plan, url: str, since: int) -> Renamed:
    """Classes that were renamed in the plan's dataset after a version, if that version was of the same dataset."""
    if url != plan.dataset:
        return {}
    found: dict[str, dict[str, str]] = {}
    for number, commit in sorted(versions.log(f"{plan.dataset}@{plan.dataset_version}")):
        if number <= since or commit.operation != "rename-class":
            continue
        target, old, new = (str(commit.parameters[key]) for key in ("target", "old", "new"))
        names = found.setdefault(target, {})
        for first, last in list(names.items()):
            if last == old:
                names[first] = new
        names.setdefault(old, new)
    return found
