"""`--shard 2/8`: one of several machines' parts of the work, which know nothing of each other; and their merging.

Which part an image belongs to is decided by its URL alone. Each record of a part says where it stands in the whole, so
that the parts can be put together in order, and what is missing can be named, from the parts alone.
"""

import hashlib
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from plantml import storage
from plantml.detect import writers
from plantml.detect.journal import Row
from plantml.detect.photo_list import Listing
from plantml.errors import InputError, UsageError
from plantml.model.contract import Contract

KEY = "shard"
"""Key of a part's records; a merged record has it no more."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/8`. Raises `UsageError`."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard {text!r} is no part", "", "Write number/count, from 1/8 to 8/8.")
        return cls(int(match[1]), int(match[2]))

    def has(self, url: str) -> bool:
        """True if this image is its work."""
        name = hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(name, "big") % self.count == self.number - 1


class Part:
    """The images of one shard, and how its records say where they belong.

    Args:
        whole: all images.
        shard: which of them.
    """

    def __init__(self, whole: Listing, shard: Shard) -> None:
        self._shard, self._whole = shard, whole
        self.found = Listing()
        for source in whole:
            if shard.has(source.url):
                self.found.add(source)
        self._about = {
            "part": shard.number,
            "of": shard.count,
            "images": len(whole),
            "of_part": len(self.found),
            "listing": whole.digest(),
        }

    def placed(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows of this part, with their place in the whole. They must be in its order, and may be fewer."""
        found = iter(rows)
        row = next(found, None)
        for place, source in enumerate(self._whole):
            if row is None:
                return
            record = json.loads(row.record)
            if self._shard.has(source.url) and record["image"] == source.url:
                about = {**self._about, "place": place}
                yield replace(row, record=writers.line(record | {KEY: about}))
                row = next(found, None)


@dataclass(frozen=True)
class Merged:
    """What merging came to.

    Attributes:
        out: URL of the output.
        images: records written.
        expected: images of the whole.
        missing: by part (`2/8`; several that are not there at all together), how many records are not there.
        failures: records with a failure.
    """

    out: str
    images: int
    expected: int
    missing: Mapping[str, int]
    failures: int


def merge(parts: Sequence[str], out: str, contract: Contract | None = None, form: str | None = None) -> Merged:
    """Put the parts of a sharded detection together, in the order of its sources.

    Memory does not grow with the number of records where the parts are local files. A part that is
    not there is missing.

    Args:
        parts: URLs of the parts' JSON Lines, in any order.
        out: URL of the output.
        contract: of the model, for formats other than JSON Lines.
        form: see `writers.write`.

    Raises:
        InputError: a file is no part, or the parts do not belong together.
        UsageError: a format that needs a contract, without one.
    """
    writer = writers.writer_of(out, form)
    if contract is None and writer is not writers.FORMATS["jsonl"]:
        raise UsageError("This format needs the model", f"{out} is no JSON Lines", "Name it: --model RUN")
    tally = _Merging()
    with ExitStack() as stack, storage.staged(out) as path:
        files = [_records(part, stack) for part in parts if storage.exists(part)]
        lines = tally.lines(heapq.merge(*files, key=lambda found: found[0]))
        if contract is None:
            with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.writelines(f"{text}\n" for text in lines)
        else:
            writer(path, lines, contract)
        return tally.result(out)


def _records(part: str, stack: ExitStack) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Place, record and where it is from, of each line of a part."""
    if storage.is_local(part):
        lines: Iterable[bytes] = stack.enter_context(storage.open_local(part))
    else:
        lines = storage.read(part).splitlines(keepends=True)
    last = -1
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line.decode("utf-8", "surrogateescape"))
            place = int(record[KEY]["place"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{part} is no part of a sharded detection",
                f"line {number}: {type(error).__name__}",
                "A part is what `plantml detect --shard i/n --out PART.jsonl` writes; copy it again if it was cut off.",
            ) from error
        if place <= last:
            raise InputError(f"{part} is out of order", f"line {number}", "Make it again with the same command.")
        last = place
        yield place, record, part


class _Merging:
    def __init__(self) -> None:
        self._first: tuple[Mapping[str, Any], str, str] | None = None
        self._images = self._failures = 0
        self._numbers: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._last = -1

    def lines(self, found: Iterable[tuple[int, dict[str, Any], str]]) -> Iterator[str]:
        for place, record, part in found:
            about = record.pop(KEY)
            self._agree(about, record["model"], part)
            if place == self._last:
                raise InputError(f"{part} was named twice, or holds another part's records", f"place {place}")
            self._last = place
            self._images += 1
            self._failures += record["failure"] is not None
            self._numbers[about["part"]] = self._numbers.get(about["part"], 0) + 1
            self._sizes[about["part"]] = about["of_part"]
            yield writers.line(record)

    def _agree(self, about: Mapping[str, Any], model: str, part: str) -> None:
        if self._first is None:
            self._first = about, model, part
            return
        first, first_model, first_part = self._first
        if model != first_model:
            raise InputError(f"{part} was made by another model than {first_part}", f"{model[:12]}, {first_model[:12]}")
        for key in ("of", "images", "listing"):
            if about[key] != first[key]:
                raise InputError(
                    f"{part} is a part of another whole than {first_part}",
                    f"{key} is {about[key]!r} and {first[key]!r}: the machines did not see the same sources",
                    "Repeat the command of each part: only what is new is looked at.",
                )

    def result(self, out: str) -> Merged:
        if self._first is None:
            raise InputError("The parts hold no records", "", "Name what `plantml detect --shard i/n` wrote.")
        about = self._first[0]
        missing = {f"{number}/{about['of']}": self._sizes[number] - had for number, had in self._numbers.items()}
        missing = {part: number for part, number in sorted(missing.items()) if number}
        if left := about["images"] - self._images - sum(missing.values()):
            absent = [number for number in range(1, about["of"] + 1) if number not in self._numbers]
            missing[", ".join(f"{number}/{about['of']}" for number in absent)] = left
        return Merged(out, self._images, about["images"], missing, self._failures)
