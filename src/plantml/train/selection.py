"""The photos of a training. Imports nothing heavy, so that input errors are reported at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from plantml import storage
from plantml.data import boxes, folds, normality, versions
from plantml.data.filters import matching
from plantml.data.manifest import NO_PHOTO, Version
from plantml.errors import InputError
from plantml.registry import references
from plantml.targets import Target
from plantml.train.config import Auto, Task, TrainConfig
from plantml.train.run_folder import PLAN


@dataclass(frozen=True)
class Selection(Version):
    """The photos of a version that are trained on, its rows without a photo, and what is learnt of them.

    Attributes:
        task: of `boxes` and `tray`, the targets are those of the boxes; of `anomaly`, the train split has only normal
            photos.
        why: the reason, if it was left to the data.
        normal: what normal photos are, as `target=class`; of the task `anomaly`.
        origin: the version whose boxes these photos were cut from; a model names that one, as it outlives the run.
    """

    task: Task = "image"
    why: str = ""
    normal: str = ""
    origin: Version | None = None


def select(dataset: str | Version, config: TrainConfig) -> Selection:
    """The version with the configured photos and their classes; for a fold, with the fold's split.

    Raises:
        InputError: there is no such version, or it has no boxes to learn.
    """
    version = versions.load(dataset) if isinstance(dataset, str) else dataset
    if isinstance(version, Selection):
        return version
    version = matching(version, config.where)
    if config.fold:
        version = folds.of_fold(version, config.fold, config.folds, config.seed)
    task, why = task_of(version, config.task)
    rows, targets = version.rows, version.targets
    if task == "anomaly":
        normal = config.anomaly.normal if config.anomaly.normal != "auto" else normality.of_dataset(version)[0]
        is_normal = (normality.labels(version, normal) == normality.NORMAL).fill_null(value=False)
        rows = rows.filter(is_normal | pl.col("split").ne_missing("train") | (pl.col("status") == NO_PHOTO))
        return Selection(version.url, version.number, rows, targets, version.commit, task, why, normal)
    if task != "image":
        rows = pl.concat([boxes.annotated(rows), version.without_photo()])
        targets = boxes.targets_of(rows.select(pl.col("boxes").explode()).drop_nulls().to_series(), targets)
    return Selection(version.url, version.number, rows, targets, version.commit, task, why)


def task_of(version: Version, task: Task | Auto) -> tuple[Task, str]:
    """What to learn of a version's photos, and the reason, if it was left to the data.

    Raises:
        InputError: boxes are to be learnt, and there are none.
    """
    rows = version.usable("train")
    drawn = int(rows["boxes"].list.len().sum() or 0)
    if task in {"boxes", "tray"} and not drawn:
        raise InputError(
            f"{version.ref} has no boxes in its train split",
            f"--task {task} learns where the plants are",
            f"Look at it: plantml dataset info {version.url}",
        )
    if task != "auto":
        return task, ""
    learnable = any(
        rows[target.name].drop_nulls().n_unique() >= 2 for target in version.targets if target.kind != "multilabel"
    ) or any(target.kind == "multilabel" for target in version.targets)
    if drawn and not learnable:
        targets = boxes.targets_of(rows.select(pl.col("boxes").explode()).drop_nulls().to_series(), version.targets)
        fine = [each.name for each in targets if each.kind == "value" or (each.name != "category" and each.size > 1)]
        if fine:
            return "tray", f"{drawn} boxes with {', '.join(fine)}, which a crop at full resolution shows best"
        return "boxes", f"{drawn} boxes, and photos have no labels of their own"
    return "image", "photos have labels of their own" if drawn else "there are no boxes"


def targets_to_learn(names: Sequence[str], dataset: Version, rows: pl.DataFrame, task: Task) -> tuple[Target, ...]:
    """The targets to learn, all that can be or the named ones. Raises `InputError` for one that cannot.

    Args:
        names: from the settings.
        dataset: with these targets.
        rows: of the training photos or of their boxes, with a column per target.
        task: of the training.
    """
    if task == "tray":
        return ()  # those of the second stage
    usable = []
    fewest = 2 if task == "image" else 1
    for target in [dataset.target(name) for name in names] if names else dataset.targets:
        labels = rows[target.name].drop_nulls()
        if not labels.is_empty() and (target.kind != "class" or len(target.classes) >= fewest):
            usable.append(target)
        elif names:
            raise InputError(
                f"{target.name} cannot be trained on {dataset.ref}",
                "it has fewer than two classes or no labelled photo in train",
                f"See its labels: plantml dataset info {dataset.url}",
            )
    if not usable and task == "image":
        raise InputError(
            f"{dataset.ref} has nothing to predict",
            "no target has labels of at least two classes in train",
            "Learn its boxes: leave out --task."
            if rows["boxes"].list.len().sum()
            else f"Look at it: plantml dataset info {dataset.url}",
        )
    return tuple(usable)


def check_splits(dataset: Selection) -> None:
    """Raise `InputError` if there is nothing to train or to validate on."""
    train, val = dataset.usable("train"), dataset.usable("val")
    if train.is_empty() or val.is_empty():
        missing = "train" if train.is_empty() else "val"
        photos = "photos" if dataset.task == "image" else "photos that were annotated with boxes"
        split = "" if dataset.usable()["split"].is_null().all() else " --resplit"
        raise InputError(
            f"{dataset.ref} has no {photos} in its {missing} split",
            "training needs photos to learn from, and others to choose the best epoch by",
            f"Split it: plantml dataset split {dataset.url}{split}",
        )
    if dataset.task != "image" and not val["boxes"].list.len().sum():
        raise InputError(
            f"{dataset.ref} has no boxes in its val split",
            "they choose the best epoch and the thresholds",
            f"Split it: plantml dataset split {dataset.url} --resplit",
        )


def leaks(version: Version, bare: pl.DataFrame | None = None) -> str:
    """What train shares with val and test, as a sentence; empty if they are apart. Copies are those of equal bytes.

    `bare` are rows of the train split without a photo, if they are learnt from.
    """
    rows, train = version.usable(), pl.col("split") == "train"
    others = rows.filter(pl.col("split").is_in(["val", "test"]))
    copies = rows.filter(train & pl.col("image_id").is_in(others["image_id"].implode())).height
    groups = rows.filter(train)["group"] if bare is None else pl.concat([rows.filter(train)["group"], bare["group"]])
    torn = groups.filter(groups.is_in(others["group"].drop_nulls().implode())).n_unique()
    counts = {"photo": copies, "group": torn}
    shared = [f"{number} {name}{'' if number == 1 else 's'}" for name, number in counts.items() if number]
    if not shared:
        return ""
    return (
        f"Leak: {' and '.join(shared)} of train also in val or test, so scores will be too high. "
        f"Split anew: plantml dataset split {version.url} --resplit"
    )


def load_checked(ref: str, config: TrainConfig, out: str, warn: Callable[[str], None] = lambda _: None) -> Version:
    """Load a dataset version, and check it and the model to start from.

    Args:
        ref: of the dataset.
        config: of the training.
        out: URL of the run; the plan of an existing run names the model it started from.
        warn: called with what `leaks` says of the photos.

    Raises:
        InputError: one of them is missing, `where` does not fit the dataset, it lacks a target or a split, or `out`
            lies in it.
    """
    version = versions.load(ref)
    if storage.is_within(storage.absolute(out), version.url):
        raise InputError(
            f"The run {storage.absolute(out)} would lie in the dataset {version.url}",
            "a dataset's folder contains no other files",
            "Choose another --out.",
        )
    selection = select(version, config)
    bare = selection.without_photo("train") if config.covariates and config.without_photo else None
    if leak := leaks(selection, bare):
        warn(leak)
    run = storage.join(storage.absolute(out), "fold-1") if config.folds else storage.absolute(out)
    if config.unlabelled:
        versions.load(config.unlabelled)
    if storage.exists(storage.join(run, PLAN)):  # which says what is trained on
        return version
    if config.warm_start:
        references.find(config.warm_start)
    if selection.task == "anomaly":  # whose plan, which comes before anything is measured, says what it lacks
        return version
    if not config.folds:  # which have splits of their own
        check_splits(selection)
    train, task = selection.usable("train"), selection.task
    rows = train if task == "image" else boxes.frame(train, selection.targets)
    if not rows.is_empty():
        targets_to_learn(config.targets, selection, rows, task)
    return version
