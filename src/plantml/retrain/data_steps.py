"""Steps 1 to 3: add new photos to the dataset, clean it, and split it around a frozen test set."""

from collections import defaultdict
from fractions import Fraction

import polars as pl

from plantml.curate import clean as cleaning
from plantml.data import importing, manifest, splits, versions
from plantml.data.manifest import EXCLUDED, OK, Version
from plantml.errors import InputError
from plantml.retrain import triggers
from plantml.retrain.rounds import Result, Work
from plantml.targets import Target

ROUND = "meta_retrain_round"
"""Column with the round that added a photo. `--where 'retrain_round == None'` selects the photos from before."""

_SET_ASIDE = "review refused-challenger: of round "

Changed = tuple[pl.DataFrame, tuple[Target, ...], None]


def add(work: Work) -> Result:
    """Add the new photos of the feeds; a feed that the dataset cannot accept is left out with a warning."""
    refused: dict[str, str] = {}
    for feed in work.config.feeds:
        head = triggers.head_of(work.config.dataset)
        try:
            listing = triggers.list_admissible(feed, head, offline=work.machine.offline)
        except InputError as error:
            refused[feed.source] = str(error)
            work.listener.warn(f"Left out: feed {feed.source}: {error}")
            continue
        imported = importing.import_source(
            feed.source,
            work.config.dataset,
            listing,
            reference=feed.reference,
            threads=work.machine.threads,
            progress=work.listener.progress(f"adding {feed.source}"),
        )
        if imported.refused:
            work.listener.warn(
                f"Not read: {imported.refused} photos that feed {feed.source} names outside its folder; see allow_root"
            )
    head = triggers.head_of(work.config.dataset)
    if head is None:
        raise InputError(
            f"There is no dataset at {work.config.dataset}",
            "no feed has a photo for it yet",
            "Put photos into a feed, or import some: plantml dataset import PHOTOS " + work.config.dataset,
        )
    new = _new(head, work.base())
    sources = dict(new.group_by("source").len().sort("source").iter_rows())
    unusable = dict(new.filter(pl.col("status") == EXCLUDED).group_by("source").len().sort("source").iter_rows())
    return {"dataset": head.ref, "fingerprint": head.fingerprint, "added": new.height, "by_source": sources,
            "unusable": unusable, "refused": refused}  # fmt: skip


def clean(work: Work) -> Result:
    """Apply the cleaning policy, but keep existing test photos as they were."""
    before = versions.load(work.result("add")["dataset"])
    head = before
    if work.config.clean:
        codes = cleaning.codes(work.config.clean)
        head = cleaning.clean(work.config.dataset, codes, work.machine, progress=work.listener.progress).version
    base = work.base()
    if base is not None:
        head = versions.change(
            work.config.dataset, "keep-test", {"round": work.round.number}, lambda version: _restore_test(version, base)
        ).version
    excluded = head.rows.filter(pl.col("status") == EXCLUDED).join(
        before.rows.filter(pl.col("status") == OK), on=manifest.KEY, how="semi"
    )
    reasons = excluded["reason"].str.split_exact(":", 1).struct.field("field_0").value_counts(sort=True, name="photos")
    return {"dataset": head.ref, "fingerprint": head.fingerprint, "left_out": dict(sorted(reasons.iter_rows()))}


def _restore_test(version: Version, base: Version) -> Changed:
    """Restore test photos of the base that cleaning excluded for a better copy."""
    old = base.usable("test").select(*manifest.KEY, was=pl.lit(value=True))
    rows = version.rows.join(old, on=manifest.KEY, how="left", maintain_order="left")
    lost = pl.col("was").is_not_null() & ((pl.col("status") != OK) | pl.col("split").ne_missing("test"))
    rows = rows.with_columns(
        status=pl.when(lost).then(pl.lit(OK)).otherwise("status"),
        reason=pl.when(lost).then(None).otherwise("reason"),
        split=pl.when(lost).then(pl.lit("test")).otherwise("split"),
    )
    return rows.drop("was"), manifest.derive_targets(rows, version.targets), None


def split(work: Work) -> Result:
    """Split new photos around the frozen test set, with a share of their groups in the recent test set."""
    config, base = work.config, work.base()
    had_splits = base is not None and base.rows["split"].drop_nulls().len() > 0
    head = versions.load(config.dataset)
    keep = head.rows["split"].drop_nulls().len() > 0
    head = splits.split_dataset(
        config.dataset, ratios=config.ratios, group_by=config.group_by, seed=config.seed, keep=keep
    ).version
    if had_splits:
        assert base is not None
        parameters = {"round": work.round.number, "recent": config.recent, "seed": config.seed}
        head = versions.change(
            config.dataset, "recent-test", parameters, lambda version: _with_recent(version, base, work)
        ).version
    usable = head.usable()
    test = usable.filter(pl.col("split") == "test")
    recent = test.filter(_is_recent(head, work))
    return {
        "dataset": head.ref,
        "fingerprint": head.fingerprint,
        "train": usable.filter(pl.col("split") == "train").height,
        "val": usable.filter(pl.col("split") == "val").height,
        "test": test.height,
        "frozen": test.height - test.filter(_is_late(head)).height,
        "recent": recent.height,
        "rounds": sorted({int(number) for number in recent[ROUND]}) if recent.height else [],
    }


