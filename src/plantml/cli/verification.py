"""The result of `dataset verify` and `models verify`."""

from plantml.cli.console import Console, Page, count
from plantml.errors import GateError
from plantml.storage.checksums import Verified

_SHOWN = 20


def report(console: Console, result: Verified, *, kind: str, stored: str, hint: str) -> None:
    """Show the result; raise `GateError` if a file is missing or damaged.

    `kind` is the key of the reference in the JSON result, `stored` the operation that stored the files: `imported`,
    `added`.
    """
    wrong = len(result.missing) + len(result.damaged)
    content = {
        kind: result.ref,
        "files": result.files,
        "missing": list(result.missing),
        "damaged": list(result.damaged),
        "sound": result.sound,
    }

    def show(page: Page) -> None:
        page.line(
            f"{result.ref}: {count(result.files, 'file')}, {len(result.missing)} missing, {len(result.damaged)} damaged"
        )
        for what, names in (("missing", result.missing), ("damaged", result.damaged)):
            for name in names[:_SHOWN]:
                page.line(f"  {what}: {name}")
            if len(names) > _SHOWN:
                page.line(f"  {what}: {len(names) - _SHOWN} more; --json lists all")

    console.result(content, show)
    if not result.sound:
        since = f"has changed since it was {stored}" if wrong == 1 else f"have changed since they were {stored}"
        what = f"{count(wrong, 'file')} of {result.ref} {since}"
        raise GateError(what, "", hint)
