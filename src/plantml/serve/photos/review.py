"""What a person should look at next, and what they decide.

A model predicts the photos of a dataset in the background. Photos without a label come first, by uncertainty and
distance from others (see `validate.review`); then those whose label the model believes least. Each decision is a
version of the dataset, with who reviewed the photo and when in its row. A photo that was reviewed comes again only to
somebody else, and only if it lacks a label that they judge.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import polars as pl

from plantml import storage
from plantml.concurrency import Stop, batched
from plantml.data import boxes as dataset_boxes
from plantml.data import editing, manifest, versions
from plantml.data.boxes import Box
from plantml.data.importers import Item
from plantml.data.manifest import Version
from plantml.errors import InputError, NotFoundError
from plantml.model.pipeline import Prediction
from plantml.serve.database import Database
from plantml.serve.models.model_pool import OpenModel
from plantml.serve.photos import arrival_checks, drawn_boxes
from plantml.serve.photos.arrival_checks import LabelError, Labels
from plantml.serve.photos.datasets import Datasets
from plantml.serve.recent import Recent
from plantml.serve.users import audit
from plantml.serve.users.caller import Caller
from plantml.serve.users.visibility import visible_labels, visible_record
from plantml.serve.web.problems import RequestError
from plantml.settings import Machine
from plantml.targets import Target
from plantml.validate import box_arrays, predictions, review
from plantml.validate.prediction_cache import PredictionCache
from plantml.validate.selection import DATASET, URL

MOST = 5000
"""Photos of a dataset that are predicted at a time; others come when these are reviewed."""

_MODELS, _CHUNK = 4, 64
Reason = Literal["unlabelled", "uncertain", "novel", "unlikely"]


@dataclass(frozen=True)
class Task:
    """A photo to look at.

    Attributes:
        name: of its row; empty for callers who may not see all labels, as a file's name often is one.
        image_id: SHA-256 of its bytes.
        width: pixels, upright.
        height: pixels, upright.
        why: `unlabelled`, `uncertain`, `novel`, or `unlikely` (the model does not believe its label).
        score: margin between the two best classes, the `unknown` score, or the score of the label; `None` without a
            prediction.
        labels: that it has, of targets that the caller may see.
        boxes: that it has; `None` where nobody has drawn any.
        prediction: the record of the model, as the caller may see it.
        predicted_boxes: those from the model's threshold on; `None` of a model of whole photos.
    """

    name: str
    image_id: str
    width: int
    height: int
    why: Reason
    score: float | None
    labels: Labels
    boxes: Sequence[Box] | None
    prediction: Mapping[str, Any] | None
    predicted_boxes: Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True)
class Queue:
    """The photos to look at next.

    Attributes:
        version: number of the dataset's version.
        done: photos that the model has predicted.
        total: photos that it is to predict now.
        tasks: best first, of those that were predicted so far.
    """

    version: int
    done: int
    total: int
    tasks: Sequence[Task]


@dataclass(frozen=True)
class NewBox:
    """A box as a reviewer drew it.

    Attributes:
        box: in pixels of the upright photo.
        index: of the box that it was, in the version that the reviewer saw; labels that they may not see stay.
    """

    box: Box
    index: int | None = None


@dataclass(frozen=True)
class Decision:
    """What a reviewer says of a photo.

    Attributes:
        image_id: SHA-256 of its bytes.
        labels: new ones, by target; others stay.
        boxes: all boxes of the photo; `None` leaves them.
        accept: the labels and boxes that it has are right, and so is the model's prediction of those that it lacks.
        seen: the version that the reviewer saw; if the photo has changed since, nothing is done.
        why: the reviewer's reason.
        new_class: allow classes that the dataset does not have.
    """

    image_id: str
    labels: Labels = field(default_factory=dict)
    boxes: Sequence[NewBox] | None = None
    accept: bool = False
    seen: int | None = None
    why: str = ""
    new_class: bool = False


class Reviews:
    """The photos of datasets that people should look at, and their decisions.

    Args:
        datasets: that are reviewed.
        database: of the audit log.
        machine: cache and network access.
    """

    def __init__(self, datasets: Datasets, database: Database, machine: Machine) -> None:
        self._datasets, self._database, self._machine = datasets, database, machine
        self._predicted: Recent[tuple[str, str], dict[str, Prediction | None]] = Recent(_MODELS)
        self._jobs: dict[tuple[str, str], Future[None]] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="review")

    def queue(self, dataset: str, model: OpenModel | None, caller: Caller, limit: int) -> Queue:
        """The photos to look at next; predictions that are missing are begun in the background.

        Args:
            dataset: its name.
            model: whose predictions count; without one, photos without labels come in their order.
            caller: judges the targets that they may see.
            limit: at most so many.

        Raises:
            NotFoundError: there is no such dataset, or it has no version.
            PlantmlError: the predictions failed.
        """
        version = self._datasets.load(dataset)
        finds_boxes = model is not None and model.pipeline.bundle.contract.detection is not None
        targets = _judged(version, model, caller)
        lacking, labelled = _split(version, targets, caller, finds_boxes=finds_boxes)
        if model is None:
            rows = lacking.head(limit).iter_rows(named=True)
            return Queue(version.number, 0, 0, [_task(row, version, caller) for row in rows])
        wanted = pl.concat([lacking, labelled]).head(MOST)
        predicted = self._ask_for(dataset, model, wanted)
        readable = [predicted.get(image_id) for image_id in wanted["image_id"]]
        done = sum(image_id in predicted for image_id in wanted["image_id"])
        rank = _Ranking(targets, finds_boxes, _threshold(model))
        picks = rank.lacking(wanted.head(lacking.height), readable, limit)
        rest = limit - len(picks)
        if rest > 0 and wanted.height > lacking.height:
            picks += rank.labelled(wanted, readable, lacking.height, rest)
        tasks = []
        for pick in picks:
            task = _task(wanted.row(pick.row, named=True), version, caller)
            prediction = readable[pick.row]
            assert prediction is not None  # or it had no place in the ranking
            record = visible_record(prediction.record.as_json(), caller) | {"image": task.name}
            predicted_boxes = _predicted_boxes(model, prediction, caller)
            tasks.append(
                replace(
                    task,
                    why=cast("Reason", pick.why),
                    score=pick.score,
                    prediction=record,
                    predicted_boxes=predicted_boxes,
                )
            )
        return Queue(version.number, done, wanted.height, tasks)

    def task(self, dataset: str, image_id: str, caller: Caller) -> tuple[Version, Task]:
        """One photo of the newest version, without a prediction: to think again. Raises `NotFoundError`."""
        version = self._datasets.load(dataset)
        row = version.rows.row(_places(version, image_id)[0], named=True)
        return version, _task(row, version, caller)

    def decide(self, dataset: str, decision: Decision, model: OpenModel | None, caller: Caller) -> Version:
        """Commit what a reviewer says of a photo; all rows of its bytes get the same. Safe to repeat.

        Args:
            dataset: its name.
            decision: of the caller.
            model: whose prediction is accepted where labels or boxes are missing.
            caller: a reviewer.

        Returns:
            The version that has it.

        Raises:
            NotFoundError: there is no such dataset or photo.
            RequestError: 409, the photo has changed since; 422, the labels or boxes are not possible.
        """
        url = self._datasets.url(dataset)
        seen = None if decision.seen is None else self._datasets.load(f"{dataset}@{decision.seen}")
        predicted: Mapping[str, Any] = {}
        if decision.accept and model is not None:
            prediction = self._prediction(dataset, decision.image_id, model)
            predicted = _accepted(model, prediction, self._datasets.load(dataset), caller)
        now = storage.now_utc()

        def apply(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...], None]:
            places = _places(version, decision.image_id)
            if seen is not None and _state(version, decision.image_id) != _state(seen, decision.image_id):
                raise RequestError(
                    409, "The photo has changed", f"version {version.number} has other labels or boxes than"
                    f" version {decision.seen}", "Look at it again: GET /v1/review",
                )  # fmt: skip
            row = version.rows.row(places[0], named=True)
            item = _item(version, row, decision, predicted, caller)
            targets = manifest.union(version.targets, [Target(n, "class") for n in item.labels if n not in row])
            conformed = replace(version, rows=manifest.conform(version.rows, targets), targets=targets)
            rows, targets, report = editing.corrected(conformed, dict.fromkeys(places, item))
            if not (report.relabelled or report.back_in_use) and row.get(editing.REVIEWER) == caller.name:
                return version.rows, version.targets, None
            rows = editing.mark_reviewed(rows, places, caller.name, now)
            return rows, targets, None

        parameters = {"reviewer": caller.name, "image_id": decision.image_id, "why": decision.why}
        committed = versions.change(url, "review", parameters, apply)
        detail = {"image_id": decision.image_id, "version": committed.version.number}
        if committed.changed:
            audit.note(self._database, caller, "dataset.review", dataset, detail)
        return committed.version

    def close(self) -> None:
        """End the predictions; what they have is cached."""
        self._ending.set()
        self._pool.shutdown(cancel_futures=True)

    # --- predictions --------------------------------------------------------------------------

    def _ask_for(self, dataset: str, model: OpenModel, rows: pl.DataFrame) -> Mapping[str, Prediction | None]:
        """The predictions of photos that are ready; work on the others begins."""
        key = dataset, model.digest
        with self._lock:
            predicted = self._predicted.use(key)
            if predicted is None:
                predicted = self._predicted[key] = {}
            job = self._jobs.get(key)
            if job is not None and job.done():
                del self._jobs[key]
                job.result()  # raises its error once; the next call tries again
                job = None
            missing = rows.filter(~pl.col("image_id").is_in(list(predicted))).unique("image_id", maintain_order=True)
            if job is None and missing.height:
                self._jobs[key] = self._pool.submit(self._predict, model, missing, predicted)
            return dict(predicted)

    def _predict(self, model: OpenModel, rows: pl.DataFrame, predicted: dict[str, Prediction | None]) -> None:
        # One thread, so that callers who wait for a prediction of their own photo do not wait longer.
        pipeline = replace(model.pipeline, threads=1)
        what = "boxes" if pipeline.bundle.contract.detection is not None else "photos"
        cache = PredictionCache.of(pipeline, what, self._machine)
        machine = predictions.Machine(self._machine, Stop())
        for places in batched(range(rows.height), _CHUNK):
            if self._ending.is_set():
                return
            chunk = rows[places]
            items: Sequence[Prediction | None]
            try:
                items = predictions.predict(pipeline, chunk, cache, machine, "review").items
            except InputError:  # not one of them can be read
                items = [None] * chunk.height
            predicted.update(zip(chunk["image_id"], items, strict=True))

    def _prediction(self, dataset: str, image_id: str, model: OpenModel) -> Prediction | None:
        """The model's prediction of one photo, computed now if it is not there."""
        known = self._predicted.get((dataset, model.digest), {})
        if image_id not in known:
            version = self._datasets.load(dataset)
            row = version.rows[_places(version, image_id)[:1]]
            fresh: dict[str, Prediction | None] = {}
            self._predict(model, _with_urls(version, row), fresh)
            return fresh.get(image_id)
        return known[image_id]


