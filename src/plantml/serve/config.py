"""Settings of `plantml serve`."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field

from plantml.settings import Config, Duration, Speed, option


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}: write an address or a network, such as 127.0.0.1 or 10.0.0.0/8") from error
    if not network.prefixlen:
        raise ValueError(f"{text} is every address, so everybody could make up theirs")
    return str(network)


_DAY = 86_400.0
Network = Annotated[str, AfterValidator(_network)]


class ServeConfig(Config):
    """Settings of `plantml serve`."""

    dataset: tuple[str, ...] = option(
        (), "Dataset that photos are added to and models are trained on. Repeatable.", metavar="DATASET"
    )
    model: str | None = option(
        None, "Default model, as NAME or NAME@ALIAS.", metavar="MODEL", shown="the only model, @production"
    )
    state: str = option("serve", "Folder or URL for jobs and for photos that wait for review.", metavar="URL")
    database: str | None = option(
        None, "Database of users, as an SQLAlchemy URL.", metavar="URL", shown="SQLite in the state folder"
    )
    host: str = option("127.0.0.1", "Address to listen on.", metavar="ADDRESS")
    port: int = option(8000, "Port to listen on; 0 chooses a free one.", ge=0, le=65_535)
    tls_certificate: str | None = option(None, "TLS certificate chain, a PEM file.", metavar="FILE")
    tls_key: str | None = option(None, "Private key of the certificate, a PEM file.", metavar="FILE")
    behind_proxy: tuple[Network, ...] = option(
        (),
        "Address or network of a TLS-terminating proxy, whose X-Forwarded headers are trusted. Repeatable.",
        metavar="ADDRESS",
    )
    insecure: bool = option(default=False, description="Allow connections from other machines without TLS.")
    origin: tuple[str, ...] = option(
        (), "Origin of a web page that may call the API (CORS). Repeatable.", metavar="ORIGIN"
    )
    trusted_host: tuple[str, ...] = option(
        (),
        "Name that clients call this server by; requests for others are refused. Repeatable.",
        metavar="NAME",
        shown="localhost on loopback, else any",
    )
    threads: int | None = option(None, "Number of prediction threads.", shown="all usable cores", ge=1, le=1024)
    batch: int = option(8, "Maximum batch size.", ge=1, le=1024)
    batch_wait: float | None = option(
        None, "Time that a photo waits for its batch to fill, in seconds.", shown="0.003 on a GPU, else 0", ge=0, le=1
    )
    device: str = option("cpu", "Device: cpu, or a torch device name.")
    speed: Speed = option(
        "exact", "Form of the network: float32 (exact), the fastest proven one (auto), or the named one."
    )
    open_models: int = option(
        4, "Maximum number of models in memory; the least recently used one is unloaded first.", ge=1, le=1000
    )
    queue: int = option(64, "Maximum number of waiting photos; more are refused with status 503.", ge=1, le=100_000)
    deadline: Duration = option(30.0, "Maximum time for a request.", metavar="TIME", shown="30s")
    max_photos: int = option(32, "Maximum number of photos in a request.", ge=1, le=10_000)
    max_upload: int = option(64 * 2**20, "Maximum size of a request.", ge=2**10, le=2**40, metavar="BYTES")
    workers: int = option(1, "Trainings that this server runs at a time; 0 leaves them to plantml work.", ge=0, le=64)
    keep_history: Duration = option(
        90 * _DAY, "How long predictions are kept for their users.", metavar="TIME", shown="90d"
    )
    keep_audit: Duration = option(366 * _DAY, "How long the audit log is kept.", metavar="TIME", shown="366d")
    keep_trainings: Duration = option(
        90 * _DAY,
        "How long logs and checkpoints of finished trainings are kept; those without a result are removed entirely.",
        metavar="TIME",
        shown="90d",
    )
    keep_contributions: Duration = option(
        90 * _DAY,
        "How long contributed photos that were rejected or replaced are kept.",
        metavar="TIME",
        shown="90d",
    )
    advice: str | None = option(None, "Texts by target and label, shown with predictions.", metavar="YAML")
    poll: Annotated[Duration, Field(description="Polling interval of the registry, in seconds.")] = 2.0

    @property
    def seconds_for_batch(self) -> float:
        """Seconds that a photo waits for more of its batch: on a CPU none, as a batch is no faster than its photos."""
        if self.batch_wait is not None:
            return self.batch_wait
        return 0.0 if self.device == "cpu" else 0.003

    @property
    def most_predicted(self) -> int:
        """Photos that one request may ask predictions for: they wait in the queue together."""
        return min(self.max_photos, self.queue)
