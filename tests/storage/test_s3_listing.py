"""Listings of object stores: page by page, in order, in little memory."""

import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plantml import storage
from plantml.errors import NotFoundError
from plantml.storage import s3_listing

CHANGED = datetime(2026, 5, 1, 12, 30, 15, 250_000, tzinfo=UTC)


class Bucket:
    """Answers like ListObjectsV2, `size` keys a page."""

    def __init__(self, keys, size=3):
        self.keys, self.size, self.asked = list(keys), size, 0

    def __call__(self, *, Bucket, Prefix, ContinuationToken="0"):  # noqa: N803 - S3 spells them so
        assert Bucket == "season"
        self.asked += 1
        under = [key for key in self.keys if key.startswith(Prefix)]
        start = int(ContinuationToken)
        some = under[start : start + self.size]
        found = [{"Key": key, "Size": len(key), "ETag": f'"{key}"', "LastModified": CHANGED} for key in some]
        more = start + self.size < len(under)
        page = {"IsTruncated": more, "NextContinuationToken": str(start + self.size)} if more else {}
        return page | ({"Contents": found} if found else {})


def test_all_pages_are_asked_for_and_folders_are_left_out():
    bucket = Bucket(["a/", "a/1.jpg", "a/2.jpg", "a/b/", "a/b/3.jpg", "a/é.jpg", "ab/4.jpg"])
    found = list(s3_listing.of_s3(bucket, "season", "a/"))
    assert [name for name, *_ in found] == ["1.jpg", "2.jpg", "b/3.jpg", "é.jpg"]
    assert found[0] == ("1.jpg", 7, '"a/1.jpg"', CHANGED.timestamp())
    assert bucket.asked == 2


def test_nothing_is_no_page():
    assert list(s3_listing.of_s3(Bucket([]), "season", "a/")) == []


@given(st.lists(st.tuples(st.text(), st.integers(0, 9), st.text(), st.floats(0, 2e9)), unique_by=lambda item: item[0]))
def test_items_in_any_order_come_out_by_name(items):
    assert list(s3_listing.in_order(iter(items))) == sorted(items)


def test_more_than_a_block_comes_out_as_it_went_in():
    items = [(f"{number:06d}.jpg", number, f"tag{number}", number / 7) for number in range(2000)]
    assert list(s3_listing.in_order(iter(items))) == items
    assert list(s3_listing.in_order(iter(items[1000:] + items[:1000]))) == items


def test_memory_grows_by_less_than_a_hundred_bytes_an_object():
    def peak(number):
        items = (
            (f"photos/{row:08d}.jpg", 20_000, f'"{hash((row, 1)) % 2**64:032x}"', 1.7e9 + row) for row in range(number)
        )
        tracemalloc.start()
        assert sum(1 for _ in s3_listing.in_order(items)) == number
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(20_000) - peak(2_000) < 18_000 * 100


@pytest.mark.parametrize("place", ["s3_url", "s3fs_url"])
def test_a_store_that_lists_by_folders_is_listed_by_name(place, request, monkeypatch):
    s3_url, asked, of_s3 = request.getfixturevalue(place), [], s3_listing.of_s3

    def in_small_pages(ask, bucket, prefix):
        return of_s3(lambda **given: asked.append(given) or ask(**given, MaxKeys=2), bucket, prefix)

    monkeypatch.setattr(s3_listing, "of_s3", in_small_pages)
    names = ["a/2.jpg", "a-b/1.jpg", "a.b/3.jpg", "a/1.jpg", "a.jpg", "z.jpg", "é.jpg"]
    storage.publish(s3_url, {name: name.encode() for name in names})
    found = list(storage.list_files(s3_url))
    assert [entry.name for entry in found] == sorted(names)
    assert place == "s3_url" or len(asked) >= 4
    assert all(entry == storage.stat(entry.url) for entry in found if "/" not in entry.name)


def test_a_folder_of_a_longer_name_is_not_listed_with_it(s3_url):
    storage.publish(s3_url, {"a/1.jpg": b"1", "ab/2.jpg": b"2"})
    assert [entry.name for entry in storage.list_files(f"{s3_url}/a")] == ["1.jpg"]
    with pytest.raises(NotFoundError):
        list(storage.list_files(f"{s3_url}/nothing"))
