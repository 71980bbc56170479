"""The input of every check: a version, its photos, and what all checks share, computed once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from plantml import imaging, storage
from plantml.concurrency import Progress, in_threads, silent
from plantml.curate import embeddings
from plantml.curate.keypoint_matches import Elsewhere
from plantml.data import duplicates, photos
from plantml.data.duplicates import DuplicateGroups
from plantml.data.manifest import OK, Version
from plantml.imaging.grey import small_grey
from plantml.settings import Machine
from plantml.targets import Target

Ints = NDArray[np.int64]

_REMOTE_THREADS = 16


@dataclass
class Subject:
    """A version under examination.

    Findings refer to the version's rows by number, from 0. Checks append to `notes` what belongs in the report and is
    not a finding. Embeddings are those of `model`, or of the pretrained backbone; `folds` is a cross-validation, or
    nothing; `fill` embeds photos elsewhere, and what `keypoints` returns compares their keypoints elsewhere.
    """

    version: Version
    machine: Machine
    model: str | None = None
    progress: Callable[[str], Progress] = lambda _: silent
    notes: list[str] = field(default_factory=list)
    folds: str | None = None
    fill: embeddings.Fill | None = None
    keypoints: "Callable[[Subject], Elsewhere] | None" = None

    @cached_property
    def rows(self) -> pl.DataFrame:
        """All rows, with their number in the column `row`."""
        return self.version.rows.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))

    @cached_property
    def usable(self) -> pl.DataFrame:
        """Rows of photos that are not excluded."""
        return self.rows.filter(pl.col("status") == OK)

    @cached_property
    def pictures(self) -> pl.DataFrame:
        """Usable rows whose photo can be decoded."""
        return self.usable.filter(pl.col("phash").is_not_null())

    @property
    def class_targets(self) -> list[Target]:
        """Targets with one class per photo."""
        return [target for target in self.version.targets if target.kind == "class"]

    @cached_property
    def twins(self) -> DuplicateGroups:
        """Exact and near-duplicates among `pictures`; almost empty photos are not compared."""
        rows = self.pictures["row"].to_list()
        by_place: dict[int, NDArray[np.uint8]] = {}

        def thumbnails(places: Ints) -> NDArray[np.uint8]:
            missing = [place for place in dict.fromkeys(places.tolist()) if place not in by_place]
            pictures = in_threads(lambda place: self._thumbnail(rows[place]), missing, self._threads)
            by_place.update(zip(missing, pictures, strict=True))
            return np.stack([by_place[place] for place in places.tolist()])

        return duplicates.find(self.pictures, thumbnails=thumbnails)

    @cached_property
    def embedding(self) -> tuple[Ints, NDArray[np.float32]]:
        """The index of each photo's vector (-1: none), and the vectors, float32 [N, D] of length 1.

        Raises:
            MissingExtraError: no network for embeddings is available.
        """
        embedder = embeddings.open_embedder(self.model, self.machine)
        progress = self.progress("computing embeddings")
        ids, vectors = embeddings.embed(self.version, embedder, self.machine, progress, self.fill)
        place = {image_id: number for number, image_id in enumerate(ids)}
        return np.array([place.get(image_id, -1) for image_id in self.pictures["image_id"]], np.int64), vectors

    @property
    def _threads(self) -> int:
        """Photos that are read at the same time."""
        is_local = storage.is_local(self.version.url)
        return self.machine.threads if is_local else max(self.machine.threads, _REMOTE_THREADS)

    def _thumbnail(self, row: int) -> NDArray[np.uint8]:
        """A photo as grey levels, uint8 [32, 32]; black if it can no longer be read."""
        try:
            _, _, picture = imaging.look(self.read(row), 64)
        except photos.UNREADABLE:
            return np.zeros((32, 32), np.uint8)
        return small_grey(picture.convert("L")).astype(np.uint8)

    def read(self, row: int) -> bytes:
        """Read the photo of a row; raises as `photos.read`."""
        image_id, path = self.version.rows["image_id"][row], self.version.rows["path"][row]
        return photos.read(image_id, self.version.image_url(path), self.machine.cache())
