"""Grouped, stratified splits that are identical on every machine."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import polars as pl

from plantml.data import boxes, duplicates, versions
from plantml.data.manifest import EXCLUDED, NO_PHOTO, OK, SPLITS, Version
from plantml.data.near_duplicates import joined
from plantml.data.tables import find_image_column, read_table
from plantml.data.versions import Committed
from plantml.errors import InputError, UsageError
from plantml.targets import Target

_VALUE_BINS = 5
_FEW = 10
"""Photos of a split below which a single one changes its scores by more than ten points."""

_LEFT_OUT = "left-out"

PixelGroups = Callable[[Version, pl.DataFrame], Sequence[int | None]]
"""Gives each row a group number from its pixels, `None` for a row on its own: (version, usable rows) to numbers."""

Label = tuple[str, str]
"""A target and one of its classes; two empty strings stand for any photo."""


RULES = {"group": "groups", "image_id": "exact copies", "near": "near-duplicates",
         "pixels": "crops, turns and overlaps"}  # fmt: skip
"""Why photos stay together, by the column with the group numbers."""


@dataclass(frozen=True)
class SplitReport:
    """The result of a split.

    `joined` counts photos that share a group with others, by rule; `matched` those that the group table names;
    `left_out` those that are excluded because of the frozen test set, by reason; `placed` those that had no split
    before. `without_photo` counts the other rows by split.
    """

    counts: Mapping[str, int]
    ratios: Mapping[str, float]
    groups: int
    joined: Mapping[str, int]
    matched: int | None
    left_out: Mapping[str, int]
    placed: int
    without_photo: Mapping[str, int]
    warnings: Sequence[str]


def parse_ratios(text: str) -> tuple[Fraction, ...]:
    """`0.7/0.15/0.15` as exact shares of train, val and test. Raises `UsageError`."""
    try:
        parts = [_part(part) for part in text.split("/")]
    except ValueError:
        parts = []
    if len(parts) != len(SPLITS) or not sum(parts):
        raise UsageError(f"{text!r} are not ratios", "", "Write train/val/test like 0.7/0.15/0.15 or 8/1/1.")
    total = sum(parts)
    return tuple(part / total for part in parts)


def _part(text: str) -> Fraction:
    value = float(text)
    if value != 0 and not 1e-9 <= value <= 1e9:  # the exact fraction of 1e999999999 would take for ever
        raise ValueError(text)
    return Fraction(text) if value else Fraction(0)


def split_dataset(
    ref: str,
    *,
    ratios: str = "0.7/0.15/0.15",
    groups: str | None = None,
    group_by: str | None = None,
    near: bool = True,
    by_pixels: PixelGroups | None = None,
    seed: int = 0,
    keep: bool = False,
    resplit: bool = False,
) -> Committed[SplitReport]:
    """Assign every usable photo to train, val or test, in a new version.

    A row without a photo follows the photos of its group, and is in train if there are none.

    Args:
        ref: the dataset.
        ratios: shares of train, val and test.
        groups: URL of a table with a photo column and a group column, joined by name.
        group_by: a column of groups, or a regular expression that is searched in names: the group is what its
            first capture group matches, or the whole match if it has none.
        near: keep near-duplicates together, by their hashes.
        by_pixels: finds more groups by looking at the usable photos.
        seed: random seed; another seed gives another, equally good split.
        keep: keep existing splits; place new photos in train and val, around the frozen test set.
        resplit: replace an existing split.

    Raises:
        InputError: there is no dataset, or nothing to split; or there are splits already and neither `keep` nor
            `resplit` is set.
    """
    if keep and resplit:
        raise UsageError(
            "--keep and --resplit contradict each other",
            "one moves no photo, the other may move all",
            "Use one of them.",
        )
    shares = parse_ratios(ratios)
    versions.find(ref)  # there is a dataset
    table = _group_table(groups) if groups else None

    def assign_splits(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...], SplitReport]:
        rows, matched = version.rows, None
        if table is not None:
            rows, matched = _with_groups(rows, table)
            if not matched:
                raise InputError(
                    f"No row of {groups} names a photo of {version.ref}",
                    "photos are matched by their path relative to the source",
                    f"The dataset's names look like {rows['name'][0]!r}.",
                )
        usable = rows.filter(pl.col("status") == OK)
        if usable.is_empty():
            raise InputError(
                f"{version.ref} has no usable photo to split",
                "all photos are excluded",
                f"See the reasons: plantml dataset info {version.url}",
            )
        if group_by:
            rows = _grouped(rows, group_by)
            usable = rows.filter(pl.col("status") == OK)
        linked = usable.with_columns(
            near=_near_groups(usable) if near else pl.lit(None),
            pixels=pl.Series(by_pixels(version, usable), dtype=pl.Int64) if by_pixels else pl.lit(None),
        )
        keys, together = group_keys(linked, list(RULES))
        fixed = usable["split"].to_list() if keep else [None] * usable.height
        assigned = assign(usable, version.targets, keys, shares, seed, fixed=fixed)
        result, left_out = _with_splits(rows, linked, assigned, keys, fixed)
        before = rows["split"] if keep else pl.repeat(None, rows.height, dtype=pl.String, eager=True)
        result = _with_others(result, before, linked, assigned)
        if not keep and not resplit:
            _refuse_to_move(version, usable, result)
        sizes = Counter(assigned)
        report = SplitReport(
            {name: sizes[name] for name in SPLITS},
            {name: float(share) for name, share in zip(SPLITS, shares, strict=True)},
            len(set(keys)),
            {RULES[column]: number for column, number in together.items()},
            matched,
            left_out,
            sum(split is None for split in fixed) if keep else 0,
            dict(sorted(result.filter(pl.col("status") == NO_PHOTO)["split"].value_counts().iter_rows())),
            _warnings(result.filter(pl.col("status") == OK), version.targets, shares),
        )
        return result, version.targets, report

    parameters = {"ratios": ratios, "groups": groups, "group_by": group_by, "near": near,
                  "deep": by_pixels is not None, "seed": seed, "keep": keep}  # fmt: skip
    return versions.change(ref, "split", parameters, assign_splits)


def _warnings(rows: pl.DataFrame, targets: Iterable[Target], shares: Sequence[Fraction]) -> list[str]:
    """Warnings about empty and tiny splits, and classes that a split lacks."""
    warnings = []
    expected = [name for name, share in zip(SPLITS, shares, strict=True) if share]
    for split in expected:
        of_split = rows.filter(pl.col("split") == split)
        if of_split.is_empty():
            warnings.append(f"No photo is in {split}: there are too few groups.")
            continue
        if of_split.height < _FEW:
            warnings.append(f"{split} has only {of_split.height} photos: too few for scores that mean anything.")
        for target in targets:
            if target.kind == "class":
                lacking = sorted(set(rows[target.name].drop_nulls()) - set(of_split[target.name]))
                if lacking:
                    warnings.append(
                        f"{split} lacks {target.name} {', '.join(lacking[:5])}{' …' if lacking[5:] else ''}."
                    )
    return warnings


def _refuse_to_move(version: Version, usable: pl.DataFrame, result: pl.DataFrame) -> None:
    before = usable["split"].drop_nulls()
    if len(before) and not result["split"].equals(version.rows["split"]):
        counts = ", ".join(f"{name} {n}" for name, n in sorted(before.value_counts().iter_rows()))
        raise InputError(
            f"{version.ref} is split already ({counts})",
            "a new split would test existing models on photos that they were trained on",
            "Place only new photos with --keep, or replace the split with --resplit.",
        )


def _with_splits(
    rows: pl.DataFrame, usable: pl.DataFrame, assigned: Sequence[str], keys: Sequence[int], fixed: Sequence[str | None]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """All rows with their new split, those of a frozen test group excluded; and how many those are, by reason."""
    test = {keys[i]: i for i in reversed(range(len(keys))) if fixed[i] == "test"}
    names, ids = usable["name"].to_list(), usable["image_id"].to_list()
    alike_by = [usable[name].to_list() for name in ("near", "pixels")]
    reasons: list[str | None] = []
    for i, split in enumerate(assigned):
        reason = None
        if split == _LEFT_OUT:
            other = test[keys[i]]
            alike = ids[i] == ids[other] or any(
                column[i] is not None and column[i] == column[other] for column in alike_by
            )
            reason = f"{'twin-of-test' if alike else 'group-of-test'}: {names[other]} is in the test set"
        reasons.append(reason)
    news = usable.select("source", "name").with_columns(
        pl.Series("_split", [None if split == _LEFT_OUT else split for split in assigned], pl.String),
        pl.Series("_why", reasons, pl.String),
    )
    is_left_out = pl.col("_why").is_not_null()
    result = rows.join(news, on=["source", "name"], how="left", maintain_order="left").with_columns(
        split=pl.col("_split"),
        status=pl.when(is_left_out).then(pl.lit(EXCLUDED)).otherwise("status"),
        reason=pl.when(is_left_out).then("_why").otherwise("reason"),
    )
    counts = Counter(reason.partition(":")[0] for reason in reasons if reason)
    return result.drop("_split", "_why"), dict(sorted(counts.items()))


def _with_others(rows: pl.DataFrame, before: pl.Series, photos: pl.DataFrame, assigned: Sequence[str]) -> pl.DataFrame:
    """All rows with the split of those without a photo: that of their group, else the one `before`, else train.

    They follow their group even where they had another split: a plant that judges the model must not teach it.
    """
    strictest = ("test", "val", "train")
    by_group: dict[str, str] = {}
    for group, split in zip(photos["group"], assigned, strict=True):
        if group is not None:
            theirs = "test" if split == _LEFT_OUT else split  # they are left out because their group is in test
            by_group[group] = min(theirs, by_group.get(group, theirs), key=strictest.index)
    of_group = pl.col("group").replace_strict(by_group, default=None, return_dtype=pl.String)
    followed = pl.coalesce(of_group, before.rename("before"), pl.lit("train"))
    return rows.with_columns(split=pl.when(pl.col("status") == NO_PHOTO).then(followed).otherwise("split"))


def _near_groups(rows: pl.DataFrame) -> pl.Series:
    """A group number for each row with near-duplicates; null for the others."""
    with_pixels = rows.with_row_index("_at").filter(pl.col("phash").is_not_null() & pl.col("entropy").is_not_null())
    numbers: list[int | None] = [None] * rows.height
    if with_pixels.height:
        places = with_pixels["_at"].to_list()
        group = duplicates.find(with_pixels).group.tolist()
        sizes = Counter(group)
        for place, group_number in zip(places, group, strict=True):
            numbers[place] = group_number if sizes[group_number] > 1 else None
    return pl.Series("near", numbers, pl.Int64)


def _grouped(rows: pl.DataFrame, rule: str) -> pl.DataFrame:
    """Rows with the rule's groups merged into `group`, so that later splits and checks know them."""
    with_both = rows.with_columns(by=_by(rows, rule))
    keys, _ = group_keys(with_both, ("group", "by"))
    names: dict[int, str] = {}
    for key, group, by in zip(keys, with_both["group"], with_both["by"], strict=True):
        for name in (group, by):
            if name is not None:
                names[key] = min(names.get(key, name), name)
    return rows.with_columns(group=pl.Series([names.get(key) for key in keys], dtype=pl.String))


