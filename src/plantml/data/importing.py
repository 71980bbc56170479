"""Import: photos and their labels from a source into a dataset, copied or referenced, never changed.

Each photo is read once. Rows that the dataset has already, by source and name, are left as they are, so
that importing the same source twice adds nothing and what was curated since stays curated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from plantml import storage
from plantml.data import manifest, versions
from plantml.data.importers import Item, Listing
from plantml.data.manifest import Version
from plantml.data.scan import scan
from plantml.errors import InputError
from plantml.targets import Target
from plantml.work import Progress, in_threads, silent

_REMOTE_THREADS = 16
_EXTENSIONS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif",
               "BMP": ".bmp", "HEIF": ".heic", "AVIF": ".avif"}  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Attributes:
        version: the dataset afterwards.
        changed: false if there was nothing new.
        listed: photos that the source names.
        added: rows that are new in the dataset.
        known: rows that were there already.
        copies: new rows whose bytes another row has too.
        excluded: new rows that came in excluded: name and reason.
        relabelled: rows that were there, and whose labels at the source are different now: their names.
        skipped: files passed over, by reason.
        rule: how labels were read.
        notes: sentences that the user should see.
    """

    version: Version
    changed: bool
    listed: int
    added: int
    known: int
    copies: int
    excluded: Sequence[tuple[str, str]]
    relabelled: Sequence[str]
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
    head = versions.load(url) if versions.numbers(url) else Version(url, 0, manifest.empty_rows(), ())
    known = set(head.rows.filter(pl.col("source") == source)["name"])
    new = [item for item in listing.items if item.name not in known]
    bring = _Bring(source, url, reference=reference)
    workers = threads if storage.is_local(source) and storage.is_local(url) else max(threads, _REMOTE_THREADS)
    rows = []
    for done, row in enumerate(in_threads(bring, new, workers), start=1):
        rows.append(row)
        progress(done, len(new))
    fresh = _frame(rows, listing.targets)

    def add(version: Version) -> tuple[pl.DataFrame, tuple[Target, ...]]:
        missing = fresh.join(version.rows.select(manifest.KEY), on=manifest.KEY, how="anti", maintain_order="left")
        if missing.is_empty():  # a target without a label would be no gain
            return version.rows, version.targets
        targets = _union(version.targets, listing.targets)
        both = pl.concat([manifest.conform(version.rows, targets), manifest.conform(missing, targets)], how="diagonal")
        both = both.sort(manifest.KEY)
        return both, manifest.derive_targets(both, targets)

    parameters = {"source": source, "labels": listing.rule, "reference": reference}
    committed = versions.change(url, "import", parameters, add)
    return Imported(
        version=committed.version,
        changed=committed.changed,
        listed=len(listing.items),
        added=len(rows),
        known=len(listing.items) - len(new),
        copies=_copies(head, fresh),
        excluded=[(row["name"], row["reason"]) for row in rows if row["status"] == manifest.EXCLUDED],
        relabelled=_relabelled(head, source, listing),
        skipped=listing.skipped,
        rule=listing.rule,
        notes=listing.notes,
    )


class _Bring:
    """Reads one photo, stores its bytes, and gives its row. Safe to call from several threads."""

    def __init__(self, source: str, dataset: str, *, reference: bool) -> None:
        self.source, self.dataset, self.reference = source, dataset, reference

    def __call__(self, item: Item) -> dict[str, Any]:
        row: dict[str, Any] = {
            "source": self.source,
            "name": item.name,
            "split": item.split,
            "group": item.group,
            "boxes": None if item.boxes is None else [box.as_row() for box in item.boxes],
            "status": manifest.OK,
            **item.labels,
            **{f"meta_{key}": value for key, value in item.meta.items()},
            **({"meta_annotated_size": f"{item.size[0]}x{item.size[1]}"} if item.size else {}),
        }
        try:
            data = storage.read(item.url)
        except InputError as error:
            return row | {"status": manifest.EXCLUDED, "split": None, "reason": f"not-found: {error}"}
        found = scan(data)
        row |= found.columns() | {"bytes": len(data)}
        if found.reason:
            row |= {"status": manifest.EXCLUDED, "split": None, "reason": found.reason}
        row["path"] = item.url if self.reference else self._store(item, found.image_id, row["format"], data)
        return row

    def _store(self, item: Item, image_id: str, format_: str | None, data: bytes) -> str | None:
        if not data:
            return None
        extension = _EXTENSIONS.get(format_ or "", storage.suffix(item.name))
        path = f"images/{image_id[:2]}/{image_id}{extension}"
        url = storage.join(self.dataset, path)
        # The name is the content's hash: whoever wrote it before wrote the same bytes.
        if not storage.exists(url):
            storage.write(url, data)
        return path


def _frame(rows: list[dict[str, Any]], targets: Sequence[Target]) -> pl.DataFrame:
    metas = sorted({key for row in rows for key in row if key.startswith("meta_")})
    schema: dict[str, Any] = {**manifest.empty_rows(targets).schema, **dict.fromkeys(metas, pl.String)}
    return pl.DataFrame(rows, schema=schema)


def _union(have: Sequence[Target], come: Sequence[Target]) -> tuple[Target, ...]:
    by_name = {target.name: target for target in have}
    for target in come:
        known = by_name.setdefault(target.name, target)
        if known.kind != target.kind:
            raise InputError(
                f"The dataset predicts {target.name} as {known.kind}, the source gives it as {target.kind}",
                "one target has one kind",
                f"Name the kind: --target {target.name}:{known.kind}",
            )
    return tuple(by_name.values())


def _copies(head: Version, fresh: pl.DataFrame) -> int:
    ids = fresh.filter(pl.col("reason").is_null())["image_id"].to_list()
    return len(ids) - len(set(ids) - set(head.rows["image_id"]))


def _relabelled(head: Version, source: str, listing: Listing) -> list[str]:
    rows = head.rows.filter(pl.col("source") == source)
    shown = [target.name for target in listing.targets if target.name in rows.columns]
    have = {row["name"]: row for row in rows.select("name", *shown).iter_rows(named=True)}
    return [
        item.name
        for item in listing.items
        if item.name in have and any(have[item.name].get(name) != label for name, label in item.labels.items())
    ]


def _check_apart(source: str, dataset: str) -> None:
    if dataset == source or dataset.startswith(f"{source}/") or source.startswith(f"{dataset}/"):
        raise InputError(
            f"The dataset {dataset} and its source {source} lie inside each other",
            "a source is never written to",
            "Choose another place for the dataset.",
        )
