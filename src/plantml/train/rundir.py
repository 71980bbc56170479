"""A run's folder: its plan, checkpoints, history, plots and bundle, here or on an object store.

Everything is written on this machine first. Where the run's URL is remote, complete files are copied there
as they appear, so that another machine finds them.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from plantml import bundle as bundles
from plantml import storage
from plantml.bundle import Bundle
from plantml.errors import AlreadyExistsError, InputError, NotFoundError
from plantml.settings import Machine
from plantml.train import recipe
from plantml.train.keeper import last_checkpoint
from plantml.train.recipe import Plan

PLAN, HISTORY, METRICS = "plan.yaml", "history.csv", "metrics.json"
_OURS = (PLAN, HISTORY, METRICS, "checkpoints/", "plots/", "bundle/")


class RunFolder:
    """The folder of one run.

    Args:
        url: where the run is.
        machine: whose cache holds the working copy of a remote run.
    """

    def __init__(self, url: str, machine: Machine) -> None:
        self.url = storage.absolute(url)
        self._remote = not storage.is_local(self.url)
        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._work = machine.cache_dir / "runs" / name if self._remote else storage.local_path(self.url)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints on this machine."""
        return self._work / "checkpoints"

    def clear(self) -> None:
        """Remove what a run writes, and nothing else."""
        if self._remote:
            shutil.rmtree(self._work, ignore_errors=True)
        if not storage.exists(self.url):
            return
        ours = [entry for entry in storage.list_files(self.url) if entry.name.startswith(_OURS)]
        # The plan goes last: a kill in between leaves a run that can be cleared again.
        for entry in sorted(ours, key=lambda entry: entry.name == PLAN):
            storage.remove(entry.url)

    def begin(self, plan: Plan) -> bool:
        """Write the plan down, or compare it with the one that is there; true if the run goes on.

        Raises:
            InputError: the run that is there was made by another plan.
        """
        text = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode()
        try:
            storage.create(storage.join(self.url, PLAN), text)
        except AlreadyExistsError:
            changed = recipe.differences(self._plan(), plan)
            if changed:
                raise InputError(
                    f"{self.url} holds a run with another plan",
                    "; ".join(changed),
                    "Choose another --out, go back to that plan, or start over with --fresh.",
                ) from None
            if self._remote:
                self._fetch_checkpoints()
            return True
        if self._remote:
            shutil.rmtree(self._work, ignore_errors=True)  # of a run that was removed over there
        return False

    def finished(self) -> Bundle | None:
        """The bundle if the run is complete."""
        try:
            return bundles.find(storage.join(self.url, "bundle"))
        except NotFoundError:
            return None

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint."""
        return last_checkpoint(self.checkpoints)

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint is complete: copy it to a remote run, and drop those that are not kept here."""
        if not self._remote:
            return
        there = storage.join(self.url, "checkpoints")
        storage.write(storage.join(there, checkpoint.name), checkpoint.read_bytes())
        kept = {file.name for file in self.checkpoints.iterdir()}
        for entry in storage.list_files(there):
            if entry.name not in kept:
                storage.remove(entry.url)

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the run."""
        storage.write(storage.join(self.url, name), data)

    def publish(self, files: Mapping[str, bytes], model_json: bytes) -> Bundle:
        """Write the bundle: `model.json` last, so that whoever finds it finds everything."""
        place = storage.join(self.url, "bundle")
        storage.publish(place, {**files, bundles.MODEL_JSON: model_json}, last=bundles.MODEL_JSON)
        return bundles.find(place)

    def _plan(self) -> Plan:
        url = storage.join(self.url, PLAN)
        try:
            return Plan.model_validate(yaml.safe_load(storage.read(url)))
        except (yaml.YAMLError, ValidationError) as error:
            raise InputError(
                f"{url} is not a plan that this version can read",
                str(error).splitlines()[0],
                "Choose another --out, or start over with --fresh.",
            ) from error

    def _fetch_checkpoints(self) -> None:
        try:
            entries = list(storage.list_files(storage.join(self.url, "checkpoints")))
        except NotFoundError:
            return
        for entry in entries:
            here = self.checkpoints / entry.name
            if not here.exists():
                storage.write(str(here), storage.read(entry.url))
