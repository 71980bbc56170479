"""Import: photos and their labels from a source into a dataset, copied or referenced, never changed.

Each photo is read once, but for files that were not whole and are others now. Rows that the dataset has
already, by source and name, are left as they are, so that importing the same source twice adds nothing and what
was curated since stays curated.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from plantml import storage
from plantml.concurrency import Progress, silent
from plantml.data import manifest, versions
from plantml.data.importers import Item, Listing
from plantml.data.importers.tree import AMBIGUOUS
from plantml.data.importers.vetting import BAD_ANNOTATION
from plantml.data.ingest import Bringer
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.storage.addresses import NOT_ALLOWED
from plantml.targets import Target

_UNFINISHED = ("not-found", "missing", "empty", "empty-file", "truncated", "not-an-image", "damaged", "unreadable",
               NOT_ALLOWED)  # fmt: skip
"""Codes of files that may be whole another time, as photos that were being copied, or that may be read then."""

_MISREAD = (BAD_ANNOTATION, AMBIGUOUS)
"""Codes of photos of which the source may say another time what can be read."""


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Attributes:
        source: URL, absolute.
        version: the dataset afterwards.
        changed: false if there was nothing new.
        usable: photos of the source that the dataset has now, and that are not excluded.
        listed: photos that the source names.
        added: rows that are new in the dataset.
        mended: rows that were left out for what was wrong at the source, and is not any more: their names.
        known: rows that were there already.
        copies: new rows whose bytes another row has too.
        conflicts: new rows whose bytes the dataset knows under another label: name, target, both labels.
        excluded: new rows that came in excluded: name and reason.
        refused: how many of them lie where the source may not name photos.
        relabelled: rows that were there, and whose labels at the source are different now: their names.
        replaced: rows that were there, and whose files at the source have another length now: their names.
        skipped: files passed over, by reason.
        rule: how labels were read.
        notes: sentences that the user should see.
    """

    source: str
    version: Version
    changed: bool
    usable: int
    listed: int
    added: int
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
    listing: Listing,
    *,
    reference: bool = False,
    threads: int = 2,
    progress: Progress = silent,
) -> Imported:
    """Bring a listing's photos into a dataset.

    Args:
        source: URL that the listing was made of.
        dataset: URL of the dataset; a missing one is made.
        listing: see `sources.list_source`.
        reference: leave the photos where they are and write down their URLs.
        threads: photos read and decoded at the same time.
        progress: called with (photos done, photos to read).

    Raises:
        InputError: the dataset lies inside the source, or the other way round.
        StorageError: the source or the dataset cannot be reached.
    """
    source, (url, at) = storage.absolute(source), versions.parse_reference(dataset)
    if at is not None:
        raise InputError(f"{dataset} cannot be changed", "versions are immutable", f"Name the dataset alone: {url}")
    _check_apart(source, url)
    versions.check_place(url)
    head = versions.load(url) if versions.numbers(url) else Version(url, 0, manifest.empty_rows(), ())
    new, broken = awaited(head, source, listing)
    again = [item.name for item in broken]
    new += broken
    stored = head.rows.filter(pl.col("path").str.starts_with("images/"))["image_id"]
    bringer = Bringer(source, url, reference=reference, threads=threads, stored=stored)
    fresh = _labelled(source, new, listing.targets).join(bringer.bring(new, progress), on="name", how="left")
    bad = pl.col("status") == manifest.EXCLUDED
    # A source may say itself that a photo is left out, and why; else its bytes say it.
    fresh = fresh.with_columns(
        split=pl.when(~bad | pl.col("_said").is_not_null()).then("split"),
        status=pl.when(pl.col("_said").is_null()).then("status").otherwise(pl.lit(manifest.EXCLUDED)),
        reason=pl.coalesce("_said", "reason"),
    ).drop("_said")

    def add(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...]]:
        theirs = (pl.col("source") == source) & pl.col("name").is_in(again) & _left_out_for((*_UNFINISHED, *_MISREAD))
        version = replace(version, rows=version.rows.filter(~theirs.fill_null(value=False)))
        missing = fresh.join(version.rows.select(manifest.KEY), on=manifest.KEY, how="anti", maintain_order="left")
        if missing.is_empty():  # a target without a label would be no gain
            return version.rows, version.targets
        targets = manifest.union(version.targets, listing.targets)
        both = pl.concat([manifest.conform(version.rows, targets), manifest.conform(missing, targets)], how="diagonal")
        both = both.sort(manifest.KEY)
        return both, manifest.derive_targets(both, targets)

    parameters = {"source": source, "labels": listing.rule, "reference": reference}
    committed = versions.change(url, "import", parameters, add)
    bringer.forget()
    return Imported(
        source=source,
        version=committed.version,
        changed=committed.changed,
        usable=committed.version.usable().filter(pl.col("source") == source).height,
        listed=len(listing.items),
        added=fresh.height - len(again),
        mended=again,
        known=len(listing.items) - len(new) + len(again),
        copies=_copies(head, fresh),
        conflicts=_conflicts(head, fresh),
        excluded=list(fresh.filter(bad).select("name", "reason").iter_rows()),
        refused=sum(bool(item.refusal) for item in new),
        relabelled=relabelled(head, source, listing),
        replaced=sorted({*_replaced(head, source, listing)} - {*again}),
        skipped=listing.skipped,
        rule=listing.rule,
        notes=listing.notes,
    )


