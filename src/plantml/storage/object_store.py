"""Buckets of `s3://`, `gs://` and `az://` through obstore, which needs a tenth of the processor time of s3fs.

A bucket has the methods of an fsspec filesystem that plantml calls, and raises the same errors. What obstore cannot do,
and what the user has configured for fsspec, is left to fsspec: to s3fs, gcsfs or adlfs. See docs/decisions/0012.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from plantml.storage import remote

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PAGE = 1000
"""Objects of one answer to a listing, as S3 gives them."""

_KINDS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_URL = re.compile(r"(\w+)://([^/]+)/*(.*?)/*", re.DOTALL)
_UNNAMEABLE = re.compile(r"[\0-\x1f\x7f]|(?:^|/)\.{0,2}(?:/|$)")
"""What no path of obstore may hold: control characters, and segments that are empty or dots."""

_OTHER_CLOUDS = ("cn-", "us-iso", "eu-isoe", "eusc-")
"""Regions of S3 whose addresses obstore does not know."""

_OTHER_ENDPOINTS = ("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")

_ANSWER = re.compile(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", re.DOTALL)
_NOISE = re.compile(r" in [\d.]+\w+(?:, after [^-]*)? +- ")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_METADATA = ("//169.254.169.254/", "//metadata.google.internal/", "//metadata/")
"""Where the machines of a cloud ask for the credentials of their role."""

_SILENCE, _LONGEST, _CONNECT = timedelta(seconds=120), timedelta(seconds=remote.OTHER_SECONDS), timedelta(seconds=10)
_CREDENTIALS_LAST = timedelta(minutes=5)
_PART = 8 << 20
_owner: int | None = None
"""Process in which obstore was started: its threads do not survive a fork."""

Item = tuple[str, int, str, float]
"""Key relative to the listed folder, size in bytes, ETag, seconds since 1970 of the last change."""


class UnnameableError(ValueError):
    """A listing met a key that obstore cannot name."""


class StoreError(OSError):
    """What a store answered in place of what was asked for; `status` is that of HTTP, 0 if it gave no answer."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def opened(url: str) -> "tuple[Bucket, str] | None":
    """The bucket of a URL, and the key in it; `None` if fsspec is to open it."""
    global _owner  # noqa: PLW0603
    match = _URL.fullmatch(url)
    if match is None or match[1] not in _KINDS or "::" in url:
        return None
    protocol, name, key = match.groups()
    if (key and _UNNAMEABLE.search(key)) or _is_configured(protocol) or _owner not in (None, os.getpid()):
        return None
    with _explained(url):
        bucket = _bucket(protocol, name)
    _owner = os.getpid()
    return None if bucket is None else (bucket, key)


def client(protocol: str) -> str:
    """What opens the buckets of a protocol, in words."""
    if _is_configured(protocol):
        return "fsspec, as it is configured"
    import obstore

    return f"obstore {obstore.__version__}"


def forget() -> None:
    """Have credentials and endpoints read again."""
    _bucket.cache_clear()


