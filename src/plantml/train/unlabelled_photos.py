"""Photos without labels that a training learns from too: which ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from plantml.data import versions
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.model.contract import Origin
from plantml.train.plan import Plan
from plantml.validate import leaks

LABELLED, NEAR = "labelled or judged", "near-duplicate of val or test"
"""Why photos are left out: the labelled dataset has a label for them or judges by them, or they are copies of those."""


@dataclass(frozen=True)
class Unlabelled(Version):
    """The photos of a version that are learnt from without their labels: one row per photo.

    Attributes:
        left_out: photos by reason.
    """

    left_out: Mapping[str, int] = field(default_factory=dict)


def select_unlabelled(ref: str, labelled: Version, labels: Sequence[str]) -> Unlabelled:
    """The usable photos of a dataset version that are not labelled and do not give the validation away.

    Left out are photos that `labelled` has a label of, its val and test photos, and near-duplicates of these.
    Near-duplicates are detected by their hashes, flips and rotations included.

    Args:
        ref: of the dataset version.
        labelled: the version that is trained on.
        labels: columns of it that are learnt: targets, or `boxes`, which somebody has looked for or not.

    Raises:
        InputError: there is no such version, or no photo is left.
    """
    version = versions.load(ref)
    rows = version.usable().unique("image_id", keep="first", maintain_order=True).sort("image_id")
    known = labelled.usable()
    has_label = pl.any_horizontal(*(pl.col(name).is_not_null() for name in labels))
    taken = pl.concat([known.filter(has_label), leaks.judging_rows(labelled)])["image_id"].unique()
    others = rows.filter(~pl.col("image_id").is_in(taken.implode()))
    photos = leaks.apart_from_judging(others, version, labelled)
    counts = {LABELLED: rows.height - others.height, NEAR: others.height - photos.height}
    left_out = {why: number for why, number in counts.items() if number}
    if photos.is_empty():
        fewer = "" if "boxes" in labels else ", or only the targets that few photos have (--targets A,B)"
        raise InputError(
            f"{version.ref} has no photo to learn from without labels",
            ", ".join(f"{number} {why}" for why, number in left_out.items()) or "it has no usable photos",
            f"Name a dataset with other photos{fewer}, or leave out --unlabelled.",
        )
    return Unlabelled(version.url, version.number, photos, version.targets, version.commit, left_out)


def origin(plan: Plan) -> Origin | None:
    """The dataset version that a plan takes photos without their labels from."""
    if not plan.unlabelled:
        return None
    url, _, number = plan.unlabelled.rpartition("@")
    return Origin(url=url, version=int(number), fingerprint=plan.unlabelled_fingerprint)


def add_rows(rows: pl.DataFrame, others: Unlabelled) -> tuple[int, pl.DataFrame]:
    """The number of labelled rows, and these with the unlabelled ones after them, whose labels are missing."""
    labelled = rows.filter(~pl.col("image_id").is_in(others.rows["image_id"].implode()))
    paths = pl.Series("path", [others.image_url(path) for path in others.rows["path"]], dtype=pl.String)
    added = others.rows.select("image_id", "source", "name", "width", "height").with_columns(paths)
    return labelled.height, pl.concat([labelled, added], how="diagonal_relaxed")
