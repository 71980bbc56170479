"""Import: photos and their labels from a source into a dataset, copied or referenced, never changed.

Each photo is read once; only incomplete files that have changed are read again. Rows of a table that have no photo come
along as they are. Rows that the dataset has already, by source and name, stay as they are: importing a source twice
adds nothing and keeps what was curated since.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.data import manifest, versions
from plantml.data.importers import ImportListing, Item
from plantml.data.importers.tree import AMBIGUOUS
from plantml.data.importers.vetting import BAD_ANNOTATION
from plantml.data.ingest import Bringer, Fill
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.storage.addresses import NOT_ALLOWED
from plantml.targets import Target

_UNFINISHED = ("not-found", "missing", "empty", "empty-file", "truncated", "not-an-image", "damaged", "unreadable",
               NOT_ALLOWED)  # fmt: skip
"""Reason codes of files that may be complete, or readable, at the next import."""

_MISREAD = (BAD_ANNOTATION, AMBIGUOUS)
"""Reason codes of photos whose annotation may be fixed by the next import."""


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        source: URL, absolute.
        version: the dataset afterwards.
        changed: false if there was nothing new.
        usable: photos of the source in the dataset that are not excluded.
        listed: photos that the source names.
        added: new photos.
        without_photo: rows of the source that have columns and labels alone.
        added_without_photo: how many of them are new.
        mended: names of excluded rows that are fixed at the source and were imported again.
        known: photos that the dataset had already.
        copies: new rows with the bytes of another row.
        conflicts: new rows with the bytes of a row with another label: name, target, both labels.
        excluded: new rows that are excluded: name and reason.
        refused: how many of them are at addresses that the source may not name.
        relabelled: names of known rows whose labels at the source have changed.
        replaced: names of known rows whose files at the source have another size.
        skipped: skipped files, by reason.
        rule: how labels were read.
        notes: sentences for the user.
    """

    source: str
    version: Version
    changed: bool
    usable: int
    listed: int
    added: int
    without_photo: int
    added_without_photo: int
    mended: Sequence[str]
    known: int
    copies: int
    conflicts: Sequence[tuple[str, str, str]]
    excluded: Sequence[tuple[str, str]]
    refused: int
    relabelled: Sequence[str]
    replaced: Sequence[str]
    skipped: Mapping[str, int]
    rule: str
    notes: Sequence[str]


def import_source(
    source: str,
    dataset: str,
    listing: ImportListing,
    *,
    reference: bool = False,
    threads: int = 2,
    progress: Progress = silent,
    fill: Fill | None = None,
) -> Imported:
    """Import a listing's photos into a dataset.

    With `reference`, the photos stay where they are, and their URLs are stored. `fill` reads the photos elsewhere.

    Raises:
        InputError: the dataset lies inside the source, or the source inside the dataset.
        StorageError: the source or the dataset cannot be reached.
    """
    source, url = storage.absolute(source), versions.dataset_of(dataset)
    _check_apart(source, url)
    versions.check_place(url)
    head = versions.load(url) if versions.numbers(url) else Version(url, 0, manifest.empty_rows(), ())
    new, broken = awaited(head, source, listing)
    again = [item.name for item in broken]
    bare, new_bare = (sum(item.status == manifest.NO_PHOTO for item in items) for items in (listing.items, new))
    listed, added = len(listing.items) - bare, len(new) - new_bare
    new += broken
    stored = head.rows.filter(pl.col("path").str.starts_with("images/"))["image_id"]
    bringer = Bringer(source, url, reference=reference, threads=threads, stored=stored)
    brought = bringer.bring([item for item in new if item.url], progress, fill)
    fresh = labelled(source, new, listing.targets).join(brought, on="name", how="left")
    fresh = fresh.with_columns(pl.col("status").fill_null(manifest.NO_PHOTO))
    bad = pl.col("status") == manifest.EXCLUDED
    # The source's own reason to exclude a photo wins over what its bytes show.
    fresh = fresh.with_columns(
        split=pl.when(~bad | pl.col("_source_reason").is_not_null()).then("split"),
        status=pl.when(pl.col("_source_reason").is_null()).then("status").otherwise(pl.lit(manifest.EXCLUDED)),
        reason=pl.coalesce("_source_reason", "reason"),
    ).drop("_source_reason")

    def add(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...], None]:
        theirs = (pl.col("source") == source) & pl.col("name").is_in(again) & _left_out_for((*_UNFINISHED, *_MISREAD))
        version = replace(version, rows=version.rows.filter(~theirs.fill_null(value=False)))
        return *with_new_rows(version, fresh, listing.targets), None

    parameters = {"source": source, "labels": listing.rule, "reference": reference}
    committed = versions.change(url, "import", parameters, add)
    bringer.forget()
    return Imported(
        source=source,
        version=committed.version,
        changed=committed.changed,
        usable=committed.version.usable().filter(pl.col("source") == source).height,
        listed=listed,
        added=added,
        without_photo=bare,
        added_without_photo=new_bare,
        mended=again,
        known=listed - added,
        copies=_copies(head, fresh),
        conflicts=_conflicts(head, fresh),
        excluded=list(fresh.filter(bad).select("name", "reason").iter_rows()),
        refused=sum(bool(item.refusal) for item in new),
        relabelled=relabelled(head, source, listing),
        replaced=sorted({*_replaced(head, source, listing)} - {*again}),
        skipped=listing.skipped,
        rule=listing.rule,
        notes=[*listing.notes, *_crossing_copies(committed.version, fresh)],
    )


