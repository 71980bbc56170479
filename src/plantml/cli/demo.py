"""`plantml demo`."""

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from plantml.cli.command import command
from plantml.cli.console import Console, Page
from plantml.demo import Step
from plantml.errors import PlantmlError


@command("plantml demo", "plantml demo /tmp/plants --images 600")
def demo(
    console: Console,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for all files.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=60, help="Number of photos.")] = 900,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 3,
) -> None:
    """Run the whole workflow on synthetic plant photos.

    Synth, import, split, train, validate, export and detect, in about two minutes on two cores. Each step is printed
    as the command that you would type.
    """
    from plantml import demo as library
    from plantml.extras import need_train

    need_train()
    started = time.monotonic()

    def call(step: Step) -> int:
        console.say(f"\n# {step.why}\n$ plantml {shlex.join(step.arguments)}")
        command = [sys.executable, "-m", "plantml", *step.arguments, *(["--quiet"] if console.quiet else [])]
        # Only the folder comes from the user.
        done = subprocess.run(command, stdout=subprocess.DEVNULL if console.json else None, check=False)  # noqa: S603
        return done.returncode

    code = library.run(folder, images, epochs, call)
    if code:
        error = PlantmlError("A step of the demo failed", "its message is above", "Follow it, then repeat the demo.")
        error.exit_code = code  # type: ignore[assignment]
        raise error
    sheet = folder / "sheet.png"
    seconds = time.monotonic() - started

    def show(page: Page) -> None:
        page.line()
        page.line(
            f"Done in {seconds:.0f} s. Look at {sheet}, {folder}/run/plots and {folder}/validation.", style="bold"
        )
        page.next("plantml dataset import PHOTOS DATASET, with your own photos")

    console.result({"folder": str(folder), "sheet": str(sheet), "seconds": round(seconds, 1)}, show)
