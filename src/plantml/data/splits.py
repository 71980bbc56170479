"""Splits that keep groups whole, hold the class shares, and come out the same on every machine."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import polars as pl

from plantml.data import versions
from plantml.data.importers.table import IMAGE_COLUMNS, read_table
from plantml.data.manifest import OK, SPLITS, Version
from plantml.data.versions import Committed
from plantml.errors import InputError, UsageError
from plantml.targets import Target

_VALUE_BINS = 5

Label = tuple[str, str]
"""A target and one of its classes; two empty texts stand for being a photo at all."""


@dataclass(frozen=True)
class SplitReport:
    """What a split came to.

    Attributes:
        committed: the version, and whether it is new.
        counts: photos by split.
        groups: number of groups, photos alone in theirs included.
        joined: photos that a rule put into one group with others, by rule.
        matched: rows of the group table that named a photo of the dataset; `None` without a table.
    """

    committed: Committed
    counts: Mapping[str, int]
    groups: int
    joined: Mapping[str, int]
    matched: int | None


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
    seed: int = 0,
    resplit: bool = False,
) -> SplitReport:
    """Assign every usable photo to train, val or test, in a new version.

    Args:
        ref: the dataset.
        ratios: shares of train, val and test.
        groups: URL of a table with a photo column and a group column, joined by name.
        seed: another seed gives another, equally good split.
        resplit: replace a split that is there already.

    Raises:
        InputError: there are splits already and `resplit` was not asked for, or nothing to split.
    """
    shares = parse_ratios(ratios)
    table = _group_table(groups) if groups else None
    seen: dict[str, SplitReport] = {}

    def apply(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...]]:
        rows = version.rows
        matched = None
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
        keys, joined = group_keys(usable)
        assigned = assign(usable, version.targets, keys, shares, seed)
        result = rows.join(
            usable.select("source", "name").with_columns(pl.Series("_split", assigned)),
            on=["source", "name"],
            how="left",
            maintain_order="left",
        ).with_columns(split=pl.col("_split")).drop("_split")  # fmt: skip
        before = usable["split"].drop_nulls()
        if len(before) and not resplit and not result["split"].equals(version.rows["split"]):
            counts = ", ".join(f"{name} {n}" for name, n in sorted(before.value_counts().iter_rows()))
            raise InputError(
                f"{version.ref} has splits already ({counts})",
                "a model trained on them would be tested on photos that it has seen",
                "If that is what you want: --resplit.",
            )
        sizes = Counter(assigned)
        seen["report"] = SplitReport(
            Committed(version, changed=False),
            {name: sizes[name] for name in SPLITS},
            len(set(keys)),
            joined,
            matched,
        )
        return result, version.targets

    parameters = {"ratios": ratios, "groups": groups, "seed": seed}
    committed = versions.change(ref, "split", parameters, apply)
    report = seen["report"]
    return SplitReport(committed, report.counts, report.groups, report.joined, report.matched)


def group_keys(rows: pl.DataFrame) -> tuple[list[int], dict[str, int]]:
    """A group number for each row: rows that share a group or their exact bytes share it.

    Returns:
        Group numbers in row order, and how many rows each rule joined to others.
    """
    parent = list(range(rows.height))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    joined = {}
    for rule, column in (("group", "group"), ("exact copies", "image_id")):
        members: dict[Hashable, list[int]] = defaultdict(list)
        for i, value in enumerate(rows[column]):
            if value is not None:
                members[value].append(i)
        together = [rows_ for rows_ in members.values() if len(rows_) > 1]
        joined[rule] = sum(len(rows_) for rows_ in together)
        for first, *others in together:
            for other in others:
                parent[root(other)] = root(first)
    return [root(i) for i in range(rows.height)], joined


def assign(
    rows: pl.DataFrame, targets: Iterable[Target], keys: Sequence[int], shares: Sequence[Fraction], seed: int
) -> list[str]:
    """A split for each row, whole groups at a time, near the wanted shares for every class of every target.

    Groups are placed one by one, those with rare classes and many photos first, each where it lowers the
    chi-square distance to the wanted counts most: the greedy order of Sechidis et al. 2011, "On the
    stratification of multi-label data", on groups. Ties and order come from the photos' hashes, and every sum
    is made of single IEEE 754 operations in a fixed order, so that row order, storage and processor do not
    matter.
    """
    strata = _strata(rows, targets)
    members: dict[int, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        members[key].append(i)
    ids = rows["image_id"].to_list()
    totals = Counter(label for labels in strata for label in labels)

    groups: list[tuple[int, int, str, list[int], list[tuple[Label, int]]]] = []
    for rows_ in members.values():
        counts = Counter(label for i in rows_ for label in strata[i])
        rarest = min(totals[label] for label in counts)
        content = min(ids[i] for i in rows_)
        order = hashlib.sha256(f"{seed}:{content}".encode()).hexdigest()
        groups.append((rarest, -len(rows_), order, rows_, sorted(counts.items())))
    groups.sort(key=lambda group: group[:3])

    wanted = [{label: float(share * total) for label, total in totals.items()} for share in shares]
    placed: list[dict[Label, int]] = [dict.fromkeys(totals, 0) for _ in shares]
    result = [""] * rows.height
    possible = [number for number, share in enumerate(shares) if share > 0]
    for _, _, _, rows_, labels in groups:
        best = min(possible, key=lambda number: _cost(labels, placed[number], wanted[number]))
        for label, count in labels:
            placed[best][label] += count
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
