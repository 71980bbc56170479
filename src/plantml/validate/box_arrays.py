"""All boxes that a model finds in a photo, also those that are too weak to be in its record.

They are the `probabilities` of a prediction, best first: `boxes` [n, 4], x, y, w, h in pixels of the upright photo;
`score` [n, 1]; `decision` [n, 1], the place in `DECISIONS`; and by target `target.<name>` [n, classes]. All are
float32, and as records have them: NaN for a target that a box is without.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml.errors import PlantmlError
from plantml.model.contract import Contract
from plantml.model.pipeline import Pipeline, Prediction
from plantml.model.records import DIGITS, Decision, worst
from plantml.targets import Target

Floats = NDArray[np.float32]

DECISIONS: tuple[Decision, ...] = ("accept", "review", "unknown")

WEAKEST = 0.01
"""Score of the weakest boxes that are kept. Weaker ones are so seldom right that average precision does not change."""


def predictor(pipeline: Pipeline) -> Callable[[Sequence[tuple[str, bytes | PlantmlError]]], list[Prediction]]:
    """`Pipeline.predict_bytes` with all boxes; those of the record itself, and their counts, are left out."""
    contract = pipeline.bundle.contract
    classes = max((target.size for target in contract.targets), default=1)
    every = replace(pipeline, weakest=WEAKEST, top_k=classes)

    def predict(sources: Sequence[tuple[str, bytes | PlantmlError]]) -> list[Prediction]:
        return [_with_outputs(contract, each) for each in every.predict_bytes(sources)]

    return predict


def scores(outputs: Mapping[str, Floats]) -> NDArray[np.float64]:
    """The scores [n] as records have them."""
    # A float32 may lie below the threshold that its decimal number reaches.
    return outputs["score"][:, 0].astype(np.float64).round(DIGITS)


def given(numbers: Floats) -> NDArray[np.bool_]:
    """Which boxes have a prediction for a target, bool [n], from its outputs."""
    return ~np.isnan(numbers[:, 0])


def joined(contract: Contract, outputs: Mapping[str, Floats]) -> Floats:
    """The outputs of a photo as one array."""
    return np.column_stack([outputs[name] for name in _widths(contract)]).astype(np.float32).ravel()


def split(contract: Contract, numbers: Floats) -> dict[str, Floats]:
    """The outputs of a photo from `joined`."""
    widths = _widths(contract)
    ends = np.cumsum(list(widths.values()))
    columns = np.split(numbers.reshape(-1, ends[-1]), ends[:-1], axis=1)
    return dict(zip(widths, columns, strict=True))


def fits(contract: Contract, numbers: Floats) -> bool:
    """False for numbers that `joined` cannot have given."""
    return len(numbers) % sum(_widths(contract).values()) == 0


def _widths(contract: Contract) -> dict[str, int]:
    return {"boxes": 4, "score": 1, "decision": 1, **{f"target.{each.name}": each.size for each in contract.targets}}


def _with_outputs(contract: Contract, prediction: Prediction) -> Prediction:
    assert contract.detection is not None
    record = prediction.record
    if record.failure is not None:
        return prediction
    count = len(record.boxes)
    outputs = {
        "boxes": [[box[side] for side in "xywh"] for box in record.boxes],
        "score": [box["score"] for box in record.boxes],
        "decision": [DECISIONS.index(box["decision"]) for box in record.boxes],
    } | {
        f"target.{target.name}": [_numbers(target, box["targets"].get(target.name)) for box in record.boxes]
        for target in contract.targets
    }
    widths = _widths(contract)
    arrays = {name: np.array(values, np.float32).reshape(count, widths[name]) for name, values in outputs.items()}
    decision = worst(box["decision"] for box in record.boxes if box["score"] >= contract.detection.threshold)
    return replace(prediction, record=replace(record, boxes=(), counts=None, decision=decision), probabilities=arrays)


def _numbers(target: Target, answer: Mapping[str, Any] | None) -> list[float]:
    """A box's probabilities of all classes, or its value; NaN if it has none."""
    if answer is None:
        return [float("nan")] * target.size
    if target.kind == "value":
        return [answer["value"]]
    by_class = dict(answer["top"] if target.kind == "class" else answer["labels"])
    return [by_class.get(name, 0.0) for name in target.classes]
