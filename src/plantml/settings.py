"""Settings: where each value comes from, and what the machine allows.

One order for every command: flag > `--set a.b=c` > `PLANTML_*` environment > `--config file.yaml`
> default. An unknown key is an error that names the nearest one.
"""

import contextlib
import functools
import getpass
import hashlib
import json
import logging
import os
import re
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from plantml import constraints, storage
from plantml.errors import InputError, PlantmlError, StorageError, UsageError
from plantml.parsing import parse_yaml

_log = logging.getLogger(__name__)

_SECONDS = (604_800, 86_400, 3600, 60, 1)
_WRITTEN = "a time like 90s, 20m, 1h30m, 7d or 2w"
FLAG = "flag"
"""Origin of a value that was given by a command-line flag."""

_DEEPEST = 8
"""Parts of a dotted key; no setting has as many."""


def seconds(value: Any) -> Any:
    """`90s`, `20m`, `1h30m`, `7d` or `2w` as seconds; numbers are seconds already."""
    if isinstance(value, bool):
        raise ValueError(_WRITTEN)  # noqa: TRY004 - pydantic tells of this error, not of the other
    if not isinstance(value, str):
        return value
    parts = re.fullmatch(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", value.strip())
    if parts is None or not value.strip():
        raise ValueError(_WRITTEN)
    return sum(float(part or 0) * factor for part, factor in zip(parts.groups(), _SECONDS, strict=True))


Duration = Annotated[
    float,
    BeforeValidator(seconds),
    Field(gt=0, le=366 * 86_400, json_schema_extra={"words": f"{_WRITTEN}, above 0 and at most 366d"}),
]
"""A time in seconds, a year at most, which people write like `20m`, `1h30m` or `7d`."""

MaxFailures = Annotated[
    Annotated[int, Field(ge=0)] | str, Field(json_schema_extra={"words": "a whole number, or a share like 2%"})
]
"""How many failures still end well; see `model.records.allowed_failures`."""

RESAMPLES = 2000
"""Of a bootstrap, where no other number is set."""

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Of random choices: what torch and numpy both take."""

Speed = Literal["exact", "auto", "int8", "bfloat16"]
"""The form of a model's network to use: float32, the fastest proven one, or a certain one."""

OVERLAP = 0.2
"""Overlap of neighbouring tiles, as a share of their size, where none is set."""

ON = (
    "Split the photos across processes or machines: local:N (processes), ray (the cluster of RAY_ADDRESS, else of this"
    " machine, else a new one), ray://HOST:PORT or slurm."
)
"""What `--on` does."""

MIN_TILE = 16
"""Side of the smallest tile, pixels."""

Tile = Literal[0] | Annotated[int, Field(ge=MIN_TILE, le=65_536)] | None
"""Side of the tiles that a model looks at, pixels; 0 for whole photos only; `None` for those that it was trained on."""


class Config(BaseModel):
    """Base of every command's configuration: strict about keys, frozen, and without NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def option(
    default: Any, description: str, *, flag: str = "", metavar: str = "", shown: str = "", **constraints: Any
) -> Any:
    """A field of a `Config` that has a command-line flag.

    Args:
        default: value of a setting that is given nowhere.
        description: one line for the help page and the page of settings.
        flag: its spelling, where it differs from the field's name.
        metavar: placeholder of the value; `A,B` splits the value at commas.
        shown: the default in words, where the value itself says too little.
        constraints: further arguments of pydantic's `Field`.
    """
    extra: dict[str, Any] = {"flag": {"name": flag, "metavar": metavar, "shown": shown}}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


class Machine(Config):
    """What this machine gives: the same for every command, from `PLANTML_*` or the defaults."""

    cache_dir: Path = Field(default_factory=lambda: _user_cache(), description="folder of the local cache")  # noqa: PLW0108
    cache_limit: int = Field(20 * 2**30, ge=0, le=2**60, description="size of the local cache, bytes")
    offline: bool = Field(default=False, description="open no socket except to URLs that were named")
    threads: int = Field(default_factory=lambda: usable_cores(), ge=1, le=1024, description="worker threads")  # noqa: PLW0108

    def cache(self) -> storage.Cache:
        """The local cache of remote files."""
        return storage.Cache(self.cache_dir / "objects", self.cache_limit)

    def measured(self, *facts: object) -> Path:
        """The file that keeps what was measured here, named by all that the result depends on (JSON types)."""
        return self.cache_dir / "speed" / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json"


C = TypeVar("C", bound=Config)
_QUOTES = "Put quotes around the value."


@dataclass(frozen=True)
class Resolved(Generic[C]):
    """A configuration and, for every dotted key, where its value came from."""

    value: C
    origins: Mapping[str, str]

    def lines(self) -> list[str]:
        """One line a key: `key = value  # where from`, as `--print-config` shows it."""
        return [f"{key} = {value!r}  # {_origin(self.origins, key) or 'default'}" for key, value in _flat(self.value)]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(*, offline: bool = False, as_asked: bool = False) -> Machine:
    """The machine's settings from the environment (`PLANTML_CACHE_DIR`, `PLANTML_OFFLINE`, …).

    Args:
        offline: as if the environment said so.
        as_asked: also a cache that cannot be written to; else another takes its place.
    """
    keys = {name: os.environ.get(f"PLANTML_{name.upper()}") for name in Machine.model_fields}
    given = {name: text for name, text in keys.items() if text not in (None, "")}
    if offline:
        given["offline"] = "true"
    if "cache_dir" in given:
        given["cache_dir"] = str(_local(given["cache_dir"]))
    try:
        asked = Machine.model_validate(given)
    except ValidationError as error:
        raise _explained(error, Machine, {key: f"PLANTML_{key.upper()}" for key in given}) from error
    return asked if as_asked else asked.model_copy(update={"cache_dir": _writable(asked.cache_dir)})


def _local(folder: str) -> Path:
    try:
        return storage.local_path(folder)
    except (ValueError, InputError) as error:
        raise InputError(
            f"PLANTML_CACHE_DIR={folder} names no folder of this machine",
            str(error),
            "Set it to a local folder, such as ~/.cache/plantml.",
        ) from error


@functools.cache  # one warning is enough
def _writable(folder: Path) -> Path:
    """The cache's folder; one among the temporary files where nothing can be written into it.

    Raises:
        StorageError: nothing can be written there either.
    """
    why = _why_not_writable(folder)
    if not why:
        return folder
    other = Path(tempfile.gettempdir(), f"plantml-cache-{getpass.getuser() if os.name == 'nt' else os.getuid()}")
    with contextlib.suppress(OSError):
        other.mkdir(mode=0o700)
    if why_not := _why_not_writable(other) or _why_not_ours(other):
        hint = "Set PLANTML_CACHE_DIR to a folder that can be written."
        raise StorageError("There is no place for a cache", f"{why}; {other}: {why_not}", hint)
    message = "The cache %s cannot be used (%s): %s is used instead. PLANTML_CACHE_DIR sets another."
    _log.warning(message, folder, why, other)
    return other


def _why_not_writable(folder: Path) -> str:
    """Why nothing can be written into a folder, which need not be there yet; empty if it can."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"


def _why_not_ours(folder: Path) -> str:
    """Why a folder whose name anybody can guess is not to be trusted; empty if it is."""
    try:
        facts = folder.lstat()
    except OSError as error:
        return str(error)
    is_ours = stat.S_ISDIR(facts.st_mode) and (os.name == "nt" or facts.st_uid == os.getuid())
    return "" if is_ours else "it is somebody else's"


def resolve(
    model: type[C],
    section: str,
    *,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    file: str | None = None,
) -> Resolved[C]:
    """Merge all sources of one command's configuration, the strongest last.

    Args:
        model: what to fill.
        section: name of the command; the environment's keys are `PLANTML_<SECTION>__<KEY>`.
        flags: values of command-line flags; `None` means that the flag was not given.
        sets: `a.b=c` texts of `--set`; the value is read as YAML.
        file: URL of a YAML file.

    Raises:
        InputError: an unknown key or a value that does not fit, with the place it came from.
        UsageError: a flag's value that does not fit; a `--set` or a variable of the environment that is not written
            like one.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if file:
        layers.append((file, _from_yaml(file)))
    layers.append(("environment", _from_environment(section)))
    layers += [(f"--set {_brief(text)}", _from_set(text)) for text in sets]
    layers.append((FLAG, {key: value for key, value in (flags or {}).items() if value is not None}))
    return _filled(model, layers)


def check(model: type[C], values: Mapping[str, Any], origin: str) -> C:
    """A configuration from one source alone, and defaults.

    Args:
        model: what to fill.
        values: by key.
        origin: where they come from, for errors.

    Raises:
        InputError: an unknown key or a value that does not fit.
    """
    return _filled(model, [(origin, values)]).value


def _filled(model: type[C], layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Resolved[C]:
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        _merge(merged, layer, origins, origin)
    try:
        return Resolved(model.model_validate(merged), origins)
    except ValidationError as error:
        raise _explained(error, model, origins) from error


def _from_yaml(url: str) -> Mapping[str, Any]:
    content = parse_yaml(storage.read(url), url)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(
            f"{url} holds no settings",
            "its top level is not a mapping of keys to values",
            "Write lines like epochs: 20.",
        )
    return content


def _from_environment(section: str) -> Mapping[str, Any]:
    prefix = f"PLANTML_{section.upper()}__"
    if not any(key.upper().startswith(prefix) for key in os.environ):
        return {}  # the common case does not pay for the import
    from pydantic_settings import BaseSettings, EnvSettingsSource

    source = EnvSettingsSource(BaseSettings, env_prefix=prefix, env_nested_delimiter="__", case_sensitive=False)
    values: dict[str, Any] = {}
    for key, text in source.env_vars.items():
        if text is not None and key.upper().startswith(prefix):
            given = f"{key.upper()}={_brief(text)}"
            keys = key[len(prefix) :].lower().split("__")
            _merge(values, _nest(keys, parse_yaml(text, given, UsageError, _QUOTES), given), {}, "")
    return values


def _from_set(text: str) -> Mapping[str, Any]:
    key, equals, value = text.partition("=")
    given = f"--set {_brief(text)}"
    if not equals or not key:
        raise UsageError(f"{given} is not KEY=VALUE", "", "Write it like --set epochs=20.")
    return _nest(key.strip().split("."), parse_yaml(value, given, UsageError, _QUOTES), given)


def _nest(keys: Sequence[str], value: Any, given: str) -> dict[str, Any]:
    if len(keys) > _DEEPEST:
        raise UsageError(
            f"{given} names no setting",
            f"its key has {len(keys)} parts",
            "plantml COMMAND --print-config shows every key.",
        )
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _merge(into: dict[str, Any], layer: Mapping[str, Any], origins: dict[str, str], origin: str, at: str = "") -> None:
    for key, value in layer.items():
        path = f"{at}{key}"
        if isinstance(value, Mapping) and isinstance(into.get(key, {}), dict):
            _merge(into.setdefault(key, {}), value, origins, origin, f"{path}.")
        else:
            into[key] = value
            origins[path] = origin


def _flat(config: BaseModel, at: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key in type(config).model_fields:
        value = getattr(config, key)
        pairs += _flat(value, f"{at}{key}.") if isinstance(value, BaseModel) else [(f"{at}{key}", value)]
    return pairs


def flag_name(name: str, field: FieldInfo) -> str:
    """The flag of a setting, `--batch-size`; empty for a setting that has none."""
    extra = field.json_schema_extra
    flag = extra.get("flag") if isinstance(extra, dict) else None
    return f"--{flag['name'] or name.replace('_', '-')}" if isinstance(flag, dict) else ""


def _explained(error: ValidationError, model: type[BaseModel], origins: Mapping[str, str]) -> PlantmlError:
    first = error.errors(include_url=False)[0]
    if first["type"] in {"extra_forbidden", "invalid_key"}:
        return _unknown(".".join(map(str, first["loc"])), model, origins)
    key, allowed = constraints.of_key(model, first["loc"])
    hint = "`--print-config` shows every value."
    if first["type"] == "missing":
        return InputError(f"Setting {key} is missing", f"it must be given, as {allowed}", hint)
    # A validator of our own says more than the schema does.
    why = str(first["ctx"]["error"]) if first["type"] == "value_error" else allowed
    if not key:
        return InputError("The settings do not fit together", why, hint)
    name = key.partition(".")[0]
    flag = flag_name(name, model.model_fields[name])
    if flag and _origin(origins, name) == FLAG:
        return UsageError(f"The value of {flag} does not fit", why, f"Change {flag}, or leave it out.")
    return InputError(f"Setting {key}{_where(origins, key)} does not fit", why, hint)


def _unknown(key: str, model: type[BaseModel], origins: Mapping[str, str]) -> InputError:
    known = _known(model)
    sections = {name.rpartition(".")[0] for name in known if "." in name}
    near = get_close_matches(_brief(key), [*known, *sorted(sections)], n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(known)}."
    name = _brief(key) or "''"
    return InputError(f"Unknown setting {name}{_where(origins, key)}", "", hint)


def _where(origins: Mapping[str, str], key: str) -> str:
    """Where a key came from, in brackets; of a part of a list, where the list came from."""
    while key and not _origin(origins, key):
        key = key.rpartition(".")[0]
    return f" (from {_origin(origins, key)})" if key else ""


def _brief(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _origin(origins: Mapping[str, str], key: str) -> str:
    """Where a key came from, or, for a mapping, the strongest of what it holds; empty for a default."""
    inside = [origin for path, origin in origins.items() if path == key or path.startswith(f"{key}.")]
    return inside[-1] if inside else ""


def _known(model: type[BaseModel], at: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _known(inner, f"{at}{name}.")
        else:
            keys.append(f"{at}{name}")
    return keys


def _user_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("plantml")