def with_new_rows(
    version: Version, fresh: pl.DataFrame, targets: Sequence[Target]
) -> tuple[pl.DataFrame, tuple[Target, ...]]:
    """Rows and targets of a version with those of `fresh` that it has not, by source and name."""
    missing = fresh.join(version.rows.select(manifest.KEY), on=manifest.KEY, how="anti", maintain_order="left")
    if missing.is_empty():  # do not add a target without labels
        return version.rows, version.targets
    targets = manifest.union(version.targets, targets)
    both = pl.concat([manifest.conform(version.rows, targets), manifest.conform(missing, targets)], how="diagonal")
    both = both.sort(manifest.KEY)
    return both, manifest.derive_targets(both, targets)


def reasons(done: Imported) -> str:
    """Excluded photos of an import's source by reason, most frequent first: `not-found 3, empty 1`."""
    rows = done.version.rows.filter((pl.col("source") == done.source) & (pl.col("status") == manifest.EXCLUDED))
    codes = Counter(rows["reason"].fill_null("no reason").str.split(":").list.first())
    return ", ".join(f"{code} {number}" for code, number in codes.most_common())


def awaited(head: Version, source: str, listing: ImportListing) -> tuple[list[Item], list[Item]]:
    """What an import would read: photos new to the dataset, and excluded ones to try again.

    The latter were incomplete or missing and their file has changed, or their annotation could not be read and now can.
    """
    known = manifest.imported_names(head, source)
    rows = head.rows.filter(pl.col("source") == source)
    broken = dict(rows.filter(_left_out_for(_UNFINISHED)).select("name", "bytes").iter_rows())
    misread = set(rows.filter(_left_out_for(_MISREAD))["name"])
    new = [item for item in listing.items if item.name not in known]
    again = [
        item
        for item in listing.items
        if (item.name in broken and _length(item) not in {None, broken[item.name]})
        or (item.name in misread and item.status != manifest.EXCLUDED)
    ]
    return new, again


def _left_out_for(codes: Sequence[str]) -> pl.Expr:
    """True for rows that an import or `clean` excluded for one of the reason codes."""
    code = pl.col("reason").str.strip_prefix("cleaned ").str.split(":").list.first()
    return (pl.col("status") == manifest.EXCLUDED) & code.is_in(codes)


def _length(item: Item) -> int | None:
    """Size of the file at the source in bytes; `None` if it is unknown without reading it."""
    if item.refusal:
        return None
    if item.bytes >= 0:
        return item.bytes
    try:
        return storage.stat(item.url).size
    except InputError:
        return None


