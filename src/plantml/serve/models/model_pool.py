"""Open models of a registry, by name and alias or number; an alias that moves is followed."""

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray

from plantml import storage
from plantml.errors import InputError, NotFoundError, PlantmlError, StorageError, UsageError
from plantml.imaging import Pixels
from plantml.model.pipeline import Pipeline
from plantml.registry import inspection, ledger, operations, references
from plantml.registry.ledger import Ledger
from plantml.serve.config import ServeConfig
from plantml.serve.recent import Recent
from plantml.serve.users.caller import Caller
from plantml.serve.users.visibility import narrowed
from plantml.settings import Machine

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[0-9]{1,9}|[A-Za-z][A-Za-z0-9_-]{0,63}")
_LIST = "GET /v1/models lists all."
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A model that is ready to predict.

    Attributes:
        name: in the registry.
        version: its number.
        pipeline: what `plantml detect` uses, too.
    """

    name: str
    version: int
    pipeline: Pipeline
    _views: dict[frozenset[str], Pipeline] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        """`NAME@NUMBER`."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 that names the model."""
        return self.pipeline.bundle.digest

    def view(self, caller: Caller) -> Pipeline:
        """The pipeline as if the model had the targets only that a caller may see."""
        visible = frozenset(
            target.name for target in self.pipeline.bundle.contract.targets if caller.may_see(target.name)
        )
        if visible not in self._views:
            self._views[visible] = narrowed(self.pipeline, visible)
        return self._views[visible]

    def outputs(self, photos: Sequence[Pixels]) -> list[dict[str, NDArray[np.float32]]]:
        """What the network itself gives for each photo, uint8 [H, W, 3] at its input size."""
        batch = self.pipeline.runtime.run(np.stack(photos))
        return [{name: values[row] for name, values in batch.items()} for row in range(len(photos))]