class Bucket:
    """One bucket or container.

    Args:
        client: of obstore.
        root: its URL.
    """

    protocol = "obstore"

    def __init__(self, client: "ObjectStore", root: str) -> None:
        self._client, self._root = client, root

    def cat_file(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """An object, or a part of it; a part beyond its end is empty."""
        with _explained(key):
            if end is None:
                answer = self._client.get(key)
                remote.count(answer.meta["size"])
                return bytes(answer.bytes())
            try:
                return bytes(self._client.get_range(key, start=start or 0, end=end))
            except Exception as error:
                if _status(error) == 416:  # the range begins beyond the end
                    return b""
                raise

    def get_file(self, key: str, file: IO[bytes]) -> None:
        """Write an object into an open file, piece by piece."""
        with _explained(key):
            for piece in self._client.get(key).stream(min_chunk_size=_PART):
                file.write(piece)

    def pipe_file(self, key: str, data: bytes, mode: Literal["create", "overwrite"] = "overwrite") -> None:
        """Write an object; with `mode="create"` only if there is none."""
        with _explained(key):
            self._client.put(key, data, mode=mode)

    def put_file(self, file: str, key: str) -> None:
        """Write an object from a local file."""
        with _explained(key):
            self._client.put(key, Path(file))

    def rm_file(self, key: str) -> None:
        """Remove an object."""
        with _explained(key):
            self._client.delete(key)

    def info(self, key: str) -> dict[str, Any]:
        """Size, ETag and time of change of an object, or that it is a directory."""
        with _explained(key):
            try:
                found = self._client.head(key) if key else None
            except FileNotFoundError:
                found = None
            if found:
                return _info(found)
            if self.isdir(key):
                return {"type": "directory", "size": 0}
            raise FileNotFoundError(key)

    def exists(self, key: str) -> bool:
        """True if there is an object, or any under that prefix."""
        try:
            self.info(key)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, key: str) -> bool:
        """True if there is any object under that prefix."""
        from obstore import exceptions

        with _explained(key):
            listing = iter(self._client.list(key, chunk_size=1))
            try:
                return not key or bool(next(listing, None))
            except exceptions.InvalidPathError:
                return True

    def listing(self, key: str) -> Iterator[Any]:
        """A listing of all objects under a prefix, of which `page` gives the pages."""
        return iter(self._client.list(key, chunk_size=PAGE))

    def page(self, listing: Iterator[Any], key: str) -> list[Item] | None:
        """The next page of a listing; empty objects that stand for folders are left out. `None` at the end.

        Raises:
            UnnameableError: there is an object that obstore cannot name.
        """
        start = len(key) + 1 if key else 0
        with _explained(key):
            for page in listing:
                return [
                    (found["path"][start:], found["size"], found["e_tag"] or "", found["last_modified"].timestamp())
                    for found in page
                    if found["size"] or (found["path"] != key and self._is_object(found["path"]))
                ]
            return None

    def glob(self, pattern: str, *, detail: bool) -> dict[str, dict[str, Any]]:
        """By key, what matches a pattern, as fsspec understands it."""
        assert detail
        from fsspec.utils import glob_translate

        parts = pattern.split("/")
        fixed = next((at for at, part in enumerate(parts) if any(mark in part for mark in "*?[")), len(parts) - 1)
        root = "/".join(parts[:fixed])
        with _explained(pattern):
            if any("**" in part for part in parts):
                listed = (found for page in self._client.list(root) for found in page)
            else:
                listed = (found for folder in self._folders([root], parts[fixed:-1], glob_translate)
                          for found in self._client.list_with_delimiter(folder)["objects"])  # fmt: skip
            is_match = re.compile(glob_translate(pattern)).match
            return {
                found["path"]: _info(found)
                for found in listed
                if is_match(found["path"]) and (found["size"] or self._is_object(found["path"]))
            }

    def _folders(self, folders: list[str], parts: list[str], translated: Callable[[str], str]) -> list[str]:
        for part in parts:
            is_match = re.compile(translated(part)).match
            folders = [
                prefix
                for folder in folders
                for prefix in self._client.list_with_delimiter(folder)["common_prefixes"]
                if is_match(prefix.rpartition("/")[2])
            ]
        return folders

    def _is_object(self, key: str) -> bool:
        """False for the empty object `key/`, which obstore calls `key`."""
        try:
            self._client.head(key)
        except FileNotFoundError:
            return False
        return True

    def unstrip_protocol(self, key: str) -> str:
        """The URL of a key."""
        return f"{self._root}/{key}"

    def invalidate_cache(self) -> None:
        """Nothing is remembered."""


def _info(found: Any) -> dict[str, Any]:
    return {"type": "file", "size": found["size"], "ETag": found["e_tag"], "LastModified": found["last_modified"]}


# --- errors -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(key: str) -> Iterator[None]:
    """Raise Python's own errors in place of obstore's."""
    from obstore import exceptions

    try:
        yield
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(_text(error)) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(_text(error)) from error
    except exceptions.InvalidPathError as error:
        raise UnnameableError(_text(error)) from error
    except exceptions.BaseError as error:
        status = _status(error)  # a listing has no other way to say it
        if status in {401, 403} or (_asked_for_role(error) and status < 500 and status != 429):
            raise PermissionError(_text(error)) from error
        if status == 404:  # no such bucket
            raise FileNotFoundError(key) from error
        raise StoreError(_text(error), status) from error


def _status(error: Exception) -> int:
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0


def _asked_for_role(error: Exception) -> bool:
    return any(address in str(error) for address in _METADATA)


def _text(error: Exception) -> str:
    """One line of what a store said."""
    text = str(error)
    if _asked_for_role(error):
        return "no credentials were found, and this machine has no role of its own"
    answer = _ANSWER.search(text)
    return (f"{answer[1]}: {answer[2]}" if answer else _NOISE.sub(": ", text)).partition("\n")[0]


# --- credentials, endpoints -------------------------------------------------------------------


