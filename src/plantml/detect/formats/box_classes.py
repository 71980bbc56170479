"""One class per box, as other programs have it."""

from collections.abc import Mapping
from typing import Any

from plantml.model.contract import Contract


class BoxClasses:
    """Numbers for the classes of boxes, from 0. Other programs give a box one class, so labels are joined.

    With one target they are its classes in order; else the combinations that occur, such as `tomato___rust`.

    Args:
        contract: of a model that finds boxes.

    Attributes:
        names: by number.
    """

    def __init__(self, contract: Contract) -> None:
        self._targets = [target for target in contract.targets if target.kind == "class"]
        self.names = list(self._targets[0].classes) if len(self._targets) == 1 else []
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def number(self, box: Mapping[str, Any]) -> int:
        """The number of a box's class."""
        name = self.name(box)
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def name(self, box: Mapping[str, Any]) -> str:
        """The name of a box's class; `object` without targets."""
        from plantml.data.exporters.naming import OBJECT, class_name  # loads polars

        answers = box["targets"]
        labels = {each.name: answers[each.name]["label"] for each in self._targets if each.name in answers}
        return next(iter(labels.values())) if len(labels) == 1 else class_name(labels, OBJECT)
