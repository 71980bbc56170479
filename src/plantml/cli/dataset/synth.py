"""`plantml dataset synth`."""

from typing import Annotated, Literal

import typer

from plantml.cli.arguments import MAX_SEED
from plantml.cli.command import command
from plantml.cli.console import Console, Page, count

Layout = Literal["plant", "tray", "row"]


@command(
    "plantml dataset synth photos --images 400 --seed 7",
    "plantml dataset synth faulty --images 2000 --defects 0.1",
    "plantml dataset synth plain --images 400 --severity 0.3 0.6 --zoom 1.5",
    "plantml dataset synth trays --layout tray --images 300",
    "plantml dataset synth s3://bucket/synth --classes tomato___healthy,tomato___rust",
)
def synth(
    console: Console,
    out: Annotated[str, typer.Argument(metavar="OUT", help="URL of a folder for photos and labels.")],
    images: Annotated[int, typer.Option(min=1, help="Number of photos.")] = 200,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Classes like tomato___rust. [default: twelve classes]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed; equal seeds give equal bytes.")] = 0,
    layout: Annotated[
        Layout, typer.Option(help="One plant, or many with a box each: a nursery tray or crop rows.")
    ] = "plant",
    size: Annotated[
        int | None,
        typer.Option(
            min=32, max=8192, help="Width in pixels. [default: 256, as high as wide; trays and rows: 640 by 480]"
        ),
    ] = None,
    defects: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Share of photos, or of boxes, with a planted defect; truth.csv lists them."),
    ] = 0.0,
    severity: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH", help="Lowest and highest share of leaf area with symptoms on diseased plants."
        ),
    ] = (0.015, 0.55),
    zoom: Annotated[float, typer.Option(help="Magnification of the leaves, 0.5 to 3.")] = 1.0,
) -> None:
    """Generate synthetic plant photos with known labels, boxes and severity."""
    from plantml import synth as library

    class_names = tuple(name.strip() for name in classes.split(",")) if classes else library.DEFAULT_CLASSES
    spec = library.SynthSpec(
        images=images,
        classes=class_names,
        seed=seed,
        size=size or library.LAYOUTS[layout].width,
        defects=defects,
        severity=severity,
        zoom=zoom,
        layout=layout,
    )
    library.write(spec, out, workers=console.machine.threads, progress=console.progress("drawing"))

    def show(page: Page) -> None:
        page.line(f"Generated {count(images, 'photo')} of {count(len(spec.classes), 'class', 'classes')} in {out}")
        if defects:
            page.line(f"The planted defects are listed in {out}/truth.csv")
        if layout == "plant":
            page.next(f"plantml dataset import {out}/labels.csv DATASET --group-column plant")
        else:
            group = rf"plantml dataset split DATASET --group-by '{layout}-\d+'"
            page.next(f"plantml dataset import {out} DATASET", group)

    console.result({"out": out, "images": images, "classes": list(spec.classes)}, show)
