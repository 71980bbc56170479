"""Parts of a file, read where they lie: of a file on this machine, or of bytes in memory."""

import io
import os
from typing import IO, Protocol


class Ranges(Protocol):
    """Bytes that can be read anywhere, from several threads at once."""

    size: int

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer only at the end."""
        ...


class Local:
    """Ranges of an open file on this machine; closed when nobody holds it any more."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer only at the end."""
        parts: list[bytes] = []
        while length > 0 and (part := os.pread(self._file.fileno(), length, start)):
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Held:
    """Ranges of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer only at the end."""
        return self._data[start : start + length]