def _by(rows: pl.DataFrame, rule: str) -> pl.Series:
    """Groups by a column, or by a regular expression on the names of photos."""
    for column in (rule, f"meta_{rule}"):
        if column in rows.columns:
            return rows[column].cast(pl.String).rename("by")
    try:
        # polars searches in linear time; some patterns would keep Python's `re` busy for ever.
        found = rows["name"].str.extract(rule, min(1, re.compile(rule).groups)).replace("", None)
        # The name of a row without a photo may be a digest, in which a pattern would find anything.
        values = rows.select(by=pl.when(pl.col("status") != NO_PHOTO).then(found.rename("found")))["by"]
    except (re.error, pl.exceptions.PolarsError) as error:
        raise UsageError(
            f"--group-by {rule!r} is neither a column nor a regular expression",
            " ".join(str(error).split()),
            f"The columns are {', '.join(rows.columns)}. A pattern cannot look around or refer back.",
        ) from error
    if not values.count():
        raise InputError(
            f"--group-by {rule!r} matches no photo",
            f"names look like {rows['name'][0]!r}; the columns are {', '.join(rows.columns)}",
            "Name a column, or a pattern such as '^[^_]+' for what stands before the first underscore.",
        )
    return values


def linked_groups(rows: pl.DataFrame) -> list[int]:
    """A group number for each row: groups, exact copies and near-duplicates, as a split keeps them together."""
    return group_keys(rows.with_columns(near=_near_groups(rows)), ("group", "image_id", "near"))[0]


