"""Reading the photos of a dataset: local ones directly, remote ones through the local cache, all verified."""

from collections.abc import Iterable, Iterator

from plantml import storage
from plantml.concurrency import in_threads
from plantml.errors import DamagedError, InputError, PlantmlError

UNREADABLE = (InputError, DamagedError)
"""Errors of a single photo: missing, changed, or not decodable. Any other error means the storage has failed."""

_THREADS = 8
"""Photos read at the same time; up to twice as many wait for the caller."""


def read(image_id: str, url: str, cache: storage.Cache | None) -> bytes:
    """Read a photo, and verify its content against its SHA-256. A cache keeps remote photos.

    Raises:
        NotFoundError: the photo is missing.
        DamagedError: its bytes have changed.
        StorageError: the storage has failed, after retries.
    """
    if cache is not None and not storage.is_local(url):
        return cache.read(image_id, url, storage.MAX_PHOTO)
    data = storage.read(url, storage.MAX_PHOTO)
    storage.check_sha256(data, image_id, url)
    return data


def read_ahead(
    photos: Iterable[tuple[str, str]], cache: storage.Cache | None
) -> Iterator[tuple[str, bytes | PlantmlError]]:
    """Read photos by SHA-256 and URL, some ahead of the caller: in order, each URL, and the bytes or what is wrong.

    Raises:
        StorageError: the storage has failed, after retries.
    """

    def read_one(photo: tuple[str, str]) -> tuple[str, bytes | PlantmlError]:
        image_id, url = photo
        try:
            return url, read(image_id, url, cache)
        except UNREADABLE as error:
            return url, error

    return in_threads(read_one, photos, _THREADS)
