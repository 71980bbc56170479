"""The contract of a model: targets, input, calibration, thresholds and origin."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plantml.errors import InputError
from plantml.imaging import Fit
from plantml.model.covariates import Covariate
from plantml.targets import Target, Threshold, check_name

FORMAT = 1

_LARGEST = 1 << 20
"""Largest height, width, embedding and bank; anything larger would not fit into memory."""

ANOMALY = Target("anomaly", "class", ("normal", "anomalous"))
"""The target of a model that learnt from normal photos only."""

AGAIN = "Fetch it again from its origin, or export or train it again."


class Architecture(BaseModel):
    """The network, in enough detail to rebuild it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    embedding: int = Field(description="length of the embedding; in a detector, channels of its map")
    mean: tuple[float, float, float] = Field(description="of pixels in 0 to 1, inside the network")
    std: tuple[float, float, float]
    bank: int = Field(description="training embeddings kept for the unknown score; 0 in a detector, which has none")


class Origin(BaseModel):
    """The dataset version that a model was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    version: int
    fingerprint: str
    crops: bool | None = Field(default=None, description="true for crops of the boxes of its photos")
    with_covariates: str | None = Field(
        default=None, description="fingerprint of its photos with the covariates, which that of a version leaves out"
    )


class Combinations(BaseModel):
    """The combinations of classes that a restricted model can predict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: tuple[str, ...] = Field(description="names of the class targets that are combined")
    seen: tuple[tuple[str, ...], ...] = Field(description="one class of each, in the order of `targets`")


class Withheld(BaseModel):
    """Targets that are not predicted where another one has some class: an empty cell of a tray has no species."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: tuple[str, ...] = Field(description="names of the targets that records leave out")
    where: str = Field(description="name of the class target that decides")
    label: str = Field(description="the class of `where` with which they do not apply")

    def __str__(self) -> str:
        *others, last = self.targets
        return f"{', '.join(others)}{' and ' if others else ''}{last} where {self.where} is {self.label}"


class Detection(BaseModel):
    """How a model finds boxes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boxes: int = Field(description="largest number of boxes per photo")
    slope: float = Field(description="calibration of the centre's logit, inside the graph: slope * logit + offset")
    offset: float
    threshold: float = Field(description="score from which a box counts")
    accept: float = Field(description="score from which a box is accepted; between the two it is for review")
    overlap: float | None = Field(
        default=None,
        description="IoU with a better box from which a box is a second one of its object; without: all count",
    )
    tile: int | None = Field(
        default=None, description="side of the tiles it was trained on, pixels of the photo; without: whole photos"
    )
    classifier: str | None = Field(
        default=None, description="digest of the model that predicts the targets, from a crop of each box"
    )


class FalseAlarms(BaseModel):
    """The share of normal validation photos that a model calls anomalous.

    They set the threshold, so the share is that of the threshold's choice; the interval is of other photos.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    wanted: float = Field(description="largest share that the threshold was set for")
    share: float
    low: float = Field(description="95 % limits (Clopper and Pearson 1934), each group counted once")
    high: float
    photos: int
    groups: int


class Anomaly(BaseModel):
    """How a model finds photos that are unlike normal ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    normal: str = Field(description="which photos it learnt from, as `target=class`")
    by: str | None = Field(default=None, description="target, such as the crop, by whose classes normal photos differ")
    classes: tuple[str, ...] | None = Field(
        default=None, description="of this target in normal photos; a photo is compared with those of the nearest"
    )
    levels: tuple[int, ...] = Field(description="strides of the backbone's maps whose features it compares")
    distance: float = Field(description="of a photo to normal ones at which its score is one half, the threshold")
    cell_distance: float = Field(description="of a cell of the heat map, likewise")
    false_alarms: FalseAlarms


