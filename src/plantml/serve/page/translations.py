"""The languages of the page: gettext catalogues, and which one a request gets."""

import functools
import gettext
from pathlib import Path

LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español", "fr": "Français", "nl": "Nederlands"}
"""Languages by code, each by its own name. The texts in templates and code are the English ones."""

COOKIE = "plantml_language"
DOMAIN = "plantml"
FOLDER = Path(__file__).parent / "locale"


@functools.cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The translations into a language of `LANGUAGES`."""
    return gettext.translation(DOMAIN, FOLDER, [language], fallback=language == "en")


def choose(cookie: str | None, accepted: str | None) -> str:
    """The language of a request: that of the cookie, or the best of its header `Accept-Language`, or English."""
    if cookie in LANGUAGES:
        return str(cookie)
    ranked = sorted(map(_preference, (accepted or "").split(",")), key=lambda pair: -pair[1])
    return next((language for language, weight in ranked if language in LANGUAGES and weight > 0), "en")


def _preference(item: str) -> tuple[str, float]:
    """Language and weight of `de-AT;q=0.8`."""
    tag, _, parameter = item.partition(";")
    language = tag.strip().lower().partition("-")[0]
    try:
        return language, float(parameter.partition("=")[2] or 1)
    except ValueError:
        return language, 0.0


def mark(text: str) -> str:
    """Mark a text for the catalogues; it is translated where it is shown."""
    return text
