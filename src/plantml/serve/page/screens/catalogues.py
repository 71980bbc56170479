"""What forms offer: models, datasets, targets."""

from collections.abc import Mapping, Sequence

from plantml.errors import PlantmlError
from plantml.serve import model_history
from plantml.serve.page import labels
from plantml.serve.photos import drawn_boxes
from plantml.serve.service import Service
from plantml.serve.users.caller import Caller
from plantml.targets import Target


def models(service: Service) -> list[str]:
    """Names of the models."""
    return [model.name for model in model_history.summaries(service)]


def target_names(service: Service) -> set[str]:
    """Targets of the datasets, and of the default model if it can be opened."""
    names = {target.name for name in service.datasets.names for target in service.datasets.head(name).targets}
    try:
        names |= {target.name for target in service.models.get().pipeline.bundle.contract.targets}
    except PlantmlError:  # no model, or several: the datasets tell enough
        return names
    return names


def label_form(service: Service, caller: Caller) -> Mapping[str, Sequence[Target]]:
    """What a caller may label: the visible targets of each dataset; nothing without the role `contributor`."""
    if not caller.may("contributor"):
        return {}
    return {name: labels.visible(service.datasets.head(name).targets, caller) for name in service.datasets.names}


def box_targets(service: Service, caller: Caller, dataset: str) -> Sequence[Target]:
    """What a caller may label boxes with; nothing for a dataset without boxes."""
    version = service.datasets.head(dataset)
    if version.rows["boxes"].null_count() == len(version.rows):
        return ()
    return labels.visible(drawn_boxes.targets(version), caller)