def labelled(source: str, items: Sequence[Item], targets: Sequence[Target]) -> pl.DataFrame:
    """What the source says about each photo, as manifest columns."""
    metas = sorted({key for item in items for key in item.meta})
    kinds = manifest.empty_rows(targets).schema
    columns = {
        "source": pl.Series([source] * len(items), dtype=pl.String),
        "name": pl.Series([item.name for item in items], dtype=pl.String),
        "split": pl.Series([item.split for item in items], dtype=pl.String),
        "group": pl.Series([item.group for item in items], dtype=pl.String),
        "_source_reason": pl.Series(
            [item.reason if item.status == manifest.EXCLUDED else None for item in items], dtype=pl.String
        ),
        "boxes": pl.Series(
            [None if item.boxes is None else [box.as_row() for box in item.boxes] for item in items],
            dtype=kinds["boxes"],
        ),
    }
    for target in targets:
        columns[target.name] = pl.Series([item.labels.get(target.name) for item in items], dtype=kinds[target.name])
    for key in metas:
        columns[f"meta_{key}"] = pl.Series([item.meta.get(key) for item in items], dtype=pl.String)
    if any(item.size for item in items):
        sizes = [f"{item.size[0]}x{item.size[1]}" if item.size else None for item in items]
        columns[manifest.ANNOTATED_SIZE] = pl.Series(sizes, dtype=pl.String)
    return pl.DataFrame(columns)


def _copies(head: Version, fresh: pl.DataFrame) -> int:
    ids = fresh.filter(pl.col("reason").is_null())["image_id"].drop_nulls().to_list()
    return len(ids) - len(set(ids) - set(head.rows["image_id"]))


def _crossing_copies(version: Version, fresh: pl.DataFrame) -> list[str]:
    """A note if new photos have exact copies in another split: their scores would be those of known photos."""
    rows = version.usable().filter(pl.col("split").is_not_null())
    rows = rows.join(fresh.select("image_id"), on="image_id", how="semi")
    crossing = rows.filter(pl.col("split").n_unique().over("image_id") > 1).sort("image_id", *manifest.KEY)
    if crossing.is_empty():
        return []
    first = crossing.filter(pl.col("image_id") == crossing["image_id"][0]).unique("split", maintain_order=True)
    such = " and ".join(f"{name} in {split}" for name, split in first.select("name", "split").iter_rows())
    photos = "1 photo has" if (number := crossing["image_id"].n_unique()) == 1 else f"{number} photos have"
    again = f"plantml dataset split {version.url} --resplit"
    return [f"{photos} exact copies in several splits, such as {such}: scores on them mean little. Split anew: {again}"]


def _conflicts(head: Version, fresh: pl.DataFrame) -> list[tuple[str, str, str]]:
    """New photos with the bytes of a photo with another label: name, target, and both labels."""
    conflicts = []
    for target in head.targets:
        if target.name in fresh.columns and target.kind == "class":
            known = head.rows.filter(pl.col(target.name).is_not_null()).select("image_id", known=target.name).unique()
            both = fresh.join(known, on="image_id").filter(pl.col(target.name) != pl.col("known"))
            pairs = both.select("name", target.name, "known").iter_rows()
            conflicts += [(name, target.name, f"{new}, known as {old}") for name, new, old in pairs]
    return sorted(conflicts)


def relabelled(head: Version, source: str, listing: ImportListing) -> list[str]:
    """Names of photos in the dataset whose labels at the source have changed."""
    rows = head.rows.filter(pl.col("source") == source)
    names = [target.name for target in listing.targets if target.name in rows.columns]
    have = {row["name"]: row for row in rows.select("name", *names).iter_rows(named=True)}
    return [
        item.name
        for item in listing.items
        if item.name in have and any(have[item.name].get(name) != label for name, label in item.labels.items())
    ]


def _replaced(head: Version, source: str, listing: ImportListing) -> list[str]:
    have = dict(head.rows.filter(pl.col("source") == source).select("name", "bytes").iter_rows())
    return [item.name for item in listing.items if item.bytes >= 0 and have.get(item.name) not in (None, item.bytes)]


def _check_apart(source: str, dataset: str) -> None:
    if storage.is_within(dataset, source) or storage.is_within(source, dataset):
        raise InputError(
            f"The dataset {dataset} and its source {source} are nested",
            "a source is never written to",
            "Choose another path for the dataset.",
        )
