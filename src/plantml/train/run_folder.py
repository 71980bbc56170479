"""A run's folder: its plan, checkpoints, history, plots and bundle, here or on an object store.

Everything is written on this machine first. Where the run's URL is remote, complete files are copied there
as they appear, so that another machine finds them.
"""

import contextlib
import fnmatch
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from plantml import storage
from plantml.data.manifest import Version
from plantml.errors import AlreadyExistsError, InputError, NotFoundError, StorageError
from plantml.model import bundle as bundles
from plantml.model.bundle import Bundle
from plantml.parsing import dump_yaml, parse_yaml
from plantml.settings import Machine
from plantml.storage import checksums
from plantml.train import plan as plans
from plantml.train.config import TrainConfig
from plantml.train.plan import Plan

PLAN, HISTORY, METRICS = "plan.yaml", "history.csv", "metrics.json"
_PLAN_HEAD = b"# What was asked for, and every choice of the run. Not to be edited: its last line is its checksum.\n"
_OURS = (
    *(PLAN, HISTORY, METRICS, "config.yaml", "environment.json", "mlflow.json"),
    *("checkpoints/", "plots/", "bundle/", "tensorboard/"),
)


class RunFolder:
    """The folder of one run.

    Args:
        url: where the run is.
        machine: whose cache holds the working copy of a remote run.
        say: told of trouble that does not end the training.
    """

    def __init__(self, url: str, machine: Machine, say: Callable[[str], None] = lambda _: None) -> None:
        self.url = storage.absolute(url)
        self._remote = not storage.is_local(self.url)
        self._locks, self._name = machine.cache_dir / "runs", hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._work = self._locks / self._name if self._remote else storage.local_path(self.url)
        self._say = say
        self._copier = ThreadPoolExecutor(1)
        self._copying: Future[None] | None = None
        self._newer = False

    @property
    def folder(self) -> Path:
        """The run's folder on this machine; of a remote run its working copy."""
        return self._work

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

    def plan_of(self, config: TrainConfig, version: Version) -> Plan | None:
        """The plan of the run that is there, if it was asked for what is asked for now; none if there is no run.

        Raises:
            InputError: the run that is there was asked for something else.
        """
        if not storage.exists(storage.join(self.url, PLAN)):
            return None
        plan = self.plan()
        changed = plans.differences(plan, config, version.url, version.number, version.fingerprint)
        if changed:
            raise InputError(
                f"{self.url} holds a run with another configuration or dataset",
                "; ".join(changed),
                "Choose another --out, go back to what it was, or start over with --fresh.",
            )
        again = {} if config.workers == "auto" else {"workers": config.workers}
        return plan.model_copy(update=again)

    def begin(self, plan: Plan) -> None:
        """Write the plan of a new run down; of several that begin at the same place one does.

        Raises:
            InputError: another one began here meanwhile, or there is a model whose plan is gone.
        """
        if self.finished() is not None:
            raise InputError(
                f"{self.url} holds a model without its plan", f"{PLAN} is gone",
                "Choose another --out, or start over with --fresh.",
            )  # fmt: skip
        text = _PLAN_HEAD + dump_yaml(plan.model_dump(mode="json")).encode()
        try:
            storage.create(storage.join(self.url, PLAN), checksums.seal_text(text, "%s"))
        except AlreadyExistsError as error:
            raise InputError(
                f"Another training began in {self.url}", "its plan appeared just now", "Choose another --out."
            ) from error
        # Of a run that was removed, but for these.
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        if self._remote:
            for entry in self._there():
                storage.remove(entry.url)

    def plan(self) -> Plan:
        """The plan of the run that is there. Raises `InputError` if it was edited or damaged, or cannot be read."""
        url = storage.join(self.url, PLAN)
        data = storage.read(url)
        intact = checksums.check_text(data)
        if intact is False or (intact is None and data.startswith(_PLAN_HEAD)):
            raise InputError(
                f"{url} was changed after the run began",
                checksums.CHANGED,
                "Put it back as it was; or give other settings on the command line, with --fresh or another --out.",
            )
        try:
            content = parse_yaml(data, url)
            if isinstance(content, dict):
                content.pop(checksums.KEY, None)
            return Plan.model_validate(content)
        except (InputError, ValidationError) as error:
            raise InputError(
                f"{url} is not a plan that this version can read",
                str(error).splitlines()[0],
                "Choose another --out, or start over with --fresh.",
            ) from error

    def finished(self) -> Bundle | None:
        """The bundle if the run is complete."""
        try:
            return bundles.find(storage.join(self.url, "bundle"))
        except NotFoundError:
            return None

    def fetch_checkpoints(self) -> None:
        """Bring those of a remote run here, so that another machine can go on."""
        if not self._remote:
            return
        # What is here may be of an earlier run at the same URL, which another machine began anew.
        plan, known = storage.read(storage.join(self.url, PLAN)), self._work / PLAN
        if not (known.exists() and known.read_bytes() == plan):
            shutil.rmtree(self._work, ignore_errors=True)
            storage.write(str(known), plan)
        for entry in self._there():
            here = self.checkpoints / entry.name
            if not here.exists():
                storage.write(str(here), storage.read(entry.url), durable=True)

    def _there(self) -> list[storage.Entry]:
        """The checkpoints of a remote run."""
        try:
            return list(storage.list_files(storage.join(self.url, "checkpoints")))
        except NotFoundError:
            return []

    def saved(self) -> None:
        """The checkpoints are complete: copy them to a remote run, in the background."""
        if not self._remote:
            return
        self._newer = True
        if self._copying is not None and not self._copying.done():
            return  # whoever copies looks again before it ends
        if self._copying is not None and (error := self._copying.exception()) is not None:
            self._say(f"Checkpoints could not be copied to {self.url}, tried again: {error}")
        self._copying = self._copier.submit(self._copy_all)

    def settle(self) -> None:
        """Wait until a remote run has what is here."""
        if self._remote:
            self._copier.submit(self._copy).result()

    def forget(self, pattern: str) -> None:
        """Remove checkpoints that are needed no longer, here and at the run's URL."""
        for file in self.checkpoints.glob(pattern):
            file.unlink(missing_ok=True)
        if self._remote:
            with self._if_possible(f"{pattern} could not be removed from {self.url}"):
                self._copier.submit(self._forget, pattern).result()  # after what is being copied

    def settle_if_possible(self) -> None:
        """The same at an end that somebody asked for: trouble is told, and what is here stays here."""
        with self._if_possible(f"Checkpoints could not be copied to {self.url}; this machine has them"):
            self.settle()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine away. Raises `InputError` if one trains here already."""
        storage.make_folder(self._locks)
        lock = FileLock(self._locks / f"{self._name}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"Another process trains in {self.url}", "two would overwrite each other's checkpoints",
                "Wait for it, or choose another --out.",
            ) from error  # fmt: skip
        try:
            yield
        finally:
            lock.release()

    def _copy_all(self) -> None:
        while self._newer:
            self._newer = False
            self._copy()

    def _copy(self) -> None:
        """The newest state and what it names, weights first; then those that are not kept here are removed."""
        there, known = storage.join(self.url, "checkpoints"), {entry.name for entry in self._there()}
        # Best weights sort before states, so that a state that is there has what it names.
        here = sorted(self.checkpoints.glob("[!.]*.*"))
        for file in here:
            if file.name not in known:
                try:
                    data = file.read_bytes()
                except FileNotFoundError:  # dropped for a newer one meanwhile
                    self._copy()
                    return
                storage.write(storage.join(there, file.name), data)
        for name in known - {file.name for file in here}:
            storage.remove(storage.join(there, name))

    def _forget(self, pattern: str) -> None:
        for entry in self._there():
            if fnmatch.fnmatch(entry.name, pattern):
                storage.remove(entry.url)

    def copy(self, name: str) -> None:
        """Copy one of the run's folders on this machine to a remote run, file by file."""
        if self._remote:
            for file in sorted((self.folder / name).glob("[!.]*")):
                self.write(f"{name}/{file.name}", file.read_bytes())

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the run."""
        storage.write(storage.join(self.url, name), data)

    def write_if_possible(self, name: str, data: bytes) -> None:
        """Write one file that will be written again; trouble is told."""
        with self._if_possible(f"{name} could not be written"):
            self.write(name, data)

    @contextlib.contextmanager
    def _if_possible(self, what: str) -> Iterator[None]:
        """Tell trouble of the storage, and go on."""
        try:
            yield
        except StorageError as error:
            self._say(f"{what}: {error}")

    def publish(self, files: Mapping[str, bytes], model_json: bytes) -> Bundle:
        """Write the bundle: `model.json` last, so that whoever finds it finds everything."""
        place = storage.join(self.url, "bundle")
        storage.publish(place, {**files, bundles.MODEL_JSON: model_json}, last=bundles.MODEL_JSON)
        return bundles.find(place)
