"""Which photos are normal: those that have a class of a target, such as `health=healthy`."""

import polars as pl

from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.targets import HEALTHY, NO_DISEASE

CROP = "category"
"""Target by which normal photos differ where nobody names one."""

NORMAL, ANOMALOUS = "normal", "anomalous"
DEFAULTS = ((("health", HEALTHY), "the dataset says which plants are healthy"),
            (("disease", NO_DISEASE), "a healthy plant has the disease none"))  # fmt: skip
"""What normal photos are where nobody says so, the first that fits, with the reason."""


def of_dataset(version: Version) -> tuple[str, str]:
    """What normal photos of a dataset are, as `target=class`, and the reason. Raises `InputError` if nothing fits."""
    classes = {target.name: target.classes for target in version.targets}
    for (name, label), why in DEFAULTS:
        if label in classes.get(name, ()):
            return f"{name}={label}", why
    raise InputError(
        f"{version.ref} does not say which photos are normal",
        "there is no health healthy, and no disease none",
        "Name a class: --set anomaly.normal=TARGET=CLASS",
    )


def differing_by(version: Version, rows: pl.DataFrame, asked: str, normal: str) -> tuple[str, str]:
    """The class target by which normal photos differ, and the reason; empty if they are all of one class.

    Args:
        version: whose targets hold.
        rows: of normal photos.
        asked: a target, `off`, or `auto`: the crop.
        normal: what normal photos are, as `target=class`.

    Raises:
        InputError: the target has no classes, or is the one that says what is normal.
    """
    name = CROP if asked == "auto" else asked
    usable = {target.name for target in version.targets if target.kind == "class"} - {normal.partition("=")[0]}
    if name not in usable:
        if asked in {"auto", "off"}:
            return "", ""
        raise InputError(
            f"Normal photos cannot differ by {asked!r}",
            f"class targets of {version.ref} are {', '.join(sorted(usable)) or 'none'}, besides that of {normal}",
            "Change it: --set anomaly.by=TARGET, or =off",
        )
    count = rows[name].drop_nulls().n_unique()
    return (name, f"{count} classes, and a photo is compared with the nearest") if count > 1 else ("", "")


def labels(version: Version, normal: str) -> pl.Series:
    """`labels_of` all rows of a version."""
    return labels_of(version.rows, version, normal)


def labels_of(rows: pl.DataFrame, version: Version, normal: str) -> pl.Series:
    """`normal`, `anomalous` or null, where not labelled, for each row.

    `normal` is written `target=class`; of several labels, it means that one alone.

    Raises:
        InputError: it is not written so, or the dataset has no such class.
    """
    name, equals, label = normal.partition("=")
    target = next((each for each in version.targets if each.name == name), None)
    if not equals or target is None or label not in target.classes:
        known = [f"{each.name}={each.classes[0]}" for each in version.targets if each.classes]
        raise InputError(
            f"{normal!r} names no photos of {version.ref}",
            f"it is TARGET=CLASS, such as {', '.join(known) or 'health=healthy'}",
            "Change it: --set anomaly.normal=TARGET=CLASS",
        )
    column = pl.col(name)
    is_normal = column == pl.lit([label], pl.List(pl.String)) if target.kind == "multilabel" else column == label
    words = pl.when(column.is_null()).then(None).when(is_normal).then(pl.lit(NORMAL)).otherwise(pl.lit(ANOMALOUS))
    return rows.select(words.alias("normality")).to_series()


def kinds(rows: pl.DataFrame, normal: str) -> pl.Series:
    """What the photo shows, for each row: its disease where that is labelled, else its class of the target."""
    name = normal.partition("=")[0]
    column = pl.col(name).list.join("|") if isinstance(rows.schema[name], pl.List) else pl.col(name)
    if rows.schema.get("disease") == pl.String:
        column = pl.when(pl.col("disease") == NO_DISEASE).then(None).otherwise(pl.col("disease")).fill_null(column)
    return rows.select(column.alias("kind")).to_series()
