"""Splits that keep groups whole, hold the class shares, and come out the same on every machine."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import polars as pl

from plantml.data import duplicates, versions
from plantml.data.importers.table import IMAGE_COLUMNS, read_table
from plantml.data.manifest import EXCLUDED, OK, SPLITS, Version
from plantml.data.near_duplicates import joined
from plantml.data.versions import Committed
from plantml.errors import InputError, UsageError
from plantml.targets import Target

_VALUE_BINS = 5
_HELD = "held"

Seen = Callable[[Version, pl.DataFrame], Sequence[int | None]]
"""Numbers the rows that show one thing, as somebody found who looked at the photos; `None` for a row alone."""

Label = tuple[str, str]
"""A target and one of its classes; two empty texts stand for being a photo at all."""


RULES = {"group": "groups", "image_id": "exact copies", "twin": "near-duplicates",
         "seen": "crops, turns and overlaps"}  # fmt: skip
"""What keeps photos together, by the column that tells it."""


@dataclass(frozen=True)
class SplitReport:
    """What a split came to.

    Attributes:
        committed: the version, and whether it is new.
        counts: photos by split.
        wanted: share of each split that was asked for.
        groups: number of groups, photos alone in theirs included.
        joined: photos that a rule put into one group with others, by rule.
        matched: rows of the group table that named a photo of the dataset; `None` without a table.
        held: photos left out because their like is in the frozen test set, by reason.
        placed: photos that had no split before, with `keep`.
        warnings: sentences on what came out as nobody would want it.
    """

    committed: Committed
    counts: Mapping[str, int]
    wanted: Mapping[str, float]
    groups: int
    joined: Mapping[str, int]
    matched: int | None
    held: Mapping[str, int]
    placed: int
    warnings: Sequence[str]


def parse_ratios(text: str) -> tuple[Fraction, ...]:
    """`0.7/0.15/0.15` as exact shares of train, val and test. Raises `UsageError`."""
    try:
        parts = [Fraction(part) for part in text.split("/")]
    except (ValueError, ZeroDivisionError):
        parts = []
    if len(parts) != len(SPLITS) or any(part < 0 for part in parts) or not sum(parts):
        raise UsageError(f"{text!r} are no ratios", "", "Write train/val/test like 0.7/0.15/0.15 or 8/1/1.")
    total = sum(parts)
    return tuple(part / total for part in parts)


def split_dataset(
    ref: str,
    *,
    ratios: str = "0.7/0.15/0.15",
    groups: str | None = None,
    group_by: str | None = None,
    near: bool = True,
    seen: Seen | None = None,
    seed: int = 0,
    keep: bool = False,
    resplit: bool = False,
) -> SplitReport:
    """Assign every usable photo to train, val or test, in a new version.

    Args:
        ref: the dataset.
        ratios: shares of train, val and test.
        groups: URL of a table with a photo column and a group column, joined by name.
        group_by: a column whose values are groups, or a regular expression that is searched in names: what its
            first group matches (the whole match, if it has none) is the group.
        near: keep near-duplicates together, as their hashes tell.
        seen: finds more that must stay together, by looking at the usable photos.
        seed: another seed gives another, equally good split.
        keep: move no photo that has a split; place new ones in train and val, around the frozen test set.
        resplit: replace a split that is there already.

    Raises:
        InputError: there are splits already and neither `keep` nor `resplit` was asked for, or nothing to split.
    """
    if keep and resplit:
        raise UsageError("--keep and --resplit contradict each other", "one moves no photo, the other may move all")
    shares = parse_ratios(ratios)
    table = _group_table(groups) if groups else None
    made: dict[str, SplitReport] = {}

    def apply(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...]]:
        rows, matched = version.rows, None
        if table is not None:
            rows, matched = _with_groups(rows, table)
            if not matched:
                raise InputError(
                    f"No row of {groups} names a photo of {version.ref}",
                    "photos are joined by the path relative to their source",
                    f"The dataset's names look like {rows['name'][0]!r}.",
                )
        usable = rows.filter(pl.col("status") == OK)
        if usable.is_empty():
            raise InputError(f"{version.ref} has no usable photo to split")
        if group_by:
            rows = _grouped(rows, group_by)
            usable = rows.filter(pl.col("status") == OK)
        linked = usable.with_columns(
            twin=_twins(usable) if near else pl.lit(None),
            seen=pl.Series(seen(version, usable), dtype=pl.Int64) if seen else pl.lit(None),
        )
        keys, together = group_keys(linked, list(RULES))
        fixed = usable["split"].to_list() if keep else [None] * usable.height
        assigned = assign(usable, version.targets, keys, shares, seed, fixed=fixed)
        result, held = _with_splits(rows, linked, assigned, keys, fixed)
        if not keep and not resplit:
            _refuse_to_move(version, usable, result)
        sizes = Counter(assigned)
        made["report"] = SplitReport(
            Committed(version, changed=False),
            {name: sizes[name] for name in SPLITS},
            {name: float(share) for name, share in zip(SPLITS, shares, strict=True)},
            len(set(keys)),
            {RULES[column]: number for column, number in together.items()},
            matched,
            held,
            sum(split is None for split in fixed) if keep else 0,
            _warnings(result.filter(pl.col("status") == OK), version.targets, shares),
        )
        return result, version.targets

    parameters = {"ratios": ratios, "groups": groups, "group_by": group_by, "near": near,
                  "deep": seen is not None, "seed": seed, "keep": keep}  # fmt: skip
    committed = versions.change(ref, "split", parameters, apply)
    return replace(made["report"], committed=committed)


def _warnings(rows: pl.DataFrame, targets: Iterable[Target], shares: Sequence[Fraction]) -> list[str]:
    """Splits that came out empty, and classes that a split lacks."""
    found = []
    wanted = [name for name, share in zip(SPLITS, shares, strict=True) if share]
    for split in wanted:
        of_split = rows.filter(pl.col("split") == split)
        if of_split.is_empty():
            found.append(f"No photo is in {split}: there are too few groups.")
            continue
        for target in targets:
            if target.kind == "class":
                lacking = sorted(set(rows[target.name].drop_nulls()) - set(of_split[target.name]))
                if lacking:
                    found.append(f"{split} lacks {target.name} {', '.join(lacking[:5])}{' …' if lacking[5:] else ''}.")
    return found


def _refuse_to_move(version: Version, usable: pl.DataFrame, result: pl.DataFrame) -> None:
    before = usable["split"].drop_nulls()
    if len(before) and not result["split"].equals(version.rows["split"]):
        counts = ", ".join(f"{name} {n}" for name, n in sorted(before.value_counts().iter_rows()))
        raise InputError(
            f"{version.ref} has splits already ({counts})",
            "a model trained on them would be tested on photos that it has seen",
            "To place new photos only: --keep. To replace them all: --resplit.",
        )


def _with_splits(
    rows: pl.DataFrame, usable: pl.DataFrame, assigned: Sequence[str], keys: Sequence[int], fixed: Sequence[str | None]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """All rows with their new split; those that must stay out of it left out with the reason."""
    test = {keys[i]: i for i in reversed(range(len(keys))) if fixed[i] == "test"}
    names, ids = usable["name"].to_list(), usable["image_id"].to_list()
    alike_by = [usable[name].to_list() for name in ("twin", "seen")]
    reasons: list[str | None] = []
    for i, split in enumerate(assigned):
        reason = None
        if split == _HELD:
            other = test[keys[i]]
            alike = ids[i] == ids[other] or any(
                column[i] is not None and column[i] == column[other] for column in alike_by
            )
            reason = f"{'twin-of-test' if alike else 'group-of-test'}: {names[other]} is in the test set"
        reasons.append(reason)
    news = usable.select("source", "name").with_columns(
        pl.Series("_split", [None if split == _HELD else split for split in assigned], pl.String),
        pl.Series("_why", reasons, pl.String),
    )
    held = pl.col("_why").is_not_null()
    result = rows.join(news, on=["source", "name"], how="left", maintain_order="left").with_columns(
        split=pl.col("_split"),
        status=pl.when(held).then(pl.lit(EXCLUDED)).otherwise("status"),
        reason=pl.when(held).then("_why").otherwise("reason"),
    )
    counts = Counter(reason.partition(":")[0] for reason in reasons if reason)
    return result.drop("_split", "_why"), dict(sorted(counts.items()))


def _twins(rows: pl.DataFrame) -> pl.Series:
    """A number for each row with near-duplicates, the same for all of them; null for those without."""
    with_pixels = rows.with_row_index("_at").filter(pl.col("phash").is_not_null() & pl.col("entropy").is_not_null())
    found: list[int | None] = [None] * rows.height
    if with_pixels.height:
        places = with_pixels["_at"].to_list()
        group = duplicates.find(with_pixels).group.tolist()
        sizes = Counter(group)
        for place, number in zip(places, group, strict=True):
            found[place] = number if sizes[number] > 1 else None
    return pl.Series("twin", found, pl.Int64)


def _grouped(rows: pl.DataFrame, rule: str) -> pl.DataFrame:
    """Rows whose `group` holds what the rule finds too, so that a later split, or a check, knows it."""
    found = rows.with_columns(by=_by(rows, rule))
    keys, _ = group_keys(found, ("group", "by"))
    names: dict[int, str] = {}
    for key, group, by in zip(keys, found["group"], found["by"], strict=True):
        for name in (group, by):
            if name is not None:
                names[key] = min(names.get(key, name), name)
    return rows.with_columns(group=pl.Series([names.get(key) for key in keys], dtype=pl.String))


def _by(rows: pl.DataFrame, rule: str) -> pl.Series:
    """Groups by a column, or by what a regular expression finds in the names."""
    for column in (rule, f"meta_{rule}"):
        if column in rows.columns:
            return rows[column].cast(pl.String).rename("by")
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UsageError(f"--group-by {rule!r} is no column and no regular expression", str(error)) from error
    found = [pattern.search(name) for name in rows["name"]]
    values = [None if match is None else match[1 if pattern.groups else 0] or None for match in found]
    if not any(value is not None for value in values):
        raise InputError(
            f"--group-by {rule!r} matches no photo",
            f"names look like {rows['name'][0]!r}; columns are {', '.join(rows.columns)}",
        )
    return pl.Series("by", values, pl.String)


def linked_groups(rows: pl.DataFrame) -> list[int]:
    """A group number for each row: groups, exact copies and near-duplicates, as a split keeps them together."""
    return group_keys(rows.with_columns(twin=_twins(rows)), ("group", "image_id", "twin"))[0]


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
    """A split for each row, whole groups at a time, near the wanted shares for every class of every target.

    Groups are placed one by one, those with rare classes and many photos first, each where it lowers the
    chi-square distance to the wanted counts most: the greedy order of Sechidis et al. 2011, "On the
    stratification of multi-label data", on groups. Ties and order come from the photos' hashes, and every sum
    is made of single IEEE 754 operations in a fixed order, so that row order, storage and processor do not
    matter.

    Where `fixed` names splits, these stay. The others of such a group go with it, or are `held` back if one of
    it is in test; new groups go to train and val only.
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
        kept = {fixed[i] for i in rows_} - {None}
        if kept:
            follow = _HELD if "test" in kept else "val" if "val" in kept else "train"
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
    """`result` with the groups that have no split yet placed."""
    counted = [i for i, split in enumerate(result) if split not in {"test", _HELD}]
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
    wanted = [{label: float(share / total * number) for label, number in totals.items()} for share in shares]
    placed: list[Counter[Label]] = [
        Counter(label for i in counted if result[i] == name for label in strata[i]) for name in SPLITS
    ]
    possible = [number for number, share in enumerate(shares) if share > 0]
    for _, _, _, rows_, labels in groups:
        best = min(possible, key=lambda number: _cost(labels, placed[number], wanted[number]))
        placed[best].update(dict(labels))
        for i in rows_:
            result[i] = SPLITS[best]
    return result


