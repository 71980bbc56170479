"""The datasets that are served, by name: the last path segment of the URL that the operator named."""

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from plantml import imaging, storage
from plantml.data import manifest, photos, versions
from plantml.data.manifest import Version
from plantml.errors import InputError, NotFoundError, UsageError
from plantml.serve.config import ServeConfig
from plantml.serve.photos.uploads import turn
from plantml.serve.recent import Recent
from plantml.settings import Machine

_OPEN = 4
"""Versions that are kept in memory."""

# What a browser gets, by `Facts.format`: never a type that it could run.
MEDIA_TYPES = {
    "JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif",
    "BMP": "image/bmp", "DIB": "image/bmp", "TIFF": "image/tiff", "AVIF": "image/avif", "HEIF": "image/heic",
    "JPEG2000": "image/jp2", "PPM": "image/x-portable-anymap",
}  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A photo as it is sent: bytes that are an image, and their type."""

    data: bytes
    media_type: str


def served(config: ServeConfig) -> dict[str, str]:
    """URLs of the datasets by name. Raises `UsageError` if two have the same name."""
    urls: dict[str, str] = {}
    for url in map(versions.dataset_of, config.dataset):
        name = storage.basename(url)
        if name in urls:
            raise UsageError(f"Two datasets are called {name}", f"{urls[name]} and {url}", "Move one to another name.")
        urls[name] = url
    return urls


class Datasets:
    """The datasets that a server adds photos to, trains on, and shows.

    Args:
        config: names them.
        machine: cache of remote photos.

    Raises:
        UsageError: two have the same name.
    """

    def __init__(self, config: ServeConfig, machine: Machine) -> None:
        self._urls, self._machine = served(config), machine
        self._open: Recent[tuple[str, int], Version] = Recent(_OPEN)
        self._lock = threading.Lock()

    @property
    def names(self) -> Sequence[str]:
        """All names, in the order of the settings."""
        return list(self._urls)

    def url(self, name: str) -> str:
        """The URL of a dataset. Raises `NotFoundError` if none of that name is served."""
        if name not in self._urls:
            why = f"there are {', '.join(self._urls)}" if self._urls else "no dataset is served"
            raise NotFoundError(f"There is no dataset {name!r:.80}", why, "GET /v1/datasets lists all.")
        return self._urls[name]

    def load(self, ref: str) -> Version:
        """The version of `NAME`, `NAME@7` or `NAME@tag`; the last ones are kept, as versions never change.

        Raises:
            NotFoundError: there is no such dataset, or it has no version yet.
            InputError: there is no such version.
        """
        name, has_at, at = (ref, "", "") if ref in self.names or "@" not in ref else ref.rpartition("@")
        full = f"{self.url(name)}{has_at}{at}"
        if versions.parse_reference(full)[0] != self.url(name):  # else `leaves@x/../other` would be another folder
            raise InputError(f"There is no version {ref!r:.80}", "a version is a number or a tag", "Leave it out.")
        url, number = versions.find(full)
        with self._lock:
            version = self._open.use((url, number))
        if version is None:
            version = versions.load(f"{url}@{number}")
            with self._lock:
                self._open[url, number] = version
        return version

    def head(self, name: str) -> Version:
        """The newest version of a dataset; an empty one with number 0 where there is none yet."""
        url = self.url(name)
        if not versions.numbers(url):
            return Version(url, 0, manifest.empty_rows(), ())
        return self.load(name)

    def photo(self, name: str, image_id: str, side: int | None = None) -> Photo:
        """A photo of the newest version of a dataset.

        Args:
            name: of the dataset.
            image_id: SHA-256 of its bytes.
            side: at most so many pixels wide and high, upright, as JPEG; `None` gives its bytes as they came.

        Raises:
            NotFoundError: the dataset has no such photo, or its file is gone.
            InputError: it is not a readable image.
        """
        version = self.load(name)
        rows = version.rows.filter(pl.col("image_id") == image_id, pl.col("path").is_not_null())
        if rows.is_empty():
            raise NotFoundError(f"{name} has no photo {image_id[:64]}", "", "Take the id of a record or a review.")
        format_, path = rows.select("format", "path").row(0)
        if format_ not in MEDIA_TYPES:
            raise InputError(f"{image_id} is not a readable image", "", "Look at it: plantml dataset check")
        data = photos.read(image_id, version.image_url(path), self._machine.cache())
        return Photo(data, MEDIA_TYPES[format_]) if side is None else thumbnail(data, side)


def thumbnail(data: bytes, side: int) -> Photo:
    """A photo at most so many pixels wide and high, upright, encoded anew. Raises `ImageError`."""
    buffer = io.BytesIO()
    with turn(imaging.facts(data)):
        imaging.thumbnail(data, side).save(buffer, "JPEG", quality=85)
    return Photo(buffer.getvalue(), "image/jpeg")
