"""What quality is measured on: two sets of real photos, and their splits as folders for timm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from bench.quality_recipes import CLASSES
from plantml import storage
from plantml.data import versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.data.manifest import EXCLUDED
from plantml.data.splits import split_dataset
from plantml.targets import Target

_JOIN = "___"


@dataclass(frozen=True)
class Data:
    """One set.

    Attributes:
        ref: dataset for plantml.
        folder: the same photos and splits as links, one folder for every combination of labels.
        targets: that are judged.
        classes: combinations of labels, in the order of the folder's classes.
        fingerprint: of labels and splits.
        test: names of the test photos of every combination, in the order of the folders.
    """

    ref: str
    folder: Path
    targets: tuple[Target, ...]
    classes: tuple[tuple[str, ...], ...]
    fingerprint: str
    test: Mapping[tuple[str, ...], list[str]]


def bean(photos: Path, work: Path) -> str:
    """Bean leaves with their official split."""
    url = str(work / "bean")
    import_source(str(photos / "bean"), url, list_source(str(photos / "bean")), reference=True)
    return url


def plantvillage(photos: Path, work: Path) -> str:
    """PlantVillage, split so that no leaf that is known is in two splits."""
    url, source = str(work / "plantvillage"), str(photos / "plantvillage")
    import_source(source, url, list_source(source, rule="crop___disease"), reference=True)
    split_dataset(url, groups=str(photos / "plantvillage_leaf_groups.csv"))
    return url


SETS: Mapping[str, Callable[[Path, Path], str]] = {"bean": bean, "plantvillage": plantvillage}


def few_labels(url: str, share: float, seed: int) -> tuple[str, str]:
    """The dataset with the labels of a share of its training photos alone, at least one of each combination, and all.

    Returns:
        References of two versions.
    """
    version = versions.load(url)
    rows = version.rows.with_row_index("row")
    train = rows.filter((pl.col("status") == "ok") & (pl.col("split") == "train"))
    order = train[np.random.default_rng(seed).permutation(train.height).tolist()]
    names = [target.name for target in version.targets]
    first = order.unique(names, keep="first", maintain_order=True)["row"].to_list() if names else []
    count = max(len(first), round(share * train.height))
    chosen = list(dict.fromkeys([*first, *order["row"]]))[:count]
    without = pl.col("row").is_in(train["row"].implode()) & ~pl.col("row").is_in(chosen)
    fewer = rows.with_columns(
        status=pl.when(without).then(pl.lit(EXCLUDED)).otherwise("status"),
        reason=pl.when(without).then(pl.lit("not labelled yet")).otherwise("reason"),
    ).drop("row")
    committed = versions.change(url, "exclude", {"seed": seed}, lambda head: (fewer, head.targets, None))
    return committed.version.ref, version.ref


def load(name: str, photos: Path, work: Path, *, share: float = 1.0, seed: int = 0) -> Data:
    """A set, imported into `work` and laid out in folders for others, unless it is there.

    Args:
        name: in `SETS`.
        photos: the folder of real photos.
        work: an empty folder, or one that was used with the same arguments.
        share: of the training photos that have labels, chosen by `seed`.
        seed: see `share`.
    """
    folder = work / f"{name}-folders"
    if not folder.exists():
        ref = SETS[name](photos, work)
        if share < 1:
            few_labels(ref, share, seed)
    version = versions.load(str(work / name))
    names = [target.name for target in version.targets]
    rows = version.usable().drop_nulls("split")
    classes = sorted(rows.select(names).unique().iter_rows())
    test: dict[tuple[str, ...], list[str]] = {labels: [] for labels in classes}
    for number, row in enumerate(rows.iter_rows(named=True)):
        source = storage.local_path(version.image_url(row["path"]))
        labels = tuple(row[target] for target in names)
        place = folder / row["split"] / _JOIN.join(labels)
        place.mkdir(parents=True, exist_ok=True)
        link = place / f"{number:05d}{source.suffix}"
        if not link.is_symlink():
            link.symlink_to(source)
        if row["split"] == "test":
            test[labels].append(row["name"])
    (folder / CLASSES).write_text("".join(f"{_JOIN.join(labels)}\n" for labels in classes))
    return Data(version.ref, folder, version.targets, tuple(classes), version.fingerprint, test)
