from dataclasses import replace

import pytest

from plantml.data import importing, versions
from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.retrain import triggers
from plantml.retrain.config import Feed
from plantml.storage.addresses import NOT_ALLOWED


@pytest.mark.parametrize(("roots", "refused"), [([], 1), (["elsewhere"], 0)])
def test_a_feed_names_photos_elsewhere_only_under_its_roots(tmp_path, monkeypatch, write_photos, roots, refused):
    monkeypatch.chdir(tmp_path)
    write_photos("elsewhere", ["a.jpg"])
    write_photos("feed", ["b.jpg"], first_seed=5)
    (tmp_path / "feed" / "list.csv").write_text(f"image,disease\n{tmp_path}/elsewhere/a.jpg,rust\nb.jpg,rust\n")
    feed = Feed.model_validate({"source": "feed/list.csv", "allow_root": roots})
    listing = triggers.list_admissible(feed, None)
    assert sum(bool(item.refusal) for item in listing.items) == refused
    importing.import_source(feed.source, "dataset", listing)
    reasons = versions.load("dataset").rows["reason"].drop_nulls()
    assert reasons.str.starts_with(NOT_ALLOWED).sum() == refused


def test_moved_boxes_are_news_and_the_same_ones_are_not(make_rows):
    box, moved = (Box(x, 0, 4, 4, {"health": "healthy"}).as_row() for x in (0, 1))
    before, same, after = (Version("d", 1, make_rows([{"boxes": each} for each in rows]), ()) for rows in (
        ([box], [], None), ([box], [], None), ([moved], None, None)
    ))  # fmt: skip
    assert triggers._changes(before, replace(same, number=2)) == 0
    assert triggers._changes(before, replace(after, number=2)) == 2


def test_offline_a_feed_names_nothing_remote(tmp_path):
    (tmp_path / "list.csv").write_text("image,disease\nhttps://host/a.jpg,rust\n")
    for roots, refused in (((), True), (("https://",), True), (("https://host",), False)):
        feed = Feed.model_validate({"source": str(tmp_path / "list.csv"), "allow_root": roots})
        (item,) = triggers.list_admissible(feed, None, offline=True).items
        assert bool(item.refusal) is refused
