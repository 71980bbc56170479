"""Embeddings of a dataset, and its photos most similar to a given one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plantml import imaging, storage
from plantml.concurrency import Progress, silent
from plantml.curate import embeddings, nearest_neighbours
from plantml.data import versions
from plantml.data.manifest import Version
from plantml.detect.config import DetectConfig
from plantml.detect.similar import Similar
from plantml.errors import UsageError
from plantml.imaging import contact_sheet
from plantml.imaging.contact_sheet import Tile
from plantml.settings import Machine


@dataclass(frozen=True)
class Match:
    """A photo of a dataset that is similar to the query: the cosine of their embeddings, and its labels by target."""

    row: int
    name: str
    cosine: float
    labels: dict[str, Any]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of a version: float32 [N, D] of length 1, or [N, C] on the first principal components."""

    version: Version
    ids: Sequence[str]
    vectors: NDArray[np.float32]
    model: str
    digest: str
    explained: float


def embed(
    ref: str,
    machine: Machine,
    *,
    model: str | None = None,
    pca: float | None = None,
    progress: Progress = silent,
    fill: embeddings.Fill | None = None,
) -> Embedded:
    """Compute embeddings of all usable photos, once per photo and model, and store them in the dataset.

    With `pca`, the principal components that explain this share of the variance, 0 to 1, are returned. `fill` embeds
    photos elsewhere, see `embeddings.embed`.
    """
    if pca is not None and not 0 < pca <= 1:
        raise UsageError(
            f"--pca {pca} is out of range", "it is the share of the variance to keep", "Use a number above 0, up to 1."
        )
    version, embedder = versions.load(ref), embeddings.open_embedder(model, machine)
    ids, vectors = embeddings.embed(version, embedder, machine, progress, fill)
    explained = 1.0
    if pca is not None:
        vectors, explained = nearest_neighbours.principal(vectors, pca)
    return Embedded(version, ids, vectors, embedder.name, embedder.digest, explained)


def similar(
    image: str, ref: str, machine: Machine, *, model: str | None = None, count: int = 10, progress: Progress = silent
) -> tuple[Version, list[Match]]:
    """Find at most `count` photos of a dataset that are most similar to a query photo, most similar first."""
    version, embedder = versions.load(ref), embeddings.open_embedder(model, machine)
    query = embedder(imaging.decode(storage.read(image), embedder.fit)[np.newaxis])
    ids, vectors = embeddings.embed(version, embedder, machine, progress)
    places, cosines = nearest_neighbours.nearest(query, vectors, count)
    first = {image_id: row for row, image_id in reversed(list(enumerate(version.rows["image_id"])))}
    matches = []
    for place, cosine in zip(places[0].tolist(), cosines[0].tolist(), strict=True):
        row = first[ids[place]]
        values = version.rows.row(row, named=True)
        labels = {target.name: values[target.name] for target in version.targets if values[target.name] is not None}
        matches.append(Match(row, values["name"], float(cosine), labels))
    return version, matches


def for_detection(config: DetectConfig, machine: Machine, progress: Progress) -> Similar:
    """The photos of the dataset `config.similar`, embedded by the model that detects."""
    embedded = embed(str(config.similar), machine, model=config.model, progress=progress)
    version = embedded.version
    names = [target.name for target in version.targets]
    rows = {row["image_id"]: row for row in version.usable().iter_rows(named=True)}
    photos = [
        {
            "name": rows[image_id]["name"],
            "url": version.image_url(rows[image_id]["path"]),
            "labels": {name: rows[image_id][name] for name in names if rows[image_id][name] is not None},
        }
        for image_id in embedded.ids
    ]
    return Similar(version.ref, photos, embedded.vectors, config.neighbours)


def draw(image: str, version: Version, matches: Sequence[Match]) -> bytes:
    """Draw a contact sheet as PNG: the query photo, then the matches."""
    tiles = [Tile(partial(storage.read, image), [storage.basename(image), "query"], "#3a6ea5")]
    for match in matches:
        url = version.image_url(version.rows["path"][match.row])
        labels = [str(label) for label in match.labels.values()]
        lines = [storage.basename(match.name), f"cosine {match.cosine:.3f}", *labels]
        tiles.append(Tile(partial(storage.read, url), lines, "#2e7d32"))
    return contact_sheet.draw(tiles)
