"""`--shard 2/8`: split a detection over independent machines, and merge their outputs.

An image's shard follows from its URL alone. Each record names its position in the full list, so that the outputs can
be merged in order and missing records can be reported without anything else.
"""

import hashlib
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from plantml import storage
from plantml.detect import writers
from plantml.detect.config import TableRows
from plantml.detect.output_row import OutputRow
from plantml.detect.photo_list import PhotoList
from plantml.errors import InputError, UsageError
from plantml.model.contract import Contract

KEY = "shard"
"""Key in the records of a shard; merging removes it."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `number` of `count`, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse `2/8`. Raises `UsageError`."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard {text!r} is not a shard", "", "Write NUMBER/COUNT, from 1/8 to 8/8.")
        return cls(int(match[1]), int(match[2]))

    def has(self, url: str) -> bool:
        """True if the image belongs to this shard."""
        name = hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(name, "big") % self.count == self.number - 1


class Part:
    """The images of one shard, and their positions in the full list.

    Args:
        whole: all images.
        shard: which shard of them.
    """

    def __init__(self, whole: PhotoList, shard: Shard) -> None:
        self._shard, self._whole = shard, whole
        self.photos = PhotoList()
        for source in whole:
            if shard.has(source.url):
                self.photos.add(source)
        self._about = {
            "part": shard.number,
            "of": shard.count,
            "images": len(whole),
            "of_part": len(self.photos),
            "listing": whole.digest(),
        }

    def locate(self, rows: Iterable[OutputRow]) -> Iterator[OutputRow]:
        """Add the position in the full list to rows, which must be in its order and may be fewer."""
        remaining = iter(rows)
        row = next(remaining, None)
        for place, source in enumerate(self._whole):
            if row is None:
                return
            if self._shard.has(source.url) and row.record["image"] == source.url:
                yield row.with_record({**row.record, KEY: {**self._about, "place": place}})
                row = next(remaining, None)


@dataclass(frozen=True)
class MergeResult:
    """Result of merging.

    Attributes:
        out: URL of the output.
        images: records written.
        expected: images in all shards.
        missing: number of missing records by shard (`2/8`); shards without any record are named together.
        failures: records with a failure.
    """

    out: str
    images: int
    expected: int
    missing: Mapping[str, int]
    failures: int


def merge(
    parts: Sequence[str],
    out: str,
    contract: Contract | None = None,
    form: str | None = None,
    table: TableRows = "photos",
) -> MergeResult:
    """Merge the outputs of a sharded detection, in the order of its sources.

    For local files, memory does not grow with the number of records. A file that does not exist counts as missing.

    Args:
        parts: URLs of the shards' JSON Lines, in any order.
        out: URL of the output.
        contract: of the model, for formats other than JSON Lines.
        form: see `writers.write`.
        table: likewise.

    Raises:
        InputError: a file is not the output of a shard, or the shards do not belong together.
        UsageError: the format needs a contract.
    """
    writer = writers.writer_of(out, form, table)
    if contract is None and writer is not writers.FORMATS["jsonl"]:
        raise UsageError("This format needs the model", f"{out} is not JSON Lines", "Name it: --model RUN")
    tally = _Merging()
    with ExitStack() as stack, storage.staged(out) as path:
        files = [_records(part, stack) for part in parts if storage.exists(part)]
        rows = tally.rows(heapq.merge(*files, key=lambda entry: entry[0]))
        if contract is None:
            with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.writelines(f"{row.as_line()}\n" for row in rows)
        else:
            writer(path, rows, contract)
        return tally.result(out)


def _records(part: str, stack: ExitStack) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Position, record and file of each line of a shard's output."""
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
                f"{part} is not the output of a shard",
                f"line {number}: {type(error).__name__}",
                "Name files that `plantml detect --shard I/N` wrote; copy a truncated one again.",
            ) from error
        if place <= last:
            raise InputError(f"{part} is out of order", f"line {number}", "Write it again with the same command.")
        last = place
        yield place, record, part


class _Merging:
    def __init__(self) -> None:
        self._first: tuple[Mapping[str, Any], str, str] | None = None
        self._images = self._failures = 0
        self._numbers: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._last = -1

    def rows(self, entries: Iterable[tuple[int, dict[str, Any], str]]) -> Iterator[OutputRow]:
        for place, record, part in entries:
            about = record.pop(KEY)
            self._agree(about, record["model"], part)
            if place == self._last:
                raise InputError(
                    f"{part} was named twice, or holds records of another shard",
                    f"place {place}",
                    "Name each part once.",
                )
            self._last = place
            self._images += 1
            self._failures += record["failure"] is not None
            self._numbers[about["part"]] = self._numbers.get(about["part"], 0) + 1
            self._sizes[about["part"]] = about["of_part"]
            yield OutputRow(record)

    def _agree(self, about: Mapping[str, Any], model: str, part: str) -> None:
        if self._first is None:
            self._first = about, model, part
            return
        first, first_model, first_part = self._first
        if model != first_model:
            raise InputError(
                f"{part} and {first_part} are of different models",
                f"{model[:12]}, {first_model[:12]}",
                "Run the shards again with one model.",
            )
        for key in ("of", "images", "listing"):
            if about[key] != first[key]:
                raise InputError(
                    f"{part} and {first_part} are shards of different detections",
                    f"{key} is {about[key]!r} and {first[key]!r}: the machines had different sources",
                    "Repeat the command of each shard: only new images are processed.",
                )

    def result(self, out: str) -> MergeResult:
        if self._first is None:
            raise InputError("The files hold no records", "", "Name files that `plantml detect --shard I/N` wrote.")
        about = self._first[0]
        missing = {f"{number}/{about['of']}": self._sizes[number] - had for number, had in self._numbers.items()}
        missing = {part: number for part, number in sorted(missing.items()) if number}
        if left := about["images"] - self._images - sum(missing.values()):
            absent = [number for number in range(1, about["of"] + 1) if number not in self._numbers]
            missing[", ".join(f"{number}/{about['of']}" for number in absent)] = left
        return MergeResult(out, self._images, about["images"], missing, self._failures)
