"""What all requests share: the settings, the database, the models. No globals: it hangs on the application."""

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from plantml import storage
from plantml.errors import NotFoundError, PlantmlError, StorageError, UsageError
from plantml.serve.config import ServeConfig
from plantml.serve.database import Database
from plantml.serve.models.inference import InferenceQueue
from plantml.serve.models.model_pool import ModelPool
from plantml.serve.photos.contributions import Contributions
from plantml.serve.photos.datasets import Datasets
from plantml.serve.photos.review import Reviews
from plantml.serve.photos.uploads import UploadChecks
from plantml.serve.predict.predictions import Predictor
from plantml.serve.retention import Pruning, prune
from plantml.serve.telemetry import Metrics
from plantml.serve.users.accounts import Accounts
from plantml.serve.users.credentials import Credentials
from plantml.serve.web.tracing import Tracing
from plantml.serve.work.jobs import Jobs
from plantml.settings import Machine


@dataclass(frozen=True)
class Service:
    """A server's parts.

    Attributes:
        registry: URL of the registry.
        config: settings.
        machine: threads, cache and network access.
        database: of users.
        accounts: users and their API keys.
        credentials: checks secrets: passwords, tokens, keys and cookies.
        models: open models.
        queue: in front of them.
        metrics: of requests and photos.
        tracing: of requests and photos.
        predictor: what `POST /v1/predict` does.
        datasets: that are shown, added to, and trained on.
        uploads: checks files that callers send.
        contributions: photos that wait for a reviewer.
        reviews: photos that a person should look at.
        jobs: trainings.
        pruning: removes what is kept for a time only.
        stopping: set when the server shuts down, so that answers without an end find one.
    """

    registry: str
    config: ServeConfig
    machine: Machine
    database: Database
    accounts: Accounts
    credentials: Credentials
    models: ModelPool
    queue: InferenceQueue
    metrics: Metrics
    tracing: Tracing
    predictor: Predictor
    datasets: Datasets
    uploads: UploadChecks
    contributions: Contributions
    reviews: Reviews
    jobs: Jobs
    pruning: Pruning
    stopping: threading.Event = field(default_factory=threading.Event)

    @functools.cached_property
    def places(self) -> Mapping[str, str]:
        """What clients are told in place of URLs and folders, the longest first."""
        datasets = {self.datasets.url(name): name for name in self.datasets.names}
        folders = {f"{url}/": "" for url in (self.registry, storage.absolute(self.config.state))}
        return dict(sorted({**datasets, **folders}.items(), key=lambda place: -len(place[0])))

    def check(self) -> str:
        """The default model, see `ModelPool.check`. Raises `StorageError` unless everything that is needed answers."""
        self.database.check()
        try:
            return self.models.check()
        except StorageError:
            raise
        except PlantmlError as error:
            raise StorageError("The default model cannot be opened", str(error), error.hint) from error

    def close(self) -> None:
        """Finish what waits, then release models and connections."""
        self.pruning.close()
        self.queue.close()
        self.predictor.close()
        self.uploads.close()
        self.reviews.close()
        self.models.close()
        self.database.close()
        self.tracing.close()


def open_service(registry: str, config: ServeConfig, machine: Machine, tracing: Tracing = Tracing()) -> Service:  # noqa: B008 - it holds nothing
    """Open the database and the registry.

    Raises:
        UsageError: the state is remote, and no database is named.
        StorageError: something cannot be reached.
    """
    database = Database(database_url(config))
    registry = storage.absolute(registry)
    models = ModelPool(registry, config, machine)
    threads = config.threads or machine.threads
    metrics = Metrics()
    queue = InferenceQueue(
        threads, config.batch, config.queue, metrics.note_wait, metrics.note_refusal,
        wait=config.seconds_for_batch, tracing=tracing,
    )  # fmt: skip
    metrics.watch(queue.__len__, models.opened)
    datasets = Datasets(config, machine)
    return Service(
        registry=registry,
        config=config,
        machine=machine,
        database=database,
        accounts=Accounts(database),
        credentials=Credentials(database),
        models=models,
        queue=queue,
        metrics=metrics,
        tracing=tracing,
        predictor=Predictor(
            config, machine, queue=queue, database=database, datasets=datasets, metrics=metrics, tracing=tracing
        ),
        datasets=datasets,
        uploads=UploadChecks(threads, config.max_photos),
        contributions=Contributions(config.state, datasets, database, threads),
        reviews=Reviews(datasets, database, machine),
        jobs=Jobs(config.state),
        pruning=Pruning(functools.partial(prune, config, database, by="server")),
    )


def check_exists(config: ServeConfig) -> None:
    """Raise `NotFoundError` unless there is a database at the place where a server would look for it."""
    url = database_url(config)
    if config.database is None and not storage.exists(url.removeprefix("sqlite:///")):
        raise NotFoundError(
            f"There is no server with the state {config.state}",
            "it has no database of users",
            "Name its --state or --database, or add its first user: plantml serve users add NAME --roles admin",
        )


def database_url(config: ServeConfig) -> str:
    """The URL of the database: SQLite in a local state folder unless another is named."""
    if config.database is not None:
        return config.database
    if not storage.is_local(config.state):
        raise UsageError(
            f"The state {config.state} is remote", "SQLite needs a local disk", "Name a database: --database URL"
        )
    return f"sqlite:///{storage.local_path(config.state) / 'serve.db'}"


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
