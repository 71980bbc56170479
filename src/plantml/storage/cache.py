"""A cache on this machine of files in a far storage, verified by their SHA-256."""

import contextlib
import hashlib
import os
from pathlib import Path

from plantml.errors import DamagedError
from plantml.storage.listing import list_files
from plantml.storage.reading import MAX_FILE, read
from plantml.storage.writing import write


class Cache:
    """Bytes kept on this machine under the SHA-256 of their content, at most `limit` bytes in all.

    The least recently used go first. Several processes may share one folder.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._size: int | None = None

    def read(self, sha256: str, url: str, limit: int = MAX_FILE) -> bytes:
        """The bytes of `url`, whose content is known by its hash, from here or from there.

        Raises:
            StorageError: the storage's bytes are not those that the hash promised.
        """
        file = self.folder / sha256[:2] / sha256
        with contextlib.suppress(FileNotFoundError):
            data = file.read_bytes()
            os.utime(file)
            return data
        data = read(url, limit)
        check_sha256(data, sha256, url)
        write(str(file), data)
        self._grow(len(data))
        return data

    def _grow(self, size: int) -> None:
        if self._size is None:
            self._size = sum(entry.size for entry in list_files(str(self.folder)))
        else:
            self._size += size
        if self._size > self.limit:
            self._shrink()

    def _shrink(self) -> None:
        files = []
        for file in self.folder.glob("??/[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                files.append((file.stat().st_mtime, file.stat().st_size, file))
        size = sum(entry[1] for entry in files)
        for _, length, file in sorted(files):
            if size <= self.limit * 0.9:
                break
            file.unlink(missing_ok=True)
            size -= length
        self._size = size


def check_sha256(data: bytes, sha256: str, url: str) -> None:
    """Raise `DamagedError` if the bytes read from `url` are not those that the hash names."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise damaged(url, sha256)


def damaged(url: str, sha256: str) -> DamagedError:
    """The error for bytes that are not those that their hash names."""
    return DamagedError(
        f"{url} is damaged",
        f"its bytes do not have the SHA-256 {sha256[:12]}… that was written down for them",
        "Restore the file from a backup.",
    )