class _Ranking:
    """Which photos are worth a look, by the predictions of a model."""

    def __init__(self, targets: Sequence[Target], finds_boxes: bool, threshold: float) -> None:  # noqa: FBT001
        self._targets, self._finds_boxes, self._threshold = targets, finds_boxes, threshold

    def lacking(self, rows: pl.DataFrame, items: Sequence[Prediction | None], limit: int) -> list[review.Pick]:
        """Of photos that lack a label."""
        places = [at for at in range(rows.height) if (each := items[at]) is not None and each.probabilities is not None]
        ready = [each for at in places if (each := items[at]) is not None]
        if not self._finds_boxes:
            picks = review.choose(rows[places], ready, self._targets, limit)
            return [replace(pick, row=places[pick.row]) for pick in picks]
        scored = [review.Pick(at, "uncertain", self._box_margin(each)) for at, each in zip(places, ready, strict=True)]
        return sorted(scored, key=lambda pick: pick.score)[:limit]

    def labelled(
        self, rows: pl.DataFrame, items: Sequence[Prediction | None], first: int, limit: int
    ) -> list[review.Pick]:
        """Of photos from the row `first` on, which have all labels: those that the model believes least."""
        columns = {target.name: rows[target.name].to_list() for target in self._targets}
        picks = []
        for at in range(first, rows.height):
            each = items[at]
            if each is None or each.probabilities is None:
                continue
            if self._finds_boxes:
                picks.append(review.Pick(at, "uncertain", self._box_margin(each)))
                continue
            beliefs = [
                _belief(target, columns[target.name][at], each.probabilities[target.name]) for target in self._targets
            ]
            picks.append(review.Pick(at, "unlikely", min(beliefs, default=1.0)))
        return sorted(picks, key=lambda pick: pick.score)[:limit]

    def _box_margin(self, prediction: Prediction) -> float:
        """How far from the threshold the nearest box is: one just below may be missed, one just above be wrong."""
        scores = box_arrays.scores(prediction.probabilities or {})
        return float(np.abs(scores - self._threshold).min()) if len(scores) else 1.0


