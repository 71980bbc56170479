"""The sides of buckets, and a server that lists as many objects as it is asked to."""

import os
import sys
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from bench.side import Rounds
from plantml import storage
from plantml.concurrency import in_threads

_OBJECTS, _BYTES = 100, 20_000
_WORKERS, _SECONDS = 2, 0.01
_PAGE = 1000


def writing(rounds: Rounds, *, folder: str, create: bool, environment: Mapping[str, str]) -> None:
    """Write small objects under new names, by some threads."""
    os.environ.update(environment)
    data = os.urandom(_BYTES)
    write = storage.create if create else storage.write

    def work() -> int:
        place = storage.join(folder, uuid.uuid4().hex)
        urls = (storage.join(place, f"{number}.bin") for number in range(_OBJECTS))
        return sum(1 for _ in in_threads(lambda url: write(url, data), urls, 8))

    rounds.run(work)


def listing(rounds: Rounds, *, folder: str, environment: Mapping[str, str], warm: bool = True) -> None:
    """List a folder and keep nothing."""
    os.environ.update(environment)
    rounds.run(lambda: sum(1 for _ in storage.list_files(folder)), warm=warm)


def waiting(rounds: Rounds, *, folder: str, environment: Mapping[str, str] | None = None) -> None:
    """Photos to workers that rest as long as two idle cores would compute."""
    os.environ.update(environment or {})

    def work() -> int:
        photos = storage.read_ahead(entry.url for entry in storage.list_files(folder) if entry.size)
        return sum(1 for _ in in_threads(lambda _: time.sleep(_SECONDS), photos, _WORKERS))

    rounds.run(work)


class _Bucket(BaseHTTPRequestHandler):
    """ListObjectsV2 of a bucket of `keys` photos, in the order of their names."""

    protocol_version = "HTTP/1.1"
    keys = 0

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        start = int(asked.get("continuation-token", 0))
        end = min(start + _PAGE, self.keys)
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.keys else ""
        found = "".join(
            f"<Contents><Key>season/IMG_{number:09d}.jpg</Key><LastModified>2026-05-01T12:30:15.000Z</LastModified>"
            f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{20_000 + number % 997}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(start, end)
        )
        body = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>keys</Name><Prefix>season/</Prefix><KeyCount>{end - start}</KeyCount><MaxKeys>{_PAGE}</MaxKeys>"
            f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{found}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    _Bucket.keys = int(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Bucket).serve_forever()
