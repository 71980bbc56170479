"""A run's folder: its plan, checkpoints, history, plots and bundle, local or on an object store.

Checkpoints are written locally first. Complete ones are uploaded to a remote run in the background, so that another
machine can resume.
"""

import contextlib
import fnmatch
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from plantml import storage
from plantml.data.manifest import Version
from plantml.errors import AlreadyExistsError, InputError, NotFoundError, StorageError
from plantml.model import bundle as bundles
from plantml.model.bundle import Bundle
from plantml.parsing import dump_yaml, parse_yaml
from plantml.settings import Machine
from plantml.storage import checksums
from plantml.train.config import TrainConfig
from plantml.train.plan import Plan, differences

PLAN, HISTORY, METRICS = "plan.yaml", "history.csv", "metrics.json"
PSEUDO_LABELS = "pseudo_labels.parquet"
_PLAN_HEAD = b"# What was asked for, and every choice of the run. Not to be edited: its last line is its checksum.\n"
_RUN_FILES = (
    *(PLAN, HISTORY, METRICS, PSEUDO_LABELS, "config.yaml", "environment.json", "mlflow.json"),
    *("checkpoints/", "plots/", "bundle/", "tensorboard/", "tiles/"),
)


class RunFolder:
    """The folder of one run.

    Args:
        url: where the run is.
        machine: its cache holds the local copy of a remote run.
        say: called with errors that do not end the training.
    """

    def __init__(self, url: str, machine: Machine, say: Callable[[str], None] = lambda _: None) -> None:
        self.url = storage.absolute(url)
        self._remote = not storage.is_local(self.url)
        self._locks, self._name = machine.cache_dir / "runs", hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._folder = self._locks / self._name if self._remote else storage.local_path(self.url)
        self._say = say
        self._uploader = ThreadPoolExecutor(1)
        self._uploading: Future[None] | None = None
        self._outdated = False

    @property
    def folder(self) -> Path:
        """The run's local folder; for a remote run, that of its local copy."""
        return self._folder

    @property
    def checkpoints(self) -> Path:
        """The local folder of the checkpoints."""
        return self._folder / "checkpoints"

    def clear(self) -> None:
        """Remove the files of a run, and nothing else."""
        if self._remote:
            shutil.rmtree(self._folder, ignore_errors=True)
        if not storage.exists(self.url):
            return
        files = [entry for entry in storage.list_files(self.url) if entry.name.startswith(_RUN_FILES)]
        # The plan goes last: after a kill in between, clearing can be repeated.
        for entry in sorted(files, key=lambda entry: entry.name == PLAN):
            storage.remove(entry.url)

    def plan_of(self, config: TrainConfig, version: Version) -> Plan | None:
        """The plan of an existing run with the same configuration and dataset; None if there is no run.

        Raises:
            InputError: the run has another configuration or dataset.
        """
        if not storage.exists(storage.join(self.url, PLAN)):
            return None
        plan = self.plan()
        changed = differences(plan, config, version.url, version.number, version.fingerprint)
        if changed:
            raise InputError(
                f"{self.url} holds a run with another configuration or dataset",
                "; ".join(changed),
                "Choose another --out, restore the earlier settings, or start over with --fresh.",
            )
        workers = {} if config.workers == "auto" else {"workers": config.workers}
        return plan.model_copy(update=workers)

    def create(self, plan: Plan) -> None:
        """Create a run with its plan. Only one of several processes can create the same run.

        Raises:
            InputError: another process has just created it, or there is a model without a plan.
        """
        if self.finished_bundle() is not None:
            raise InputError(
                f"{self.url} holds a model without its plan", f"{PLAN} is missing",
                "Choose another --out, or start over with --fresh.",
            )  # fmt: skip
        text = _PLAN_HEAD + dump_yaml(plan.model_dump(mode="json")).encode()
        try:
            storage.create(storage.join(self.url, PLAN), checksums.seal_text(text, "%s"))
        except AlreadyExistsError as error:
            raise InputError(
                f"Another training has started in {self.url}", "its plan was just created", "Choose another --out."
            ) from error
        # Checkpoints and pseudo-labels may be left from a run whose other files were removed.
        storage.remove(storage.join(self.url, PSEUDO_LABELS))
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        if self._remote:
            for entry in self._remote_checkpoints():
                storage.remove(entry.url)

    def plan(self) -> Plan:
        """The plan of an existing run. Raises `InputError` if it was edited, is damaged or cannot be read."""
        url = storage.join(self.url, PLAN)
        data = storage.read(url)
        if not checksums.is_intact(data):
            raise InputError(
                f"{url} was changed after the run started",
                checksums.CHANGED,
                "Restore it; or change settings on the command line, with --fresh or another --out.",
            )
        try:
            content = parse_yaml(data, url)
            if isinstance(content, dict):
                content.pop(checksums.KEY, None)
            return Plan.model_validate(content)
        except (InputError, ValidationError) as error:
            raise InputError(
                f"{url} is not a plan that this version of plantml can read",
                str(error).splitlines()[0],
                "Choose another --out, or start over with --fresh.",
            ) from error

    def finished_bundle(self) -> Bundle | None:
        """The bundle if the run is finished."""
        try:
            return bundles.find(storage.join(self.url, "bundle"))
        except NotFoundError:
            return None

    def fetch_checkpoints(self) -> None:
        """Download the checkpoints of a remote run that are not here, to resume on another machine."""
        if not self._remote:
            return
        # The local copy may be of an earlier run at the same URL, which another machine started over.
        plan, local_plan = storage.read(storage.join(self.url, PLAN)), self._folder / PLAN
        if not (local_plan.exists() and local_plan.read_bytes() == plan):
            shutil.rmtree(self._folder, ignore_errors=True)
            storage.write(str(local_plan), plan)
        for entry in self._remote_checkpoints():
            file = self.checkpoints / entry.name
            if not file.exists():
                storage.write(str(file), storage.read(entry.url), durable=True)

    def _remote_checkpoints(self) -> list[storage.Entry]:
        """The checkpoints at a remote run's URL."""
        try:
            return list(storage.list_files(storage.join(self.url, "checkpoints")))
        except NotFoundError:
            return []

    def upload_in_background(self) -> None:
        """Upload complete checkpoints to a remote run in the background."""
        if not self._remote:
            return
        self._outdated = True
        if self._uploading is not None and not self._uploading.done():
            return  # the running upload checks for new files before it ends
        if self._uploading is not None and (error := self._uploading.exception()) is not None:
            self._say(f"Checkpoints could not be uploaded to {self.url}, trying again: {error}")
        self._uploading = self._uploader.submit(self._upload_all)

    def upload(self) -> None:
        """Upload the checkpoints to a remote run, and wait for it."""
        if self._remote:
            self._uploader.submit(self._upload).result()

    def remove_checkpoints(self, pattern: str) -> None:
        """Remove checkpoints that are no longer needed, locally and at the run's URL."""
        for file in self.checkpoints.glob(pattern):
            file.unlink(missing_ok=True)
        if self._remote:
            with self._reporting_errors(f"{pattern} could not be removed from {self.url}"):
                self._uploader.submit(self._remove_remote, pattern).result()  # after uploads under way

    def try_upload(self) -> None:
        """Upload after a signal: an error is only reported, as this machine has the checkpoints."""
        with self._reporting_errors(f"Checkpoints could not be uploaded to {self.url}; this machine has them"):
            self.upload()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run against other processes on this machine. Raises `InputError` if one trains in it."""
        from filelock import FileLock, Timeout  # of [train]; a server without it reads runs

        storage.make_folder(self._locks)
        lock = FileLock(self._locks / f"{self._name}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"Another process is training in {self.url}", "two would overwrite each other's checkpoints",
                "Wait for it, or choose another --out.",
            ) from error  # fmt: skip
        try:
            yield
        finally:
            lock.release()

    def _upload_all(self) -> None:
        while self._outdated:
            self._outdated = False
            self._upload()

    def _upload(self) -> None:
        """Upload new files, best weights first; then remove remote files that are not here."""
        remote = {entry.name for entry in self._remote_checkpoints()}
        # Best weights sort before states, so that an uploaded state has the weights it refers to.
        files = sorted(self.checkpoints.glob("[!.]*.*"))
        for file in files:
            if file.name not in remote:
                try:
                    data = file.read_bytes()
                except FileNotFoundError:  # replaced by a newer one meanwhile
                    self._upload()
                    return
                storage.write(storage.join(self.url, "checkpoints", file.name), data)
        for name in remote - {file.name for file in files}:
            storage.remove(storage.join(self.url, "checkpoints", name))

    def _remove_remote(self, pattern: str) -> None:
        for entry in self._remote_checkpoints():
            if fnmatch.fnmatch(entry.name, pattern):
                storage.remove(entry.url)

    def upload_folder(self, name: str) -> None:
        """Upload a local folder of the run to a remote run."""
        if self._remote:
            for file in sorted((self.folder / name).glob("[!.]*")):
                self.write(f"{name}/{file.name}", file.read_bytes())

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the run."""
        storage.write(storage.join(self.url, name), data)

    def try_write(self, name: str, data: bytes) -> None:
        """Write one file that will be written again; an error is only reported."""
        with self._reporting_errors(f"{name} could not be written"):
            self.write(name, data)

    @contextlib.contextmanager
    def _reporting_errors(self, what: str) -> Iterator[None]:
        """Report a storage error, and continue."""
        try:
            yield
        except StorageError as error:
            self._say(f"{what}: {error}")

    def publish(self, files: Mapping[str, bytes], model_json: bytes) -> Bundle:
        """Write the bundle, `model.json` last: where it is, the bundle is complete."""
        bundle = storage.join(self.url, "bundle")
        storage.publish(bundle, {**files, bundles.MODEL_JSON: model_json}, last=bundles.MODEL_JSON)
        return bundles.find(bundle)
