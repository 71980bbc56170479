"""Keep the catalogues of the server's page.

python docs/translate.py          write new texts into the .po files, and compile them
python docs/translate.py --check  fail if a text has no translation, or a compiled file is out of date
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from plantml.serve.page import translations

PAGE = translations.FOLDER.parent
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext.babel_extract")]
OPTIONS = {"templates/**.html": {"trimmed": "true", "newstyle_gettext": "true", "silent": "false"}}
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "mark": None}


class Catalogue(Catalog):
    """A catalogue whose header has no dates or names, so that the same texts give the same bytes."""

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        """The lines of the header."""
        return [
            ("Language", str(self.locale)),
            ("Plural-Forms", self.plural_forms),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Transfer-Encoding", "8bit"),
        ]


def template() -> Catalog:
    """All texts of the page."""
    catalog = Catalog(project="plantml", charset="utf-8")
    for file, _, message, comments, context in extract_from_dir(PAGE, METHODS, OPTIONS, KEYWORDS):
        catalog.add(message, None, [(file, 1)], auto_comments=comments, context=context)
    return catalog


def path(language: str) -> Path:
    """The catalogue of a language."""
    return translations.FOLDER / language / "LC_MESSAGES" / f"{translations.DOMAIN}.po"


def updated(language: str, texts: Catalog) -> Catalog:
    """The catalogue of a language with exactly these texts, and the translations that there are."""
    file, catalog = path(language), Catalogue(locale=language, fuzzy=False)
    known = read_po(io.BytesIO(file.read_bytes()), locale=language) if file.exists() else catalog
    for message in texts:
        if message.id:
            translated = known[message.id]
            catalog.add(message.id, translated and translated.string, flags=message.flags)
    catalog.header_comment = f"# The page of plantml in {catalog.locale.english_name}."
    return catalog


def save(language: str, catalog: Catalog) -> None:
    """Write a catalogue, and compile it."""
    file, text = path(language), io.BytesIO()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_po(text, catalog, width=120, no_location=True, sort_output=True)
    file.write_bytes(text.getvalue())
    file.with_suffix(".mo").write_bytes(compiled(catalog))


def compiled(catalog: Catalog) -> bytes:
    """A catalogue as gettext reads it."""
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def problems(language: str, texts: Catalog) -> Iterator[str]:
    """What is missing or out of date."""
    catalog = updated(language, texts)
    for message in catalog:
        if message.id and not all(message.string if isinstance(message.string, tuple) else [message.string]):
            yield f"{language}: {message.id!r} has no translation"
        elif message.id:
            yield from (f"{language}: {message.id!r}: {error}" for error in message.check(catalog))
    file = path(language).with_suffix(".mo")
    if not file.exists() or file.read_bytes() != compiled(catalog):
        yield f"{language}: {file.name} is out of date: run docs/translate.py"


def main() -> int:
    """Write the catalogues, or check them."""
    texts = template()
    languages = [language for language in translations.LANGUAGES if language != "en"]
    if "--check" in sys.argv:
        lines = [line for language in languages for line in problems(language, texts)]
        print("\n".join(lines))
        return bool(lines)
    for language in languages:
        save(language, updated(language, texts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
