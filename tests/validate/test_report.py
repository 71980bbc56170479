import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

PHOTOS = [("rust", "rust", {}), ("none", "none", {}), ("rust", "none", {}), ("blight", "blight", {})] * 4


class Page(HTMLParser):
    """Sections, pictures, and what would be loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.pictures, self.links, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        result = dict(attrs)
        if tag == "section":
            self.sections.append(result["id"])
        if tag == "img":
            self.pictures.append(result["src"])
        self.links += [result[key] for key in ("src", "href") if key in result]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(paint, painted, judged, tmp_path):
    def make(photos=PHOTOS, **config):
        other = painted(digest="other") if config.get("against") else None
        if other:
            answer = other.runtime.run
            other.runtime.run = lambda batch: answer(batch[..., [1, 0, 2]])
        judged(paint(photos), painted(), other, report=str(tmp_path / "report.html"), **config)
        return (tmp_path / "report.html").read_text()

    return make


def test_the_page_is_complete_in_itself(page):
    result = Page(page(PHOTOS * 2, robustness=True, against="runs/old", max_drop=0.1, min=("macro_f1=0.2",)))
    assert result.open == []
    assert result.sections == [
        "scores", "gates", "against", "target-health", "target-disease", "slices", "robustness",
        "worst", "next", "about",
    ]  # fmt: skip
    assert all(link.startswith(("#", "data:image/")) for link in result.links)
    for source in result.pictures:
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).verify()


def test_wrong_photos_have_their_pair_of_pictures(page):
    text = page()
    assert len(re.findall(r'<figure class="pair">', text)) == 4
    assert "label rust, predicted none" in text
    assert 'alt="occlusion map"' in text


def test_names_cannot_break_the_page(paint, painted, judged, tmp_path):
    bad = {"site": "<script>alert(1)</script>"}
    data = paint([("rust", "rust", bad), ("none", "none", {"site": "b"}), ("rust", "rust", {"site": "b"})])
    judged(data, painted(), report=str(tmp_path / "report.html"), where='site != "x"')
    text = (tmp_path / "report.html").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_all_right_and_one_photo_make_a_page_too(page):
    assert 'id="worst"' not in page([("rust", "rust", {})])
