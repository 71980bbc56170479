"""The languages of the page."""

import importlib.util
from pathlib import Path

import pytest

from plantml.serve.page import translations


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        (None, None, "en"),
        (None, "de-AT,de;q=0.9,en;q=0.5", "de"),
        (None, "pl, fr;q=0.3, nl;q=0.8", "nl"),
        (None, "es;q=0, en", "en"),
        (None, "de;q=wrong", "en"),
        (None, "*", "en"),
        ("fr", "de", "fr"),
        ("../../etc", "de", "de"),
    ],
)
def test_the_language_is_chosen_by_cookie_then_by_the_browser(cookie, accepted, language):
    assert translations.choose(cookie, accepted) == language


def test_every_text_is_translated_and_compiled():
    pytest.importorskip("babel")
    source = Path(__file__).parents[3] / "docs" / "translate.py"
    spec = importlib.util.spec_from_file_location("translate", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    texts = module.template()
    assert len(texts) > 100
    assert [
        line for language in translations.LANGUAGES if language != "en" for line in module.problems(language, texts)
    ] == []


def test_the_page_speaks_the_language_of_the_browser_or_the_chosen_one(client):
    german = client.get("/sign-in", headers={"Accept-Language": "de"}).text
    assert '<html lang="de">' in german
    assert "Anmelden" in german
    client.post("/language", data={"language": "nl", "next": "/sign-in"})
    assert "Aanmelden" in client.get("/sign-in", headers={"Accept-Language": "de"}).text