def _belief(target: Target, label: Any, probabilities: Any) -> float:
    """The score of a label: of the class, or of the least certain one of several."""
    by_class = dict(zip(target.classes, map(float, probabilities), strict=True))
    if target.kind == "class":
        return by_class.get(label, 0.0)
    return min((p if name in label else 1 - p for name, p in by_class.items()), default=1.0)


def _judged(version: Version, model: OpenModel | None, caller: Caller) -> list[Target]:
    """The targets of photos that a reviewer judges, with the classes of the model where there is one."""
    if model is not None and model.pipeline.bundle.contract.detection is not None:
        return []
    known = {target.name: target for target in version.targets}
    targets = version.targets if model is None else model.pipeline.bundle.contract.targets
    return [
        target
        for target in targets
        if caller.may_see(target.name)
        and target.name in known
        and known[target.name].kind == target.kind
        and target.kind != "value"
    ]


def _split(
    version: Version, targets: Sequence[Target], caller: Caller, *, finds_boxes: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Photos that lack a label (or boxes), and the others: each once, without those that were reviewed."""
    rows = version.usable()
    names = ["boxes"] if finds_boxes else [target.name for target in targets]
    lacks = pl.any_horizontal([pl.lit(value=False), *(pl.col(name).is_null() for name in names)])
    if editing.REVIEWER in rows.columns:
        by_other = lacks & (pl.col(editing.REVIEWER) != caller.name)
        rows = rows.filter(pl.col(editing.REVIEWER).is_null() | by_other)
    rows = _with_urls(version, rows.unique("image_id", maintain_order=True))
    return rows.filter(lacks), rows.filter(~lacks).sort("image_id")


def _with_urls(version: Version, rows: pl.DataFrame) -> pl.DataFrame:
    urls = pl.Series(URL, [version.image_url(path) for path in rows["path"]], dtype=pl.String)
    return rows.with_columns(pl.lit(version.ref).alias(DATASET), urls)


def _threshold(model: OpenModel) -> float:
    detection = model.pipeline.bundle.contract.detection
    return 0.0 if detection is None else detection.threshold


def _task(row: Mapping[str, Any], version: Version, caller: Caller) -> Task:
    """A photo to look at, without a prediction."""
    drawn = dataset_boxes.from_rows(row["boxes"])
    names = {target.name for target in version.targets}.union(*(box.labels for box in drawn or ()))
    shown = [target for target in version.targets if caller.may_see(target.name)]
    return Task(
        name=row["name"] if all(map(caller.may_see, names)) else "",
        image_id=row["image_id"],
        width=row["width"],
        height=row["height"],
        why="unlabelled",
        score=None,
        labels={target.name: row[target.name] for target in shown if row[target.name] is not None},
        boxes=None if drawn is None else [replace(box, labels=visible_labels(box.labels, caller)) for box in drawn],
        prediction=None,
        predicted_boxes=None,
    )


def _predicted_boxes(model: OpenModel, prediction: Prediction, caller: Caller) -> list[Mapping[str, Any]] | None:
    contract, outputs = model.pipeline.bundle.contract, prediction.probabilities
    if contract.detection is None or outputs is None:
        return None
    # Where a target is left out, another one can be told, which may be hidden: see `contract.Withheld`.
    telling = {name for rule in contract.withheld or () if not caller.may_see(rule.where) for name in rule.targets}
    names = [each.name for each in contract.targets if each.kind == "class" and caller.may_see(each.name)]
    answers = {name: outputs[f"target.{name}"] for name in names if name not in telling}
    given = {name: box_arrays.given(numbers) for name, numbers in answers.items()}
    classes = {target.name: target.classes for target in contract.targets}
    return [
        {
            **dict(zip("xywh", map(float, outputs["boxes"][at]), strict=True)),
            "score": float(score),
            "labels": {
                name: classes[name][int(numbers[at].argmax())] for name, numbers in answers.items() if given[name][at]
            },
        }
        for at, score in enumerate(box_arrays.scores(outputs))
        if score >= contract.detection.threshold
    ]


def _hidden(labels: Labels, caller: Caller) -> dict[str, Any]:
    return {name: label for name, label in labels.items() if not caller.may_see(name)}


# --- decisions --------------------------------------------------------------------------------


def _places(version: Version, image_id: str) -> list[int]:
    """Rows of a photo. Raises `NotFoundError`."""
    places = version.rows["image_id"].eq_missing(pl.Series([image_id])).arg_true().to_list()
    if not places:
        raise NotFoundError(f"There is no photo {image_id:.64} in the dataset", "", "Take an id of GET /v1/review.")
    return places


def _state(version: Version, image_id: str) -> list[Any]:
    """The name, status, boxes and labels of each row of a photo: equal if nothing has changed."""
    names = ["name", "status", "boxes", *sorted(target.name for target in version.targets)]
    rows = version.rows[_places(version, image_id)].select(names)
    return [{name: value for name, value in row.items() if value is not None} for row in rows.iter_rows(named=True)]


def _item(
    version: Version, row: Mapping[str, Any], decision: Decision, predicted: Mapping[str, Any], caller: Caller
) -> Item:
    """The labels and boxes of a photo after a decision, which are checked.

    Args:
        version: of the dataset.
        row: of the photo.
        decision: of the caller.
        predicted: labels by target and, under `boxes`, boxes: what is accepted where the photo has none.
        caller: a reviewer.
    """
    drawn = dataset_boxes.from_rows(row["boxes"])
    boxes = None if decision.boxes is None else _redrawn(decision.boxes, drawn or (), row, caller)
    labels = dict(decision.labels)
    if decision.accept:
        lacking = [target.name for target in version.targets if row[target.name] is None]
        labels = {name: predicted[name] for name in lacking if name in predicted} | labels
        if boxes is None and drawn is None:
            boxes = predicted.get("boxes")
        if not labels and boxes is None and drawn is None and len(lacking) == len(version.targets):
            raise RequestError(
                422, "There is nothing to accept", "the photo has no label, and no prediction is named",
                "Name the model whose prediction is right, or send labels.",
            )  # fmt: skip
    return Item(
        row["name"],
        "",
        labels=_checked(labels, version.targets, decision, caller),
        boxes=None if boxes is None else _with_checked_labels(boxes, version, decision, caller),
    )


def _accepted(model: OpenModel, prediction: Prediction | None, version: Version, caller: Caller) -> dict[str, Any]:
    """What a reviewer accepts with a prediction: labels by target, and boxes."""
    if prediction is None:
        return {}
    if (drawn := _predicted_boxes(model, prediction, caller)) is not None:
        return {"boxes": [Box(box["x"], box["y"], box["w"], box["h"], box["labels"]) for box in drawn]}
    answers = prediction.record.targets or {}
    return {
        target.name: answer["label"] if "label" in answer else [name for name, _ in answer["labels"]]
        for target in _judged(version, model, caller)
        if (answer := answers.get(target.name)) is not None
    }


def _checked(labels: Labels, targets: Sequence[Target], decision: Decision, caller: Caller) -> dict[str, Any]:
    try:
        return arrival_checks.checked_labels(labels, targets, caller, new_class=decision.new_class)[0]
    except LabelError as error:
        raise RequestError(422, "The labels are not possible", f"{error.what}: {error.why}", "Correct them.") from error


def _with_checked_labels(boxes: Sequence[Box], version: Version, decision: Decision, caller: Caller) -> Sequence[Box]:
    known = drawn_boxes.targets(version)
    return [
        replace(
            box,
            labels=_checked(visible_labels(box.labels, caller), known, decision, caller) | _hidden(box.labels, caller),
        )
        for box in boxes
    ]


def _redrawn(new: Sequence[NewBox], before: Sequence[Box], row: Mapping[str, Any], caller: Caller) -> list[Box]:
    """Boxes as a reviewer drew them, clipped to the photo, with the labels that they could not see."""
    if len(new) > drawn_boxes.MOST:
        raise RequestError(422, "Too many boxes", f"a photo has at most {drawn_boxes.MOST}", "Draw fewer.")
    boxes = []
    for each in new:
        box, hidden = each.box, {}
        if each.index is not None:
            if each.index >= len(before):
                raise RequestError(422, "A box is unknown", f"there is no box {each.index}", "Look at the photo again.")
            hidden = _hidden(before[each.index].labels, caller)
        try:
            box = drawn_boxes.clipped(box, row["width"], row["height"])
        except LabelError as error:
            raise RequestError(422, "A box is empty", error.why, "Draw it in the photo.") from error
        if strange := [name for name in box.labels if not caller.may_see(name)]:
            raise RequestError(422, "A label is not possible", f"the role {strange[0]:.64} is needed", "Leave it out.")
        boxes.append(replace(box, labels={**hidden, **box.labels}))
    return boxes