def _is_configured(protocol: str) -> bool:
    """True if the user has configured the filesystem of fsspec for this protocol."""
    if _KINDS[protocol] == "az" and "AZURE_STORAGE_CONNECTION_STRING" in os.environ:  # which only adlfs reads
        return True
    folder = Path(os.environ.get("FSSPEC_CONFIG_DIR") or Path("~/.config/fsspec").expanduser())
    if not any(name.startswith("FSSPEC_") for name in os.environ) and not folder.is_dir():
        return False
    from fsspec.config import conf

    return bool(conf.get(protocol))


@lru_cache(64)
def _bucket(protocol: str, name: str) -> Bucket | None:
    from obstore import store

    # A few quick retries for what a reused connection runs into; `remote` makes the others, and tells of them.
    waits = {"timeout": _LONGEST, "read_timeout": _SILENCE, "connect_timeout": _CONNECT}
    common: dict[str, Any] = {
        "client_options": {"allow_http": True, **waits},
        "retry_config": {"max_retries": 2, "backoff": {"init_backoff": timedelta(seconds=0.05)}},
    }
    root, kind = f"{protocol}://{name}", _KINDS[protocol]
    if kind == "gs":
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        if emulator:
            # With `skip_signature`, obstore would still look for credentials to write.
            address = emulator if "://" in emulator else f"http://{emulator}"
            common |= {"base_url": address, "credential_provider": lambda: {"token": "emulator", "expires_at": None}}
        return Bucket(store.GCSStore(name, **common), root)
    if kind == "az":
        container, _, account = name.partition("@")
        given: dict[str, Any] = {"account_name": account.partition(".")[0]} if account else {}
        return Bucket(store.AzureStore(container, **given, **common), root)
    if name.startswith("arn:") or any(os.environ.get(each, "").lower() == "true" for each in _OTHER_ENDPOINTS):
        return None
    settings = _s3_settings(name)
    if settings.get("region", "").startswith(_OTHER_CLOUDS):
        return None
    if certificates := os.environ.get("AWS_CA_BUNDLE"):
        common["client_options"]["root_certificate"] = Path(certificates).read_bytes()
    return Bucket(store.S3Store(name, disable_bulk_delete=True, **settings, **common), root)


def _s3_settings(bucket: str) -> dict[str, Any]:
    """Endpoint, region and credentials, where obstore does not find them in the environment itself.

    Profiles and the files of AWS are read by botocore, which knows all that may stand in them.
    """
    env = os.environ
    files = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    settings: dict[str, Any] = {}
    if "AWS_PROFILE" in env or any(Path(env.get(name, file)).expanduser().is_file() for name, file in files.items()):
        import botocore.session

        session = botocore.session.Session()
        region = region or session.get_config_variable("region")
        endpoint = endpoint or _configured_endpoint(session)
        if credentials := session.get_credentials():
            settings["credential_provider"] = _Credentials(credentials)
    if endpoint:
        return settings | {"endpoint": endpoint, **({"region": region} if region else {})}
    if not (region or "").startswith(_OTHER_CLOUDS):
        region = _region(bucket, region) or region
    return settings | ({"region": region} if region else {})


def _configured_endpoint(session: Any) -> str | None:
    """The endpoint of S3 in a profile: its own, or that of its `services` section."""
    full = session.full_config
    profile = session.get_scoped_config()
    services = full.get("services", {}).get(profile.get("services"), {})
    endpoint: str | None = services.get("s3", {}).get("endpoint_url") or profile.get("endpoint_url")
    return endpoint


class _Credentials:
    """What botocore knows, asked again every few minutes: it renews what expires."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def __call__(self) -> Any:
        now = self._credentials.get_frozen_credentials()
        expires = datetime.now(UTC) + _CREDENTIALS_LAST
        return {"access_key_id": now.access_key, "secret_access_key": now.secret_key, "token": now.token,
                "expires_at": expires}  # fmt: skip


def _region(bucket: str, near: str | None) -> str | None:
    """The region of a bucket of AWS, which the answer to anybody's question names; `None` if there is no answer.

    Args:
        bucket: its name.
        near: a region whose address can be reached, perhaps as the only one.
    """
    import urllib.error
    import urllib.request  # for which a command on local files does not wait

    host = f"s3.{near}.amazonaws.com" if near else "s3.amazonaws.com"
    request = urllib.request.Request(f"https://{host}/{bucket}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - https it is
            headers = answer.headers
    except urllib.error.HTTPError as error:
        headers = error.headers
    except OSError:
        return None
    region: str | None = headers.get("x-amz-bucket-region")
    return region
