"""From what a user names to a listing: the table of formats that plantml reads."""

from collections.abc import Sequence

from plantml import storage
from plantml.data import manifest
from plantml.data.importers import Listing
from plantml.data.importers.folder import list_folder
from plantml.data.importers.table import is_table, list_table
from plantml.data.labels import Taxonomy
from plantml.errors import InputError
from plantml.targets import check_name


def list_source(
    source: str,
    *,
    rule: str = "auto",
    taxonomy: Taxonomy | None = None,
    targets: Sequence[str] = (),
    image_column: str | None = None,
    group_column: str | None = None,
) -> Listing:
    """All photos that a source names, with their labels, without reading a photo."""
    source = storage.absolute(source)
    if is_table(source):
        listing = list_table(
            source,
            rule=rule,
            taxonomy=taxonomy,
            targets=targets,
            image_column=image_column,
            group_column=group_column,
        )
    elif not storage.exists(source):
        raise InputError(
            f"There is nothing at {source}", "", "Name a folder of photos, or a CSV, JSONL or Parquet list."
        )
    elif not storage.is_dir(source):
        raise InputError(
            f"{source} is neither a folder nor a list", "", "Lists end in .csv, .jsonl, .ndjson or .parquet."
        )
    else:
        listing = list_folder(source, rule=rule, taxonomy=taxonomy)
    for target in listing.targets:
        check_name(target.name, manifest.SYSTEM)
    return listing
