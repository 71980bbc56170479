import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.concurrency import Stop, batched, silent
from plantml.detect import journal as journals
from plantml.detect import photo_list as listings
from plantml.detect.detect import Detection
from plantml.detect.formats import tables
from plantml.detect.photo_list import PhotoList, Positions, Source
from plantml.detect.results import Extras
from plantml.model.pipeline import Prediction
from plantml.model.records import Record

keys = st.binary(min_size=16, max_size=16)


@settings(deadline=None)
@given(st.lists(st.tuples(keys, st.integers(-1, 1 << 40)), max_size=60), st.integers(1, 9), keys)
def test_places_are_what_a_dict_would_say(pairs, at_once, other):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listings, "_PENDING", at_once)
        places, plain = Positions(), {}
        for key, number in pairs:
            places[key] = plain[key] = number
        for key in [*plain, other, bytes(16)]:
            assert places[key] == plain.get(key, -1)
            assert (key in places) == (plain.get(key, -1) >= 0)


@settings(deadline=None)
@given(st.lists(st.sampled_from([f"{number}/caf\udce9 {number}.jpg" for number in range(40)]), max_size=80))
def test_a_listing_keeps_order_and_the_first_of_each(urls):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listings, "_BLOCK", 4)
        listing = PhotoList()
        added = [listing.add(Source(url, f"{place}")) for place, url in enumerate(urls)]
        first = list(dict.fromkeys(urls))
        assert [source.url for source in listing] == first
        assert [listing[place].url for place in range(len(listing))] == first
        assert [source.stamp for source in listing] == [str(urls.index(url)) for url in first]
        assert sum(added) == len(listing) == len(first)
        assert listing[1:3] == list(listing)[1:3]


def test_the_digest_is_of_urls_and_their_order():
    def digest(*urls):
        listing = PhotoList()
        for url in urls:
            listing.add(Source(url, "any"))
        return listing.digest()

    assert digest("a", "b") == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("ab"), digest()}) == 4


class Made:
    """A pipeline that answers without looking."""

    threads, batch = 1, 100

    def __init__(self, pipeline):
        self.bundle = pipeline.bundle

    def run_chunks(self, photos):
        targets = {
            "category": {"label": "bean", "score": 0.9, "top": [["bean", 0.9]]},
            "symptoms": {"labels": []},
            "severity": {"value": 0.5, "unit": ""},
        }
        for some in batched(photos, self.batch):
            yield [
                Prediction(Record(url, "0" * 64, 8, 8, "f" * 64, targets, (), "accept", 0.0, None), None, None)
                for url, _ in some
            ]


@pytest.mark.parametrize("name", ["records.jsonl", "records.csv", "records.parquet"])
def test_memory_hardly_grows_with_the_number_of_images(configured, tmp_path, monkeypatch, name):
    monkeypatch.setattr(journals, "SEGMENT_ROWS", 250)
    monkeypatch.setattr(journals, "_SEGMENTS_CACHED", 2)
    monkeypatch.setattr(listings, "_PENDING", 512)
    monkeypatch.setattr(tables, "_ROWS", 250)

    def peak(count):
        out = tmp_path / f"{count}" / name
        config, pipeline = configured(out=str(out))
        tracemalloc.start()
        try:
            listing = PhotoList()
            for number in range(count):
                listing.add(Source(f"s3://season/field {number % 7}/IMG_{number:08d}.jpg", f"{number * 7919:032x}"))
            work = Detection(Made(pipeline), config, Extras())
            journal = work.open_journal(fresh=False)
            with Stop() as stop:
                work.fill(journal, listing, stop, silent)
            work.publish(journal, listing)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if name.endswith(".jsonl"):
            with out.open() as file:
                assert sum(1 for line in file if json.loads(line)["failure"] is None) == count
        return peak_bytes

    peak(500)  # what is loaded once
    few, many = peak(3000), peak(9000)
    # 24 bytes a place twice over, twice while it grows, and the packed names: 1 MiB for 10,000 images.
    assert many - few < 6000 * 150, (few, many)
