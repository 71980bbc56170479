"""`python -m bench [PART …] [--quick]`: measure, print one table, write `bench/results/latest.json`."""

import argparse
import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from bench import before, buckets, ceiling, data, detect, duplicates, help, peers, pixels, serve, train  # noqa: A004 - a part is called as its command is
from bench.material import FULL, PHOTOS, QUICK, Material
from bench.measure import ROOT, Row, as_json, table, tell
from plantml import storage
from plantml.settings import usable_cores

PARTS: Mapping[str, Callable[[Material], list[Row]]] = {
    "help": help.run,
    "pixels": pixels.run,
    "detect": detect.run,
    "buckets": buckets.run,
    "ceiling": ceiling.run,
    "peers": peers.run,
    "detect-boxes": detect.boxes,
    "serve": serve.run,
    "train": train.run,
    "synth": data.synth,
    "import": data.imports,
    "duplicates": duplicates.run,
}
_LIBRARIES = ("plantml", "torch", "pytorch-lightning", "timm", "onnxruntime", "pillow", "numpy", "polars")


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Speed and memory, as ratios of what is measured in turns in one run.",
        epilog=f"{PHOTOS} names a folder of real photos, which are measured too. How good the models are is measured"
        " by `python -m bench.quality`, which takes hours.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="checkout of an earlier commit; measure detect beside it alone"
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does it still run?")
    asked = parser.parse_args()
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is called {unknown[0]}; parts are {', '.join(PARTS)}")
    # Terminated, it ends as usual: the photos and the processes go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="plantml-bench-") as folder:
        material = Material(Path(folder), QUICK if asked.quick else FULL)
        if asked.before:
            rows += before.run(material, asked.before.resolve())
        for part in asked.parts or (() if asked.before else PARTS):
            rows += PARTS[part](material)
    print(table(rows))
    print(f"{_processor()}, {usable_cores()} cores")
    seconds = time.monotonic() - started
    content = {
        "time": storage.now_utc(),
        "seconds": round(seconds, 1),
        "quick": asked.quick,
        "processor": _processor(),
        "cores": usable_cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _LIBRARIES},
        "rows": as_json(rows),
    }
    out = ROOT / "bench" / "results" / "latest.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n")
    tell(f"{out.relative_to(ROOT)}, {seconds:.0f} s on {usable_cores()} cores")


def _processor() -> str:
    """What this machine computes on."""
    facts = Path("/proc/cpuinfo")
    names = facts.read_text().split("model name\t: ")[1:] if facts.exists() else []
    return names[0].partition("\n")[0] if names else platform.processor()


if __name__ == "__main__":
    main()