def _with_recent(version: Version, base: Version, work: Work) -> Changed:
    """Mark new rows with the round, and move a share of the entirely new groups to the test split."""
    rows, number = version.rows, str(work.round.number)
    if ROUND not in rows.columns:
        rows = rows.with_columns(pl.lit(None, pl.String).alias(ROUND))
    if (rows[ROUND] == number).any():
        return version.rows, version.targets, None  # an earlier call did this
    new = _new(version, base).select(*manifest.KEY, new=pl.lit(value=True))
    rows = rows.join(new, on=manifest.KEY, how="left", maintain_order="left")
    rows = rows.with_columns(pl.when(pl.col("new")).then(pl.lit(number)).otherwise(ROUND).alias(ROUND))
    recent = _choose_recent(rows, version.targets, work)
    rows = rows.join(recent, on=manifest.KEY, how="left", maintain_order="left")
    rows = rows.with_columns(split=pl.when(pl.col("test")).then(pl.lit("test")).otherwise("split"))
    return rows.drop("new", "test"), version.targets, None


def _choose_recent(rows: pl.DataFrame, targets: tuple[Target, ...], work: Work) -> pl.DataFrame:
    """Keys of new photos for the test split: whole groups, close to the share in every class."""
    usable = rows.filter((pl.col("status") == OK) & pl.col("split").is_not_null())
    empty = usable.clear().select(*manifest.KEY, test=pl.lit(value=True))
    if not work.config.recent or usable.is_empty():
        return empty
    keys = splits.linked_groups(usable)
    members: dict[int, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        members[key].append(row)
    is_new = usable["new"].to_list()
    whole = sorted(row for group in members.values() if all(is_new[row] for row in group) for row in group)
    if not whole:
        return empty
    share = Fraction(str(work.config.recent))
    new = usable[whole]
    assigned = splits.assign(
        new, targets, [keys[row] for row in whole], (1 - share, Fraction(0), share), work.config.seed
    )
    return new.select(*manifest.KEY, test=pl.Series(assigned) == "test").filter("test")


def set_aside(work: Work) -> Version:
    """Exclude the round's photos until they are reviewed; `dataset relabel` with a list includes them again."""
    number = work.round.number

    def apply(version: Version) -> Changed:
        if ROUND not in version.rows.columns:
            return version.rows, version.targets, None
        is_added = (pl.col(ROUND) == str(number)) & (pl.col("status") == OK)
        rows = version.rows.with_columns(
            status=pl.when(is_added).then(pl.lit(EXCLUDED)).otherwise("status"),
            reason=pl.when(is_added).then(pl.lit(f"{_SET_ASIDE}{number}")).otherwise("reason"),
            split=pl.when(is_added).then(None).otherwise("split"),
        )
        return rows, manifest.derive_targets(rows, manifest.narrow_targets(rows, version.targets)), None

    return versions.change(work.config.dataset, "set-aside", {"round": number}, apply).version


def count_aside(version: Version, work: Work) -> int:
    """Number of the round's photos that are set aside."""
    return version.rows.filter(pl.col("reason") == f"{_SET_ASIDE}{work.round.number}").height


def test_sets(work: Work) -> dict[str, str | None]:
    """The test sets of the split, each with its `--where`."""
    counts = work.result("split")
    sets: dict[str, str | None] = {"all": None}
    if counts["recent"]:
        sets["recent"] = f"retrain_round in {[str(number) for number in counts['rounds']]}"
    if counts["frozen"] and counts["frozen"] != counts["test"]:
        sets["frozen"] = "retrain_round == None"
    return sets


def _is_late(version: Version) -> pl.Expr:
    return pl.col(ROUND).is_not_null() if ROUND in version.rows.columns else pl.lit(value=False)


def _is_recent(version: Version, work: Work) -> pl.Expr:
    if ROUND not in version.rows.columns:
        return pl.lit(value=False)
    return pl.col(ROUND).cast(pl.Int64) > work.round.number - work.config.recent_rounds


def _new(version: Version, base: Version | None) -> pl.DataFrame:
    """Rows that the base lacks, also under their original name."""
    if base is None:
        return version.rows
    rows = version.rows.with_columns(original=manifest.import_name(version.rows))
    known = base.rows.select("source", original=manifest.import_name(base.rows))
    return rows.join(known, on=["source", "original"], how="anti", maintain_order="left").drop("original")


test_sets.__test__ = False  # type: ignore[attr-defined]  # not a test, despite its name