def _cost(counts: Sequence[tuple[Label, int]], placed: Mapping[Label, int], wanted: Mapping[Label, float]) -> float:
    """By how much chi-square changes if the group goes here: sum of ((p + c - w)^2 - (p - w)^2) / w."""
    total = 0.0
    for label, count in counts:
        total += count * (2 * (placed[label] - wanted[label]) + count) / wanted[label]
    return total


def _strata(rows: pl.DataFrame, targets: Iterable[Target]) -> list[list[Label]]:
    """For each row what is to be spread evenly: every class it has, and that it is a photo at all."""
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
            labels.extend(("boxes", name) for name in sorted({box["labels"] for box in drawn}))
    return strata


def _binned(values: pl.Series) -> pl.Series:
    """Numbers as the fifth of all numbers that they fall into."""
    rank = values.rank("dense")
    top = rank.max()
    if not isinstance(top, int) or top < 1:
        return values
    return ((rank - 1) * _VALUE_BINS // top).cast(pl.Int64)


def _group_table(url: str) -> dict[str, str]:
    table = read_table(url)
    image = next((name for name in IMAGE_COLUMNS if name in table.columns), None)
    others = [name for name in table.columns if name != image]
    group = "group" if "group" in others else others[0] if len(others) == 1 else None
    if image is None or group is None:
        raise InputError(
            f"{url} is no group table",
            f"its columns: {', '.join(table.columns)}",
            "It needs two columns: `path` for the photo and `group` for what belongs together.",
        )
    pairs = table.select(pl.col(image).cast(pl.String), pl.col(group).cast(pl.String)).drop_nulls()
    return {name: value for name, value in pairs.iter_rows() if value}


def _with_groups(rows: pl.DataFrame, table: Mapping[str, str]) -> tuple[pl.DataFrame, int]:
    found = [table.get(name) for name in rows["name"]]
    matched = len({name for name in rows["name"] if name in table})
    new = pl.Series("group", found, pl.String)
    return rows.with_columns(group=new.fill_null(rows["group"])), matched
