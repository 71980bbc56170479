"""A model among more classes than it knows: it gives those it does not know the probability 0.

So a model in service, which has never heard of a new disease, and a challenger that has, are judged on the same photos:
what the first one cannot say, it gets wrong.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from plantml.imaging import Pixels
from plantml.model.bundle import Bundle
from plantml.model.runtimes import Outputs, Runtime
from plantml.targets import Target


class AlignedRuntime:
    """A runtime with columns of zeros for classes that its model does not know.

    Args:
        runtime: of the model.
        more: number of further classes, by target.
        classes: that are answered now, by target; they name the runtime, as kept answers depend on them.
    """

    def __init__(self, runtime: Runtime, more: Mapping[str, int], classes: Mapping[str, Sequence[str]]) -> None:
        self._runtime, self._more = runtime, more
        key = hashlib.sha256(json.dumps(classes, sort_keys=True).encode()).hexdigest()[:12]
        self.name = f"{runtime.name} among {key}"

    def run(self, batch: Pixels) -> Outputs:
        """See `runtimes.Runtime.run`."""
        outputs = dict(self._runtime.run(batch))
        for name, more in self._more.items():
            found = outputs[f"target.{name}"]
            outputs[f"target.{name}"] = np.concatenate([found, np.zeros((len(found), more), found.dtype)], axis=1)
        return outputs


def align_classes(bundle: Bundle, runtime: Runtime, targets: Sequence[Target]) -> tuple[Bundle, Runtime]:
    """A bundle and its runtime that know all classes of a dataset's targets, their own ones first."""
    theirs = {target.name: target for target in targets}
    wide, more = [], {}
    for target in bundle.contract.targets:
        other = theirs.get(target.name)
        new = () if other is None or other.kind != target.kind else tuple(
            name for name in other.classes if name not in target.classes
        )  # fmt: skip
        if new:
            more[target.name] = len(new)
        wide.append(replace(target, classes=(*target.classes, *new)))
    if not more:
        return bundle, runtime
    contract = bundle.contract.model_copy(update={"targets": tuple(wide)})
    classes = {target.name: target.classes for target in wide}
    return replace(bundle, contract=contract), AlignedRuntime(runtime, more, classes)
