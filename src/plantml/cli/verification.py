"""How `dataset verify` and `models verify` tell what they found."""

from plantml.cli.console import Console, Page, count
from plantml.errors import GateError
from plantml.storage.checksums import Verified

_SHOWN = 20


def tell(console: Console, command: str, found: Verified, *, kind: str, came: str, hint: str) -> None:
    """Show the result; raise `GateError` if a file is missing or damaged.

    Args:
        console: of the command.
        command: its name.
        found: what it found.
        kind: key of the reference in the JSON result.
        came: how the files came: `imported`, `added`.
        hint: what to do about a file that is not sound.
    """
    wrong = len(found.missing) + len(found.damaged)
    content = {kind: found.ref, "files": found.files, "missing": list(found.missing), "damaged": list(found.damaged),
               "not_checksummed": list(found.unchecked), "sound": found.sound}  # fmt: skip

    def show(page: Page) -> None:
        unchecked = f", {len(found.unchecked)} not checksummed" if found.unchecked else ""
        page.line(
            f"{found.ref}: {count(found.files, 'file')}, {len(found.missing)} missing, {len(found.damaged)} damaged"
            + unchecked
        )
        shown = ("missing", found.missing), ("damaged", found.damaged), ("not checksummed", found.unchecked)
        for what, names in shown:
            for name in names[:_SHOWN]:
                page.line(f"  {what}: {name}")
            if len(names) > _SHOWN:
                page.line(f"  {what}: {len(names) - _SHOWN} more; --json has them all")

    console.result(command, content, show)
    if not found.sound:
        what = f"{count(wrong, 'file')} of {found.ref} {'is' if wrong == 1 else 'are'} not what was {came}"
        raise GateError(what, "", hint)
