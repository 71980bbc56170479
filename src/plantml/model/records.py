"""Records: a model's prediction for one image, or the reason of its failure.

The keys are always there; `plantml_record` is the version of their meaning.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plantml.errors import UsageError
from plantml.model.contract import ANOMALY, Contract
from plantml.model.runtimes import Outputs
from plantml.targets import Target, tied, valid_combinations

FORMAT = 1
DIGITS = 6
"""Decimal places of scores and values."""

_SURROGATE = re.compile(r"[\ud800-\udfff]")

Decision = Literal["accept", "review", "unknown"]
_SEVERITY: Mapping[Decision, int] = {"accept": 0, "review": 1, "unknown": 2}


@dataclass(frozen=True, slots=True)
class Record:
    """See `docs/records.md`.

    Attributes:
        image: URL of the image.
        image_id: SHA-256 of its bytes; `None` if they could not be read.
        width: of the upright picture, pixels; `None` if unreadable.
        height: of the upright picture, pixels; `None` if unreadable.
        model: digest of the model.
        targets: by target: `label`, `score` and `top` for a class, `labels` for a multilabel, `value`
            and `unit` for a value; without targets that do not apply, see `contract.Withheld`. Empty for models that
            find boxes, `None` after a failure.
        boxes: objects that were found, best first: `x`, `y`, `w`, `h` in pixels of the upright picture, `score`,
            `targets` and `decision`. Empty for models of whole images.
        decision: the worst over all targets, or over all boxes; `None` after a failure.
        unknown: how unlike the training photos it is; `None` after a failure.
        failure: why there is no prediction; `None` if there is one.
        counts: of the boxes, see `Reader.count`; `None` for models of whole images, and after a failure.
        heat_map: where an image is unlike normal ones, see `Reader.read_heat_map`; `None` for other models, and after a
            failure.
        form: of the model's network, `name` and the digest that it is a form `of`; `None` for float32.
    """

    image: str
    image_id: str | None
    width: int | None
    height: int | None
    model: str
    targets: Mapping[str, Mapping[str, Any]] | None
    boxes: Sequence[Mapping[str, Any]]
    decision: Decision | None
    unknown: float | None
    failure: str | None
    counts: Mapping[str, Any] | None = None
    heat_map: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """The record as JSON types, keys in their documented order; without `counts`, `heat_map`, `form` if `None`."""
        keys = {name: getattr(self, name) for name in self.__slots__}
        for name in ("counts", "heat_map", "form"):
            if keys[name] is None:
                del keys[name]
        return {"plantml_record": FORMAT, **keys, "boxes": list(self.boxes)}


def worst(decisions: Iterable[Decision]) -> Decision:
    """The worst of some decisions; `accept` if there are none."""
    return max(decisions, key=_SEVERITY.__getitem__, default="accept")


def failed(
    image: str, model: str, reason: str, image_id: str | None = None, form: Mapping[str, str] | None = None
) -> Record:
    """The record of an image without a prediction."""
    return Record(image, image_id, None, None, model, None, (), None, None, reason, form=form)


def parse(line: str) -> dict[str, Any]:
    r"""A record from its line of JSON, for what takes Unicode only.

    A file's name need not be UTF-8. Python keeps other bytes as halves of surrogate pairs, which are written out here:
    the name `caf\xe9.jpg` becomes the text `caf\udce9.jpg`.
    """
    content: dict[str, Any] = json.loads(_SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", line))
    return content


class Reader:
    """Turns a model's outputs into the targets and decision of records.

    Args:
        contract: of the model.
        top_k: classes to list per class target, best first.
        weakest: score from which boxes are read, if below the model's threshold.
    """

    def __init__(self, contract: Contract, top_k: int = 5, weakest: float = 1.0) -> None:
        self.contract, self.top_k, self.weakest = contract, top_k, weakest
        self._pair = tied(contract.heads)
        self._seen = set(contract.combinations.seen) if contract.combinations else None

    def read(self, outputs: Outputs, row: int) -> tuple[dict[str, Mapping[str, Any]], Decision, float]:
        """Targets, decision and unknown score of one row of a batch's outputs."""
        if self.contract.anomaly is not None:
            return self._read_anomaly(_rounded(outputs["score"][row]))
        answers, decision = self._answers({name: values[row] for name, values in outputs.items()})
        unknown = round(float(outputs["unknown"][row]), DIGITS)
        return answers, "unknown" if unknown > self.contract.unknown_threshold else decision, unknown

    def _read_anomaly(self, score: float) -> tuple[dict[str, Mapping[str, Any]], Decision, float]:
        is_anomalous = score > self.contract.unknown_threshold
        ranked = [["anomalous", score], ["normal", round(1 - score, DIGITS)]][:: 1 if is_anomalous else -1]
        answer = {"label": ranked[0][0], "score": score, "top": ranked[: self.top_k]}
        return {ANOMALY.name: answer}, "unknown" if is_anomalous else "accept", score

    def read_heat_map(self, outputs: Outputs, row: int, width: int, height: int) -> dict[str, Any]:
        """Where an image is unlike normal ones: a grid of cells over a rectangle of the image.

        `x`, `y`, `w` and `h` are the rectangle, pixels of the upright image, and may reach beyond it; `rows` and
        `columns` share it evenly; `values` are their scores, row by row, as bytes from 0 to 255 for 0 to 1, in base64.
        """
        fit, cells = self.contract.input, outputs["heat_map"][row]
        [sides] = fit.placement(width, height).to_photo(np.array([[0, 0, fit.width, fit.height]], np.float64))
        values = np.clip(np.round(255 * cells), 0, 255).astype(np.uint8)
        return {
            **dict(zip("xywh", sides.round(2).tolist(), strict=True)),
            "rows": cells.shape[0],
            "columns": cells.shape[1],
            "values": base64.b64encode(values.tobytes()).decode(),
        }

    def read_boxes(self, outputs: Outputs, row: int, width: int, height: int) -> list[Mapping[str, Any]]:
        """The boxes of one row of a detector's outputs that count, best first.

        Args:
            outputs: of a batch.
            row: of the image.
            width: of the upright image, pixels.
            height: likewise.
        """
        detection = self.contract.detection
        assert detection is not None
        weakest = min(self.weakest, detection.threshold)
        near = outputs["score"][row] >= weakest - 10**-DIGITS  # rounding is slow, and of 300 few count
        scores = [_rounded(score) for score in outputs["score"][row][near]]
        number = sum(score >= weakest for score in scores)
        corners = self.contract.input.placement(width, height).to_photo(outputs["boxes"][row, :number])
        low, high = corners[:, :2].clip(0, [width, height]), (corners[:, :2] + corners[:, 2:]).clip(0, [width, height])
        sides = np.hstack([low, high - low]).round(2)
        boxes: list[Mapping[str, Any]] = []
        for place in np.flatnonzero((sides[:, 2:] > 0).all(axis=1)).tolist():  # others lie in the padding
            answers, decision = self._answers(
                {name: values[row, place] for name, values in outputs.items() if name.startswith("target.")}
            )
            decision = decision if scores[place] >= detection.accept else "review"
            named = dict(zip("xywh", sides[place].tolist(), strict=True))
            boxes.append({**named, "score": scores[place], "targets": answers, "decision": decision})
        return boxes

    def with_boxes(self, record: Record, boxes: Sequence[Mapping[str, Any]]) -> Record:
        """A detector's record with these boxes, their counts and the worst of their decisions."""
        decision = worst(box["decision"] for box in boxes)
        return replace(record, boxes=tuple(boxes), decision=decision, counts=self.count(boxes))

    def count(self, boxes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Counts of boxes: `boxes` in all, and by target with classes, by class in the model's order."""
        counts: dict[str, Any] = {"boxes": len(boxes)}
        for target in self.contract.targets:
            if target.classes:
                labels = Counter(label for box in boxes for label, _ in labels_of(box["targets"].get(target.name, {})))
                counts[target.name] = {name: labels[name] for name in target.classes}
        return counts

    def _answers(self, outputs: Mapping[str, NDArray[np.float32]]) -> tuple[dict[str, Mapping[str, Any]], Decision]:
        """The answers for one image or box, and the worst decision over its targets."""
        answers, doubtful = {}, set()
        for target in self.contract.heads:
            answer, score = _READERS[target.kind](target, outputs[f"target.{target.name}"], self.top_k)
            answers[target.name] = answer
            if score < self.contract.thresholds.get(target.name, 0.0):
                doubtful.add(target.name)
        for rule in self.contract.withheld or ():
            if answers.get(rule.where, {}).get("label") == rule.label:
                for name in rule.targets:
                    answers.pop(name, None)
        return answers, "review" if not doubtful.isdisjoint(answers) or self._contradicts(answers) else "accept"

    def _contradicts(self, answers: Mapping[str, Mapping[str, Any]]) -> bool:
        """True for "diseased" with the disease "none": a disease, but none in particular.

        Also for labels that are each the likeliest, but not one of the known combinations of a restricted model.
        """
        if self.contract.combinations is not None and self._seen is not None:
            combined = self.contract.combinations.targets
            return (
                set(combined) <= set(answers) and tuple(answers[name]["label"] for name in combined) not in self._seen
            )
        if self._pair is None or not {target.name for target in self._pair} <= set(answers):
            return False
        health, disease = self._pair
        at = (target.classes.index(answers[target.name]["label"]) for target in (health, disease))
        return not valid_combinations(health, disease)[tuple(at)]


def heat_of(heat_map: Mapping[str, Any]) -> NDArray[np.float32]:
    """The cells of a record's `heat_map`: float32 [rows, columns], 0 (normal) to 1."""
    values = np.frombuffer(base64.b64decode(heat_map["values"]), np.uint8)
    return np.asarray(values.reshape(heat_map["rows"], heat_map["columns"]) / 255, np.float32)


def answer_to(target: str, answers: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    """The name and prediction of a class target; of the first other one where it does not apply."""
    return next((name, answers[name]) for name in (target, *answers) if "label" in answers.get(name, {}))


def labels_of(prediction: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The labels of a prediction for one target, with their scores; none of a value."""
    return [(prediction["label"], prediction["score"])] if "label" in prediction else list(prediction.get("labels", ()))


def _read_class(target: Target, output: NDArray[np.float32], top_k: int) -> tuple[Mapping[str, Any], float]:
    order, scores = np.argsort(-output, kind="stable")[:top_k].tolist(), output.tolist()
    top = [[target.classes[i], round(scores[i], DIGITS)] for i in order]
    return {"label": top[0][0], "score": top[0][1], "top": top}, float(top[0][1])


def _read_multilabel(target: Target, output: NDArray[np.float32], _: int) -> tuple[Mapping[str, Any], float]:
    order = np.argsort(-output, kind="stable")
    labels = [[target.classes[i], _rounded(output[i])] for i in order if output[i] >= 0.5]
    # The least certain label decides, present or absent.
    score = float(np.maximum(output, 1 - output).min()) if len(output) else 1.0
    return {"labels": labels}, score


def _read_value(target: Target, output: NDArray[np.float32], _: int) -> tuple[Mapping[str, Any], float]:
    return {"value": _rounded(output[0]), "unit": target.unit}, 1.0


_READERS = {"class": _read_class, "multilabel": _read_multilabel, "value": _read_value}


def _rounded(number: np.float32) -> float:
    return round(float(number), DIGITS)


def allowed_failures(limit: int | str, images: int) -> int:
    """`3`, or `2%` of the images, as a number. Raises `UsageError`."""
    match = re.fullmatch(r"([0-9]{1,15})|([0-9]{1,3}(?:\.[0-9]{1,15})?)%", str(limit))
    if match is None:
        raise UsageError(f"{limit!r} is not a number of failures", "", "Write a number or a percentage, such as 2%.")
    return int(match[1]) if match[1] else int(images * float(match[2]) / 100)
