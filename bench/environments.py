"""Other tools, each in a virtual environment of its own."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from bench.measure import tell

ULTRALYTICS = "ultralytics==8.4.190"
"""Under the AGPL, and so in an environment of its own only."""


def environment(folder: Path, package: str) -> str:
    """Python of a virtual environment that has the package, made unless the folder is there.

    What is installed beside plantml is seen from it, so that torch or onnxruntime, which the tools load, is not
    installed a second time.
    """
    python = folder / "bin" / "python"
    if folder.exists():
        return str(python)
    tell(f"installing {package} in an environment of its own")
    venv.create(folder, with_pip=True)
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (purelib / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True, stdout=sys.stderr)
    return str(python)
