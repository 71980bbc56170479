"""What a URL says: its parts, its extension, whether it is local, what a reference names."""

import os
import re
from pathlib import Path

from plantml.storage import local_files

_ARCHIVES = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tar.xz": "tar",
}
"""How a file's name ends that is taken for an archive, and the protocol of what is in it."""

_PROTOCOL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+://")
_ROOTS = ("://", ":///")
IN_ARCHIVE = re.compile(r"(zip|tar)://")


def is_local(url: str) -> bool:
    """True for a path on this machine's file system, written plainly or as `file://`."""
    return "::" not in url and (not _PROTOCOL.match(url) or url.startswith("file://"))


def local_path(url: str) -> Path:
    """The path of a local URL, with `~` expanded.

    Raises:
        InputError: no file can be called so.
        ValueError: it is another URL.
    """
    return Path(local_name(url))


def local_name(url: str) -> str:
    """As `local_path`, as text: many are not worth an object each."""
    if not is_local(url):
        raise ValueError(url)
    return local_files.name_of(url.removeprefix("file://"))


def absolute(url: str) -> str:
    """The URL as it means the same from any working directory, without a trailing slash."""
    if is_local(url):
        return str(Path(os.path.abspath(local_path(url))))  # noqa: PTH100 - resolve() follows links
    head, chain, rest = url.partition("::")
    head = head if head.endswith(_ROOTS) else head.rstrip("/")
    return head + chain + absolute(rest) if chain else head


def join(url: str, *parts: str) -> str:
    """`url` with path segments appended; in a chain (`zip://…::s3://…`) to its first link."""
    head, chain, rest = url.partition("::")
    for part in parts:
        head = head + part if head.endswith(_ROOTS) or not head else f"{head.rstrip('/')}/{part}"
    return head + chain + rest


def split(url: str) -> tuple[str, str]:
    """The parent of a URL and its last path segment; the parent may be empty."""
    head, chain, rest = url.partition("::")
    stripped = head if head.endswith(_ROOTS) else head.rstrip("/")
    cut = stripped.rfind("/") + 1
    parent = stripped[:cut]
    return (parent if parent.endswith(_ROOTS) or parent == "/" else parent.rstrip("/")) + chain + rest, stripped[cut:]


def basename(url: str) -> str:
    """The last path segment of a URL."""
    return split(url)[1]


def suffix(url: str) -> str:
    """The extension of a URL, lower case, with its dot (`.jpg`), or an empty string."""
    name = url if "::" not in url and not url.endswith("/") else basename(url)
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a URL is no Path


def is_within(url: str, folder: str) -> bool:
    """True if an absolute URL is a folder or lies under it."""
    return f"{url}/".startswith(f"{folder.rstrip('/')}/")


def reference(ref: str, names: str) -> tuple[str, str | None]:
    """`URL@7` as its URL and `7`; the `@` counts only at the end of the last path segment, and in no archive.

    Args:
        ref: of a dataset or of a model.
        names: regular expression of what may stand there but for a number.
    """
    parent, last = split(ref)
    match = re.fullmatch(rf"(.+)@(\d+|{names})", last)
    if match is None or "::" in ref:
        return absolute(ref), None
    return absolute(join(parent, match[1]) if parent else match[1]), match[2]


def is_unicode(name: str) -> bool:
    """False for the name of a local file that holds bytes which are no UTF-8; Python keeps them as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def inside(url: str) -> str:
    """The directory URL of what an archive holds (`zip://::URL`); an empty string if it is not called like one."""
    name = basename(url).lower()
    kind = next((kind for end, kind in _ARCHIVES.items() if name.endswith(end)), "")
    return f"{kind}://::{url}" if kind and not IN_ARCHIVE.match(url) else ""