@dataclass(eq=False)
class _Alias:
    """What an alias pointed to when it was looked up last (monotonic seconds); only its holder looks again."""

    number: int = 0
    looked: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ModelPool:
    """The open models of a registry.

    An alias is looked up again every `config.poll` seconds. If it has moved, the next version is opened while the
    current one goes on answering; requests under way end on the version that they began with. A registry that cannot
    be reached, and a new version that cannot be opened, change nothing: what is in service stays.

    Args:
        registry: its URL.
        config: default model, threads, batch, number of open models, seconds between two looks at an alias.
        machine: cache and threads.
    """

    def __init__(self, registry: str, config: ServeConfig, machine: Machine) -> None:
        self._registry, self._config, self._machine = registry, config, machine
        self._lock = threading.Lock()
        self._open: Recent[tuple[str, int], Future[OpenModel]] = Recent(config.open_models)
        self._aliases: dict[tuple[str, str], _Alias] = {}
        self._only = ""

    def get(self, ref: str | None = None) -> OpenModel:
        """The model of `NAME`, `NAME@ALIAS` or `NAME@NUMBER`; of `@ALIAS` or `@NUMBER` the default's name is taken.

        Raises:
            NotFoundError: there is no such model or version.
            UsageError: no default is set, and the registry has several models.
            StorageError: the registry cannot be reached.
        """
        name, version = self.resolve(ref)
        number = int(version) if version.isdecimal() else self._followed(name, version)
        return self._opened(name, number)

    async def find(self, ref: str | None = None) -> OpenModel:
        """The same for the event loop: a model that is at hand costs no thread."""
        model = self._at_hand(ref)
        return await run_in_threadpool(self.get, ref) if model is None else model

    def _at_hand(self, ref: str | None) -> OpenModel | None:
        """The model if nothing has to be looked up or opened; `None` else."""
        if not (ref or self._config.model or self._only):
            return None
        key = self.resolve(ref)
        with self._lock:
            alias = self._aliases.get(key)
            is_old = alias is None or time.monotonic() - alias.looked > self._config.poll
            if alias is None or (is_old and not alias.lock.locked()):  # while one request looks, the others go on
                return None
            future = self._open.get((key[0], alias.number))
            if future is None or not future.done() or future.exception():
                return None
            self._open.move_to_end((key[0], alias.number))
        return future.result()

    def resolve(self, ref: str | None) -> tuple[str, str]:
        """Name and version (number or alias) that a reference means."""
        name, _, version = (ref or "").partition("@")
        default_name, _, default_version = (self._config.model or "").partition("@")
        version = version or ("" if name else default_version) or operations.GUARDED
        name = name or default_name or self._only_name()
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
            raise NotFoundError(f"There is no model {ref!r:.80}", "a reference is NAME@ALIAS or NAME@NUMBER", _LIST)
        return name, version

    def check(self) -> str:
        """The reference of the default model; empty if the registry has none yet, or several and no default.

        Raises:
            PlantmlError: the registry cannot be reached, or the default model cannot be opened.
        """
        try:
            names = self._names()
        except NotFoundError:
            names = []
        return self.get().ref if self._config.model or len(names) == 1 else ""

    def numbers(self, name: str) -> list[int]:
        """The versions of a model. Raises `NotFoundError`."""
        return sorted(self._state(self.resolve(name)[0]).entries)

    def opened(self) -> Sequence[OpenModel]:
        """The models that are open now."""
        with self._lock:
            ready = [future for future in self._open.values() if future.done() and not future.exception()]
        return [future.result() for future in ready]

    def in_service(self) -> Mapping[str, str]:
        """What the aliases in use point to: by `NAME@ALIAS`, `NAME@NUMBER`."""
        return {f"{name}@{alias}": f"{name}@{at.number}" for (name, alias), at in list(self._aliases.items())}

    def close(self) -> None:
        """Forget all models."""
        with self._lock:
            self._open.clear()

    def _names(self) -> list[str]:
        return [storage.basename(model.url) for model in inspection.models(self._registry)]

    def _only_name(self) -> str:
        if not self._only:
            names = self._names()
            if not names:
                raise NotFoundError("The registry has no model", "", "Train one, or add one: plantml models add")
            if len(names) > 1:
                raise UsageError("No model is named", f"there are {', '.join(names)}", "Name one: ?model=NAME")
            self._only = names[0]  # it stays the default when a second one comes
        return self._only

    def _followed(self, name: str, version: str) -> int:
        """The number that an alias points to."""
        with self._lock:
            alias = self._aliases.get((name, version)) or _Alias()
        is_old = time.monotonic() - alias.looked > self._config.poll
        # One request looks again; the others go on, unless there is nothing to go on with.
        if (not alias.number or is_old) and alias.lock.acquire(blocking=not alias.number):
            try:
                if not alias.number or is_old:
                    self._look(name, version, alias)
            finally:
                alias.lock.release()
        return alias.number

    def _look(self, name: str, version: str, alias: _Alias) -> None:
        try:
            number = self._number(name, version)
            if number != alias.number:
                self._opened(name, number)
                if alias.number:
                    _log.info("%s@%s moved from version %d to %d", name, version, alias.number, number)
        except NotFoundError:
            with self._lock:
                self._aliases.pop((name, version), None)
            alias.number = 0
            raise
        except PlantmlError as error:
            if not alias.number:
                raise
            _log.warning("%s@%s stays version %d: %s", name, version, alias.number, error)
            number = alias.number
        alias.number, alias.looked = number, time.monotonic()
        with self._lock:
            self._aliases[name, version] = alias

    def _number(self, name: str, version: str) -> int:
        """The number of a version. Raises `NotFoundError` if there is none."""
        state = self._state(name)
        try:
            return state.entry(version).number
        except InputError as error:
            raise NotFoundError(f"{name} has no version {version}", state.summary(), _LIST) from error

    def _state(self, name: str) -> Ledger:
        state = ledger.History(storage.join(self._registry, name)).ledger()
        if not state.events:
            raise NotFoundError(f"There is no model {name}", "", _LIST)
        return state

    def _opened(self, name: str, number: int) -> OpenModel:
        """A version, opened once by whoever asks first; the others wait for it."""
        key = name, number
        if key not in self._open:  # what is not there must take the place of no open model
            self._number(name, str(number))
        with self._lock:
            future = self._open.use(key)
            is_first = future is None
            if future is None:  # whoever still uses the model that goes keeps it until the end of the request
                future = self._open[key] = Future()
        if is_first:
            try:
                future.set_result(self._load(name, number))
            except BaseException as error:
                with self._lock:
                    self._open.pop(key, None)
                future.set_exception(error)
                raise
        return future.result()

    def _load(self, name: str, number: int) -> OpenModel:
        ref = f"{storage.join(self._registry, name)}@{number}"
        threads = self._config.threads or self._machine.threads
        try:
            pipeline = references.open_pipeline(
                ref,
                device=self._config.device,
                cache=self._machine.cache(),
                threads=threads,
                batch=self._config.batch,
                speed=self._config.speed,
                machine=self._machine,
            )
        except InputError as error:
            raise StorageError(f"{name}@{number} cannot be opened", str(error), error.hint) from error
        return OpenModel(name, number, pipeline)
