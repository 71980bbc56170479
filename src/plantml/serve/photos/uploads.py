"""Photos that callers send: bounds, what they really are, and whether they can be decoded."""

import asyncio
import contextlib
import io
import threading
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

from fastapi import UploadFile

from plantml import imaging
from plantml.data.scan import Scan, scan
from plantml.imaging import Facts, ImageError
from plantml.serve.web.problems import RequestError

MAX_BYTES = 64 * 2**20
"""Most bytes of one photo."""

_LARGE = 40_000_000
"""Photos of more pixels are decoded one at a time: some formats need all of their pixels in memory at once."""

_one_large = threading.Lock()
_MANY_PICTURES = {"GIF", "PNG", "WEBP", "AVIF"}
"""Formats whose further pictures make an animation. Those of MPO, HEIF and TIFF are of the same moment."""

_LONGEST_NAME = 100


@dataclass(frozen=True)
class Upload:
    """A photo that can be decoded.

    Attributes:
        name: of the file, for people: never a path.
        file: the bytes; those of a large file of a request are on the disk.
        scan: what they are.
    """

    name: str
    file: BinaryIO
    scan: Scan

    @property
    def data(self) -> bytes:
        """The bytes."""
        self.file.seek(0)
        return self.file.read()

    @property
    def facts(self) -> Facts:
        """What its header says; every photo that can be decoded has one."""
        assert self.scan.facts is not None
        return self.scan.facts


@dataclass(frozen=True)
class Refused:
    """A file that is no photo that can be used.

    Attributes:
        name: of the file, for people.
        code: one of the codes of `ImageError`, `animated`, or `too-many-bytes`.
        why: a sentence.
    """

    name: str
    code: str
    why: str


class UploadChecks:
    """Checks files in a pool of a few threads, however many requests there are.

    Args:
        threads: files that are decoded at the same time.
        max_photos: most files of one request.
    """

    def __init__(self, threads: int, max_photos: int) -> None:
        self._max_photos = max_photos
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="upload")

    async def check(self, files: Sequence[UploadFile]) -> list[Upload | Refused]:
        """What each file of a request is.

        Raises:
            RequestError: 413, there are too many.
        """
        if len(files) > self._max_photos:
            raise RequestError(
                413, "Too many photos", f"one request takes {self._max_photos}", "Send several requests."
            )
        loop = asyncio.get_running_loop()
        checks = []
        for file in files:
            name = display_name(file.filename or "")
            checks.append(loop.run_in_executor(self._pool, self._check_file, name, file.file))
        return list(await asyncio.gather(*checks))

    def check_one(self, name: str, data: bytes) -> Upload | Refused:
        """What one file is: by its bytes alone, whatever its name and its type claim. Blocks."""
        return self._check_file(name, io.BytesIO(data))

    def _check_file(self, name: str, file: BinaryIO) -> Upload | Refused:
        file.seek(0)
        data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return Refused(name, "too-many-bytes", f"a photo has at most {MAX_BYTES // 2**20} MiB")
        try:
            facts = imaging.facts(data)
        except ImageError as error:
            return Refused(name, error.code, error.why)
        if facts.format in _MANY_PICTURES and facts.frames > 1:
            return Refused(name, "animated", f"it has {facts.frames} pictures")
        with turn(facts):
            scanned = scan(data)
        if scanned.reason:
            code, _, why = scanned.reason.partition(": ")
            return Refused(name, code, why)
        return Upload(name, file, scanned)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)


def turn(facts: Facts) -> contextlib.AbstractContextManager[object]:
    """What a thread of a request waits for before it decodes a photo."""
    return _one_large if facts.width * facts.height > _LARGE else contextlib.nullcontext()


def display_name(name: str) -> str:
    """A file's name as it may be shown and stored: no folders, no control characters, not too long."""
    last = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    plain = "".join(letter for letter in last if unicodedata.category(letter)[0] != "C").strip(" .")
    if len(plain) > _LONGEST_NAME:
        stem, dot, ending = plain.rpartition(".")
        ending = dot + ending if stem and len(ending) < 10 else ""
        plain = plain[: _LONGEST_NAME - len(ending)] + ending
    return plain or "photo"