def group_keys(rows: pl.DataFrame, columns: Sequence[str]) -> tuple[list[int], dict[str, int]]:
    """A group number for each row: rows that share a value of any of `columns` share it.

    Returns:
        Group numbers in row order, and how many rows each column joined to others.
    """
    first: list[int] = []
    second: list[int] = []
    counts = {}
    for column in columns:
        members: dict[Hashable, list[int]] = defaultdict(list)
        for i, value in enumerate(rows[column]):
            if value is not None:
                members[value].append(i)
        together = [rows_ for rows_ in members.values() if len(rows_) > 1]
        counts[column] = sum(len(rows_) for rows_ in together)
        for one, *others in together:
            first += [one] * len(others)
            second += others
    return joined(first, second, rows.height), counts


def assign(
    rows: pl.DataFrame,
    targets: Iterable[Target],
    keys: Sequence[int],
    shares: Sequence[Fraction],
    seed: int,
    *,
    fixed: Sequence[str | None] | None = None,
) -> list[str]:
    """A split for each row: groups stay whole, and every class of every target comes near its share.

    Groups are placed one by one, those with rare classes and many photos first, each where it lowers the
    chi-square distance to the target counts most: the greedy order of Sechidis et al. 2011, "On the
    stratification of multi-label data", on groups. Ties and order come from the photos' hashes, and every sum
    is made of single IEEE 754 operations in a fixed order, so that row order, storage and processor do not
    matter.

    Splits in `fixed` stay. Other photos of such a group follow it, or are left out if one of the group is in
    test; new groups go to train and val only.
    """
    fixed = [None] * rows.height if fixed is None else fixed
    if any(fixed):
        shares = (*shares[:2], Fraction(0))
    strata = _strata(rows, targets)
    members: dict[int, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        members[key].append(i)
    result = [split or "" for split in fixed]
    for rows_ in members.values():
        splits = {fixed[i] for i in rows_} - {None}
        if splits:
            follow = _LEFT_OUT if "test" in splits else "val" if "val" in splits else "train"
            for i in rows_:
                result[i] = fixed[i] or follow
    return _placed(rows["image_id"].to_list(), strata, members, shares=shares, seed=seed, result=result)


def _placed(
    ids: Sequence[str],
    strata: Sequence[Sequence[Label]],
    members: Mapping[int, list[int]],
    *,
    shares: Sequence[Fraction],
    seed: int,
    result: list[str],
) -> list[str]:
    """`result` with every group placed that has no split yet."""
    counted = [i for i, split in enumerate(result) if split not in {"test", _LEFT_OUT}]
    totals = Counter(label for i in counted for label in strata[i])
    groups: list[tuple[int, int, str, list[int], list[tuple[Label, int]]]] = []
    for rows_ in members.values():
        if result[rows_[0]]:
            continue
        counts = Counter(label for i in rows_ for label in strata[i])
        rarest = min(totals[label] for label in counts)
        content = min(ids[i] for i in rows_)
        order = hashlib.sha256(f"{seed}:{content}".encode()).hexdigest()
        groups.append((rarest, -len(rows_), order, rows_, sorted(counts.items())))
    groups.sort(key=lambda group: group[:3])

    total = sum(shares)
    goals = [{label: float(share / total * number) for label, number in totals.items()} for share in shares]
    placed: list[Counter[Label]] = [
        Counter(label for i in counted if result[i] == name for label in strata[i]) for name in SPLITS
    ]
    possible = [number for number, share in enumerate(shares) if share > 0]
    for _, _, _, rows_, labels in groups:
        best = min(possible, key=lambda number: _cost(labels, placed[number], goals[number]))
        placed[best].update(dict(labels))
        for i in rows_:
            result[i] = SPLITS[best]
    return result


def _cost(counts: Sequence[tuple[Label, int]], placed: Mapping[Label, int], goals: Mapping[Label, float]) -> float:
    """By how much chi-square changes if the group goes here: sum of ((p + c - w)^2 - (p - w)^2) / w."""
    total = 0.0
    for label, count in counts:
        total += count * (2 * (placed[label] - goals[label]) + count) / goals[label]
    return total


def _strata(rows: pl.DataFrame, targets: Iterable[Target]) -> list[list[Label]]:
    """For each row what to spread evenly: each of its classes, and the photo itself."""
    strata: list[list[Label]] = [[("", "")] for _ in range(rows.height)]
    for target in targets:
        values = rows[target.name]
        if target.kind == "value":
            values = _binned(values)
        for labels, value in zip(strata, values.to_list(), strict=True):
            if value is not None:
                names = value if isinstance(value, list) else [value]
                labels.extend((target.name, str(name)) for name in names)
    for labels, drawn in zip(strata, rows["boxes"].to_list(), strict=True):
        if drawn is not None:
            # By target: combinations of classes and values would be so many that each is in one photo only.
            classes = {item for box in boxes.from_rows(drawn) or () for item in box.classes.items()}
            labels.extend(("boxes", f"{target}: {name}") for target, name in sorted(classes))
    return strata


def _binned(values: pl.Series) -> pl.Series:
    """Values as their quintile."""
    rank = values.rank("dense")
    top = rank.max()
    if not isinstance(top, int) or top < 1:
        return values
    return ((rank - 1) * _VALUE_BINS // top).cast(pl.Int64)


def _group_table(url: str) -> dict[str, str]:
    table = read_table(url)
    image = find_image_column(table.columns)
    others = [name for name in table.columns if name != image]
    group = "group" if "group" in others else others[0] if len(others) == 1 else None
    if image is None or group is None:
        raise InputError(
            f"{url} is not a group table",
            f"its columns: {', '.join(table.columns)}",
            "It needs two columns: `path` with the photo and `group` with its group.",
        )
    pairs = table.select(pl.col(image).cast(pl.String), pl.col(group).cast(pl.String)).drop_nulls()
    return {name: value for name, value in pairs.iter_rows() if value}


def _with_groups(rows: pl.DataFrame, table: Mapping[str, str]) -> tuple[pl.DataFrame, int]:
    groups = [table.get(name) for name in rows["name"]]
    matched = len({name for name in rows["name"] if name in table})
    new = pl.Series("group", groups, pl.String)
    return rows.with_columns(group=new.fill_null(rows["group"])), matched
