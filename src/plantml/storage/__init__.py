"""The one door to bytes: every path in plantml is a URL that passes through here.

A URL is a local path or anything that fsspec understands (`s3://`, `gs://`, `memory://`,
`zip://x.zip::s3://…`). Credentials come from where the ecosystem keeps them. Local paths take a
direct road, so that a command on local files pays nothing for the others; buckets are opened by obstore.

What lies in a zip or tar archive is read by `zip://member::URL` and `tar://member::URL`, from several
threads at once and without unpacking; `inside` gives the URL of all that an archive holds.
"""

from plantml.storage.bulk_reading import FETCH_BATCH, read_ahead, read_many
from plantml.storage.cache import Cache, check_sha256, damaged
from plantml.storage.links import LINK_BACK, LINK_DEAD, LINK_OUTSIDE, Links
from plantml.storage.listing import glob, has_pattern, list_files, passed_over
from plantml.storage.object_store import client
from plantml.storage.reading import (
    MAX_FILE,
    MAX_PHOTO,
    Entry,
    exists,
    is_dir,
    open_local,
    ranges,
    read,
    read_head,
    stat,
)
from plantml.storage.urls import (
    absolute,
    basename,
    inside,
    is_local,
    is_unicode,
    is_within,
    join,
    local_path,
    reference,
    split,
    suffix,
)
from plantml.storage.writing import check_output, create, make_folder, now_utc, publish, remove, staged, write

__all__ = [
    "FETCH_BATCH",
    "LINK_BACK",
    "LINK_DEAD",
    "LINK_OUTSIDE",
    "MAX_FILE",
    "MAX_PHOTO",
    "Cache",
    "Entry",
    "Links",
    "absolute",
    "basename",
    "check_output",
    "check_sha256",
    "client",
    "create",
    "damaged",
    "exists",
    "glob",
    "has_pattern",
    "inside",
    "is_dir",
    "is_local",
    "is_unicode",
    "is_within",
    "join",
    "list_files",
    "local_path",
    "make_folder",
    "now_utc",
    "open_local",
    "passed_over",
    "publish",
    "ranges",
    "read",
    "read_ahead",
    "read_head",
    "read_many",
    "reference",
    "remove",
    "split",
    "staged",
    "stat",
    "suffix",
    "write",
]
