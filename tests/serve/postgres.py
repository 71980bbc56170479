"""A PostgreSQL server on a temporary directory, as Debian packages it."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest


def find_programs():
    """The folder of `initdb`, `pg_ctl` and `postgres`; skips the test where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    for folder in [*folders, *([Path(on_path).resolve().parent] if on_path else [])]:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    return pytest.skip("PostgreSQL is not installed: apt-get install postgresql")


class Postgres:
    """A server that can be stopped and started again.

    Args:
        folder: empty, for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._programs, self._data = find_programs(), folder
        self._user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            if shutil.which("setpriv") is None:
                pytest.skip("PostgreSQL does not run as root, and there is no setpriv")
            self._user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(self._data, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "--auth=trust", "--username=plantml", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -k '' -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "-w", "-l", str(self._data / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once; connections break."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def create(self, name: str) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        import psycopg

        with psycopg.connect(f"{self._url('postgres')}", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self._url(name).replace("postgresql:", "postgresql+psycopg:")

    def _url(self, name: str) -> str:
        return f"postgresql://plantml@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        line = [*self._user, str(self._programs / program), "-D", str(self._data), *arguments]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd="/")


@contextlib.contextmanager
def running():
    """A server for a block."""
    # Not in a folder of pytest's, which only root may enter if root runs the tests.
    with tempfile.TemporaryDirectory(prefix="plantml-postgres-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # a test may have stopped it
                server.stop()
