"""Align a model's classes with those of a dataset: classes it does not know get probability 0.

So a model in service that does not know a new disease, and a challenger that does, are evaluated on the same photos, or
boxes: the first one gets the new disease wrong.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from plantml.imaging import Pixels
from plantml.model.bundle import Bundle
from plantml.model.covariates import Columns
from plantml.model.runtimes import Outputs, Runtime, TwoStageRuntime
from plantml.targets import Target


class AlignedRuntime:
    """A runtime with a probability of 0 for classes that its model does not know: `missing` is their number by target.

    Its name, which keys cached predictions, depends on all classes.
    """

    def __init__(self, runtime: Runtime, missing: Mapping[str, int], classes: Mapping[str, Sequence[str]]) -> None:
        self._runtime, self._missing = runtime, missing
        key = hashlib.sha256(json.dumps(classes, sort_keys=True).encode()).hexdigest()[:12]
        self.name = f"{runtime.name} among {key}"

    def run(self, batch: Pixels, columns: Columns | None = None) -> Outputs:
        """See `runtimes.Runtime.run`."""
        outputs = dict(self._runtime.run(batch, columns))
        for name, count in self._missing.items():
            scores = outputs[f"target.{name}"]  # of photos [N, classes], of boxes [N, K, classes]
            unknown = np.zeros((*scores.shape[:-1], count), scores.dtype)
            outputs[f"target.{name}"] = np.concatenate([scores, unknown], axis=-1)
        return outputs


def align_classes(bundle: Bundle, runtime: Runtime, targets: Sequence[Target]) -> tuple[Bundle, Runtime]:
    """Extend a bundle and its runtime to all classes of a dataset's targets, their own ones first.

    Of two stages, the classifier is extended too. The targets are those of the boxes for a model that finds boxes.
    """
    dataset_targets = {target.name: target for target in targets}
    aligned, missing = [], {}
    for target in bundle.contract.targets:
        other = dataset_targets.get(target.name)
        new = () if other is None or other.kind != target.kind else tuple(
            name for name in other.classes if name not in target.classes
        )  # fmt: skip
        if new:
            missing[target.name] = len(new)
        aligned.append(replace(target, classes=(*target.classes, *new)))
    if not missing:
        return bundle, runtime
    contract = bundle.contract.model_copy(update={"targets": tuple(aligned)})
    if isinstance(runtime, TwoStageRuntime):
        judge = align_classes(runtime.bundle, runtime.classifier, targets)
        return replace(bundle, contract=contract), TwoStageRuntime(runtime.detector, *judge)
    classes = {target.name: target.classes for target in aligned}
    return replace(bundle, contract=contract), AlignedRuntime(runtime, missing, classes)
