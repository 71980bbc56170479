"""Other tools, each in a virtual environment of its own."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from bench.measure import tell


def environment(folder: Path, package: str) -> str:
    """Python of a virtual environment that has the package; what is installed beside plantml is seen from it.

    So torch or onnxruntime, which the tools load, is not installed a second time.
    """
    tell(f"installing {package} in an environment of its own")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (purelib / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True, stdout=sys.stderr)
    return str(python)
