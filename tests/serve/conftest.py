"""A server on an empty database, with a registry of small models, and clients that are signed in."""

import contextlib
import shutil
import socket
import threading
import time
import uuid
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from safetensors.numpy import save
from tests.colour_models import graph
from tests.contracts import make_contract
from tests.serve.postgres import running

from plantml import settings, storage
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.model import bundle
from plantml.registry import operations, publishing
from plantml.serve.app import create_app
from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.service import open_service
from plantml.serve.users import passwords
from plantml.serve.web.connection import Connection
from plantml.targets import Target

TARGETS = (
    Target("category", "class", ("bean", "tomato")),
    Target("health", "class", ("healthy", "diseased")),
    Target("disease", "class", ("none", "rust", "blight")),
)
PASSWORD = "a password for tests"


def write_bundle(url, seed=0, targets=TARGETS, *, card=b"# A card\n", **changes):
    """Write the bundle of a small model that really runs; another seed, another digest."""
    thresholds = {target.name: 0.5 for target in targets}
    contract = make_contract(*targets, embedding=3, thresholds=thresholds, unknown_threshold=1.0, seed=seed, **changes)
    rng = np.random.default_rng(seed)
    weights = {target.name: rng.normal(0, 3, (3, len(target.classes))).astype(np.float32) for target in targets}
    digest = bundle.digest(contract, {name: value.tobytes() for name, value in weights.items()})
    files = {
        bundle.ONNX: graph(contract, digest, weights),
        bundle.WEIGHTS: save(weights),
        bundle.CARD: card,
    }
    files[bundle.MODEL_JSON] = bundle.model_json(contract, digest, files)
    storage.publish(url, files, last=bundle.MODEL_JSON)
    return url


@pytest.fixture(scope="session", autouse=True)
def _cheap_hashes():
    """Passwords of tests are hashed in a millisecond."""
    with pytest.MonkeyPatch.context() as patch:
        cheap = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
        patch.setattr(passwords, "_hasher", cheap)
        yield


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """URL of a registry with `leaf` 1 and 2, of which 1 is in production. Not to be changed."""
    folder = tmp_path_factory.mktemp("registry")
    return make_registry(folder)


def make_registry(folder):
    """A registry with `leaf` 1 (production) and 2."""
    url = str(folder / "models")
    for seed in (1, 2):
        publishing.add(write_bundle(str(folder / f"bundle-{seed}"), seed), f"{url}/leaf")
    operations.promote(f"{url}/leaf", 1, operations.GUARDED, why="the first", force=True)
    return url


@contextmanager
def serving(registry, folder, **changes):
    """A client of a fresh server, not signed in, with its `service`."""
    config = ServeConfig(**{"state": str(folder / "state"), "threads": 2, **changes})
    service = open_service(registry, config, settings.machine())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        client.service = service
        yield client


@contextmanager
def listening(app, lifespan="off"):
    """The URL of an application on a socket of this machine, with all that uvicorn adds and refuses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, http=Connection, log_config=None, access_log=False, lifespan=lifespan)
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def start(registry, tmp_path):
    """`with start(**settings) as client`: a client of a fresh server, not signed in, with its `service`."""

    def begin(registry=registry, **changes):
        return serving(registry, tmp_path, **changes)

    return begin


@pytest.fixture
def client(start):
    """A client of a fresh server, not signed in."""
    with start() as there:
        yield there


def sign_in(client, name, *roles):
    """Headers of a new user with these roles."""
    client.service.accounts.add(name, PASSWORD, roles)
    tokens = client.post("/v1/token", data={"username": name, "password": PASSWORD}).json()
    return {"Authorization": f"Bearer {tokens['access_token']}"}


LEAVES = {"bean_healthy/a.jpg": 1, "bean_rust/b.jpg": 2, "tomato_blight/c.png": 3, "tomato_healthy/d.jpg": 4}
"""Photos of the dataset `leaves`, and the seeds of their pixels."""


def make_leaves(url, folder, photo):
    """A dataset of four photos with category, health and disease, and two more without labels; returns its URL."""
    for name, seed in LEAVES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(80, 60, seed=seed, format="PNG" if name.endswith("png") else "JPEG"))
    import_source(str(folder), url, list_source(str(folder)))
    unlabelled = folder.parent / "unlabelled"
    for seed in (5, 6):
        unlabelled.mkdir(exist_ok=True)
        (unlabelled / f"u{seed}.jpg").write_bytes(photo(80, 60, seed=seed))
    import_source(str(unlabelled), url, list_source(str(unlabelled), rule="none"))
    return url


@pytest.fixture(scope="session")
def _leaves(tmp_path_factory, photo):
    home = tmp_path_factory.mktemp("leaves")
    return make_leaves(str(home / "leaves"), home / "source", photo)


@pytest.fixture
def leaves(tmp_path, _leaves):
    """URL of a fresh dataset `leaves`; see `make_leaves`."""
    return str(shutil.copytree(_leaves, tmp_path / "leaves"))


@pytest.fixture
def site(start, leaves):
    """A client of a fresh server of the dataset `leaves`."""
    with start(dataset=(leaves,)) as there:
        yield there


@pytest.fixture
def database(tmp_path):
    """A fresh database; its `folder` has all of its files."""
    folder = tmp_path / "database"
    with contextlib.closing(Database(f"sqlite:///{folder}/serve.db")) as opened:
        opened.folder = folder
        yield opened


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server; a test that stops it starts it again."""
    with running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """URL of an empty PostgreSQL database."""
    return postgres.create(f"test_{uuid.uuid4().hex}")