def reasons(done: Imported) -> str:
    """How many photos of an import's source are excluded for what, the most frequent first: `not-found 3, empty 1`."""
    rows = done.version.rows.filter((pl.col("source") == done.source) & (pl.col("status") == manifest.EXCLUDED))
    codes = Counter(rows["reason"].fill_null("no reason").str.split(":").list.first())
    return ", ".join(f"{code} {number}" for code, number in codes.most_common())


def awaited(head: Version, source: str, listing: Listing) -> tuple[list[Item], list[Item]]:
    """What an import would read: photos that the dataset does not know, and those whose file is another one now.

    The latter are files that were not whole when they were read, or not there, and those of which the source could
    not be understood and can be now.
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
        or (item.name in misread and item.status == manifest.OK)
    ]
    return new, again


def _left_out_for(codes: Sequence[str]) -> pl.Expr:
    """Rows that were left out for one of the reasons, and not by anybody's decision."""
    code = pl.col("reason").str.strip_prefix("cleaned ").str.split(":").list.first()
    return (pl.col("status") == manifest.EXCLUDED) & code.is_in(codes)


def _length(item: Item) -> int | None:
    """Bytes of the file at the source, as far as that can be told without reading it."""
    if item.refusal:
        return None
    if item.bytes >= 0:
        return item.bytes
    try:
        return storage.stat(item.url).size
    except InputError:
        return None


def _labelled(source: str, items: Sequence[Item], targets: Sequence[Target]) -> pl.DataFrame:
    """What the source says of each photo, as columns of a manifest."""
    metas = sorted({key for item in items for key in item.meta})
    kinds = manifest.empty_rows(targets).schema
    columns = {
        "source": pl.Series([source] * len(items), dtype=pl.String),
        "name": pl.Series([item.name for item in items], dtype=pl.String),
        "split": pl.Series([item.split for item in items], dtype=pl.String),
        "group": pl.Series([item.group for item in items], dtype=pl.String),
        "_said": pl.Series(
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
        columns["meta_annotated_size"] = pl.Series(sizes, dtype=pl.String)
    return pl.DataFrame(columns)


def _copies(head: Version, fresh: pl.DataFrame) -> int:
    ids = fresh.filter(pl.col("reason").is_null())["image_id"].to_list()
    return len(ids) - len(set(ids) - set(head.rows["image_id"]))


def _conflicts(head: Version, fresh: pl.DataFrame) -> list[tuple[str, str, str]]:
    """New photos whose very bytes the dataset knows under another label: name, target, and what differs."""
    found = []
    for target in head.targets:
        if target.name in fresh.columns and target.kind == "class":
            known = head.rows.filter(pl.col(target.name).is_not_null()).select("image_id", known=target.name).unique()
            both = fresh.join(known, on="image_id").filter(pl.col(target.name) != pl.col("known"))
            pairs = both.select("name", target.name, "known").iter_rows()
            found += [(name, target.name, f"{new}, known as {old}") for name, new, old in pairs]
    return sorted(found)


def relabelled(head: Version, source: str, listing: Listing) -> list[str]:
    """Names of photos that the dataset has, and that the source labels otherwise now."""
    rows = head.rows.filter(pl.col("source") == source)
    shown = [target.name for target in listing.targets if target.name in rows.columns]
    have = {row["name"]: row for row in rows.select("name", *shown).iter_rows(named=True)}
    return [
        item.name
        for item in listing.items
        if item.name in have and any(have[item.name].get(name) != label for name, label in item.labels.items())
    ]


def _replaced(head: Version, source: str, listing: Listing) -> list[str]:
    have = dict(head.rows.filter(pl.col("source") == source).select("name", "bytes").iter_rows())
    return [item.name for item in listing.items if item.bytes >= 0 and have.get(item.name) not in (None, item.bytes)]


def _check_apart(source: str, dataset: str) -> None:
    if dataset == source or dataset.startswith(f"{source}/") or source.startswith(f"{dataset}/"):
        raise InputError(
            f"The dataset {dataset} and its source {source} lie inside each other",
            "a source is never written to",
            "Choose another place for the dataset.",
        )
