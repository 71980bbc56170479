"""Reading the photos of a dataset: local ones directly, remote ones through the local cache, all verified."""

from plantml import storage
from plantml.errors import DamagedError, InputError

UNREADABLE = (InputError, DamagedError)
"""Errors of a single photo: missing, changed, or not decodable. Any other error means the storage has failed."""


def read(image_id: str, url: str, cache: storage.Cache | None) -> bytes:
    """Read a photo and verify its content.

    Args:
        image_id: SHA-256 of its bytes.
        url: where it is stored.
        cache: keeps remote photos; without it they are always fetched.

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
