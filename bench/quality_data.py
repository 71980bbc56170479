"""What quality is measured on: two sets of real photos, and their splits as folders for timm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.quality_recipes import CLASSES
from plantml import storage
from plantml.data import versions
from plantml.data.formats import list_source
from plantml.data.importing import import_source
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
        train_photos: to learn from.
    """

    ref: str
    folder: Path
    targets: tuple[Target, ...]
    classes: tuple[tuple[str, ...], ...]
    fingerprint: str
    train_photos: int


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


def load(name: str, photos: Path, work: Path) -> Data:
    """Import a set into `work` and lay it out for timm beside."""
    ref = SETS[name](photos, work)
    version = versions.load(ref)
    names = [target.name for target in version.targets]
    rows = version.usable().drop_nulls("split")
    classes = sorted(rows.select(names).unique().iter_rows())
    folder = work / f"{name}-folders"
    for number, row in enumerate(rows.iter_rows(named=True)):
        source = storage.local_path(version.image_url(row["path"]))
        place = folder / row["split"] / _JOIN.join(row[target] for target in names)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}{source.suffix}").symlink_to(source)
    (folder / CLASSES).write_text("".join(f"{_JOIN.join(labels)}\n" for labels in classes))
    return Data(ref, folder, version.targets, tuple(classes), version.fingerprint, version.usable("train").height)