class Contract(BaseModel):
    """Everything that a user of a model must know.

    A `None` does not apply, or the contract is older than the field.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    targets: tuple[Target, ...]
    input: Fit
    covariates: tuple[Covariate, ...] | None = Field(
        default=None, description="measured columns that may come with a photo, in the order of the network's inputs"
    )
    architecture: Architecture
    temperatures: Mapping[str, float] = Field(description="calibration, by target; already inside the graph")
    biases: Mapping[str, tuple[float, ...]] | None = Field(
        default=None, description="calibration, by target and class: added to the divided logits; inside the graph too"
    )
    thresholds: Mapping[str, float] = Field(description="score from which a target's prediction is accepted")
    target_risk: float | None = Field(
        default=None, description="largest share of wrong predictions that thresholds were set for"
    )
    acceptance: Mapping[str, Threshold] | None = Field(
        default=None, description="measured on the validation photos for each threshold, see `targets.Threshold`"
    )
    unknown_threshold: float = Field(description="`unknown` above this is unlike the training photos")
    combinations: Combinations | None = Field(
        default=None,
        description="predictions are restricted to these, inside the graph; without: to consistent health and disease",
    )
    withheld: tuple[Withheld, ...] | None = Field(
        default=None, description="targets that do not apply where another one has some class; left out of records"
    )
    detection: Detection | None = Field(
        default=None, description="how boxes are found, which the targets are about; without: targets are of the photo"
    )
    anomaly: Anomaly | None = Field(
        default=None, description="how photos unlike normal ones are found; then `anomaly` is the only target"
    )
    derived_from: str | None = Field(default=None, description="digest of the model that this one was quantised from")
    dataset: Origin
    unlabelled: Origin | None = Field(
        default=None, description="the dataset version whose photos it also learnt from, without their labels"
    )
    metrics: Mapping[str, float] = Field(description="of the validation split")
    seed: int
    versions: Mapping[str, str] = Field(description="of plantml and the libraries that made it")

    @property
    def task(self) -> Literal["image", "boxes", "tray", "anomaly"]:
        """Targets of the whole image, of each box, of each box by a classifier of its own, or how unlike normal."""
        if self.detection is None:
            return "anomaly" if self.anomaly else "image"
        return "tray" if self.detection.classifier else "boxes"

    @property
    def heads(self) -> tuple[Target, ...]:
        """The targets that the network itself predicts."""
        return () if self.task in {"tray", "anomaly"} else self.targets

    def judged_by(self, classifier: "Contract") -> "Contract":
        """The contract of a model of two stages: it finds boxes as this one says, and judges them as the other says."""
        names = ("targets", "thresholds", "temperatures", "biases", "acceptance", "unknown_threshold", "withheld")
        return self.model_copy(update={name: getattr(classifier, name) for name in names})

    def canonical(self) -> bytes:
        """Canonical bytes: equal for equal contracts, also after new optional fields are added."""
        return json.dumps(self.as_json(), sort_keys=True, separators=(",", ":")).encode()

    def as_json(self) -> dict[str, Any]:
        """As JSON types, without what is `None`."""
        return self.model_dump(mode="json", exclude_none=True)


def parse_contract(where: str, content: Any) -> Contract:
    """A contract from parsed JSON. Raises `InputError` with its first error."""
    if isinstance(content, dict) and content.get("format") != FORMAT:
        raise InputError(
            f"{where} has bundle format {content.get('format')!r:.40}",
            f"this plantml reads {FORMAT}",
            "Update plantml.",
        )
    try:
        contract = Contract.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = _REASONS.get(first["type"], first["msg"])
        raise InputError(f"{where} is not a valid model contract", f"{key}: {reason}", AGAIN) from error
    if json.dumps(content, sort_keys=True, separators=(",", ":")).encode() != contract.canonical():
        raise InputError(f"{where} is not a valid model contract", "a value has the wrong type", AGAIN)
    why = next(_contradictions(contract), None)
    if why is not None:
        raise InputError(f"{where} is not a valid model contract", why, AGAIN)
    return contract


def _contradictions(contract: Contract) -> Iterator[str]:
    """Contradictions in a contract, in order: a later one assumes that there is no earlier one."""
    sizes = {target.name: target.size for target in contract.targets}
    if (not sizes and contract.detection is None) or len(sizes) < len(contract.targets):
        yield "targets: there are none, or two have the same name"
    for target in contract.targets:
        check_name(target.name)
        if len(set(target.classes)) < len(target.classes) or bool(target.classes) == (target.kind == "value"):
            yield f"targets: the classes of {target.name} do not fit a {target.kind} target"
    numbers = [contract.input.height, contract.input.width, contract.architecture.embedding]
    numbers.append(contract.detection.boxes if contract.detection else contract.architecture.bank)
    if not all(1 <= number <= _LARGEST for number in numbers):
        yield f"a size is not between 1 and {_LARGEST:,}"
    if contract.detection and contract.detection.boxes > contract.input.height * contract.input.width:
        yield "detection.boxes: there are more than pixels"
    if contract.anomaly:
        yield from _anomaly_contradictions(contract, contract.anomaly)
    for key in ("temperatures", "biases", "thresholds", "acceptance"):
        strange = [name for name in getattr(contract, key) or {} if name not in sizes]
        if strange:
            yield f"{key}: there is no target {strange[0]!r:.80}"
    yield from _calibration_contradictions(contract, sizes)
    yield from _covariate_contradictions(contract)
    yield from _class_contradictions(contract, sizes)


def _class_contradictions(contract: Contract, sizes: Mapping[str, int]) -> Iterator[str]:
    classes = {target.name: target.classes for target in contract.targets if target.kind == "class"}
    combined = contract.combinations or Combinations(targets=(), seen=())
    places = [classes.get(name, ()) for name in combined.targets]
    for each in combined.seen:
        if len(each) != len(places) or not all(map(tuple.__contains__, places, each)):
            yield f"combinations: {', '.join(each)!r:.80} is not a combination of its classes"
    for rule in contract.withheld or ():
        if rule.label not in classes.get(rule.where, ()) or not set(rule.targets) <= set(sizes) - {rule.where}:
            yield f"withheld: {str(rule)!r:.200} does not fit the targets"


def _calibration_contradictions(contract: Contract, sizes: Mapping[str, int]) -> Iterator[str]:
    if not all(number > 0 for number in contract.temperatures.values()):
        yield "temperatures: all must be above 0"
    if any(len(numbers) != sizes[name] for name, numbers in (contract.biases or {}).items()):
        yield "biases: there must be one per class"


def _anomaly_contradictions(contract: Contract, anomaly: Anomaly) -> Iterator[str]:
    if contract.targets != (ANOMALY,) or contract.detection is not None:
        yield "anomaly: such a model has the target anomaly, with the classes normal and anomalous, and no other"
    strides = anomaly.levels
    if not strides or list(strides) != sorted(set(strides)) or not all(1 <= stride <= 64 for stride in strides):
        yield "anomaly.levels: they must be strides from 1 to 64, in rising order"
    elif contract.input.height % strides[-1] or contract.input.width % strides[-1]:
        yield "anomaly.levels: the input is not a multiple of them"
    if not all(0 < distance < float("inf") for distance in (anomaly.distance, anomaly.cell_distance)):
        yield "anomaly: distances must be above 0"
    if (anomaly.by is None) != (anomaly.classes is None) or anomaly.classes == ():
        yield "anomaly.classes: there must be some of the target that `by` names"


def _covariate_contradictions(contract: Contract) -> Iterator[str]:
    covariates = contract.covariates
    if covariates is None:
        return
    if not covariates or contract.detection is not None:
        yield "covariates: there are none, or the model finds boxes"
    if len({each.name for each in covariates} - {target.name for target in contract.targets}) < len(covariates):
        yield "covariates: two have the same name, or one is a target"
    yield from (f"covariates: {fault}" for each in covariates if (fault := each.fault()))


_REASONS = {
    "extra_forbidden": f"bundle format {FORMAT} has no such key; another version of plantml wrote it",
    "missing": "it is missing",
}
"""Our wording of pydantic's errors, by type."""
