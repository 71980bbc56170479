"""Reading photos: verified, and remote ones fetched once."""

import hashlib
import uuid

import pytest

from plantml import storage
from plantml.data import photos
from plantml.errors import DamagedError, NotFoundError, StorageError

PHOTO = b"the bytes of a photo"
IMAGE_ID = hashlib.sha256(PHOTO).hexdigest()


@pytest.fixture(params=["local", "remote"])
def url(request, tmp_path):
    url = str(tmp_path / "1.jpg") if request.param == "local" else f"memory://{uuid.uuid4().hex}/1.jpg"
    storage.write(url, PHOTO)
    return url


@pytest.fixture
def cache(tmp_path):
    return storage.Cache(tmp_path / "cache", 1 << 20)


def test_a_changed_photo_is_refused(url, cache):
    assert photos.read(IMAGE_ID, url, None) == PHOTO
    storage.write(url, PHOTO + b"!")
    for kept in (cache, None):
        with pytest.raises(DamagedError):
            photos.read(IMAGE_ID, url, kept)


def test_a_missing_photo_is_an_error_of_that_photo(url, cache):
    storage.remove(url)
    with pytest.raises(photos.UNREADABLE) as raised:
        photos.read(IMAGE_ID, url, cache)
    assert isinstance(raised.value, NotFoundError)


def test_only_remote_photos_are_cached(url, cache):
    photos.read(IMAGE_ID, url, cache)
    storage.remove(url)
    if storage.is_local(url):
        with pytest.raises(NotFoundError):
            photos.read(IMAGE_ID, url, cache)
    else:
        assert photos.read(IMAGE_ID, url, cache) == PHOTO


def test_many_photos_come_in_order_with_the_errors_of_single_ones_in_their_place(url, cache):
    gone, changed = url.replace("1.jpg", "2.jpg"), url.replace("1.jpg", "3.jpg")
    storage.write(changed, PHOTO + b"!")
    wanted = [(IMAGE_ID, url), (IMAGE_ID, gone), (IMAGE_ID, changed)] * 20
    contents = list(photos.read_ahead(wanted, None))
    assert [place for place, _ in contents] == [place for _, place in wanted]
    assert [type(data) for _, data in contents] == [bytes, NotFoundError, DamagedError] * 20


def test_a_storage_that_fails_is_no_error_of_a_photo(monkeypatch):
    def fail(url, limit):
        raise StorageError("no route to host")

    monkeypatch.setattr(storage, "read", fail)
    with pytest.raises(StorageError, match="no route"):
        list(photos.read_ahead([(IMAGE_ID, "memory://a/1.jpg")], None))
