"""`python -m bench.unknown RUN …`: what share of strange photos models of bean leaves call unknown.

Each run is a finished training on the `bean` photos. Strange are tiles of apple trees, noise, pages of text, and
the pictures that scikit-image brings along; bean's own test photos are not. Nothing of it took part in training.
"""

import argparse
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import plantml
from bench.material import PHOTOS
from bench.measure import tell

_MANY = 60
"""Pictures drawn of each kind of nonsense."""

_WORDS = ["leaf", "stem", "root", "the", "of", "and", "soil", "water", "light", "disease", "figure", "results", "page"]
_PICTURES = {".png", ".jpg", ".gif", ".tif"}
LEAST, MOST = 0.9, 0.05
"""Share of each kind of strange photos that must come out unknown, and of own ones that may."""

Photos = Mapping[str, Sequence[bytes]]


@dataclass(frozen=True)
class Line:
    """One kind of photos, shown to one model.

    Attributes:
        run: where the model is.
        kind: of photos.
        photos: that could be read.
        unknown: share that came out unknown.
        met: true if that is what it should be; `None` for kinds that are only told.
    """

    run: str
    kind: str
    photos: int
    unknown: float
    met: bool | None


def own(photos: Path) -> Photos:
    """Bean's test photos."""
    return {"bean test": _files(photos / "bean" / "test")}


def strange(photos: Path, skimage: Path) -> Photos:
    """What no model of bean leaves has seen."""
    return {
        "apple_boxes": _files(photos / "apple_boxes" / "images"),
        "noise": noise(),
        "text": text(),
        "scikit-image": _files(skimage),
    }


def told(photos: Path) -> Photos:
    """Leaves of other plants, one in the hand or on a table: unlike bean in the field, and yet leaves."""
    return {"plantvillage (no goal)": _files(photos / "plantvillage")[::4]}


def noise(many: int = _MANY) -> list[bytes]:
    """Uniform, normal, coarse and faint noise, in turns."""
    draw, found = np.random.default_rng(0), []
    for number in range(many):
        kind = number % 4
        if kind == 0:
            pixels = draw.integers(0, 256, (256, 256, 3)).astype(np.float64)
        elif kind == 1:
            pixels = draw.normal(128, 40, (256, 256, 3))
        elif kind == 2:
            blobs = draw.integers(0, 256, (*draw.integers(2, 32, 2), 3)).astype(np.uint8)
            pixels = np.asarray(Image.fromarray(blobs).resize((256, 256), Image.Resampling.BICUBIC), np.float64)
        else:
            pixels = draw.integers(0, 256, 3) + draw.normal(0, 8, (256, 256, 3))
        found.append(_png(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))))
    return found


def text(many: int = _MANY) -> list[bytes]:
    """Pages of words: black on white, and in other pale and dark colours."""
    draw, found = np.random.default_rng(1), []
    for number in range(many):
        plain = number % 2 == 0
        paper = (255, 255, 255) if plain else tuple(draw.integers(160, 256, 3).tolist())
        ink = (0, 0, 0) if plain else tuple(draw.integers(0, 120, 3).tolist())
        page = Image.new("RGB", (400, 400), paper)
        size = int(draw.integers(10, 40))
        for y in range(5, 400, round(1.3 * size)):
            ImageDraw.Draw(page).text(
                (5, y), " ".join(draw.choice(_WORDS, 12)), fill=ink, font=ImageFont.load_default(size)
            )
        found.append(_png(page))
    return found


def judge(run: str, photos: Path, skimage: Path) -> list[Line]:
    """All lines of one run."""
    model = plantml.load(run)

    def share(pictures: Sequence[bytes]) -> tuple[int, float]:
        decisions = [prediction.decision for picture in pictures for prediction in model.predict(picture)]
        read = [decision for decision in decisions if decision is not None]
        return len(read), sum(decision == "unknown" for decision in read) / max(1, len(read))

    lines = []
    for kinds, goal in ((own(photos), "own"), (strange(photos, skimage), "strange"), (told(photos), "")):
        for kind, pictures in kinds.items():
            count, unknown = share(pictures)
            met = {"own": unknown <= MOST, "strange": unknown >= LEAST}.get(goal)
            lines.append(Line(run, kind, count, round(unknown, 4), met))
    return lines


def _files(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.rglob("*")) if file.suffix.lower() in {*_PICTURES, ".jpeg"}]


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _skimage(folder: str) -> Path:
    """scikit-image's own pictures: of the installed one, or of one that is put into `folder`."""
    found = importlib.util.find_spec("skimage")
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "data"
    tell("fetching scikit-image for its pictures")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "scikit-image"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return Path(folder) / "skimage" / "data"


def main() -> None:
    """Judge the runs that are named; exit code 1 if one misses a goal."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.unknown",
        description="What share of strange photos models of bean leaves call unknown.",
        epilog=f"{PHOTOS} names the folder of real photos.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a finished training on the bean photos")
    parser.add_argument("--out", metavar="FILE", help="JSON of all lines")
    asked = parser.parse_args()
    photos = Path(os.environ.get(PHOTOS, "nowhere"))
    if not (photos / "bean" / "test").is_dir():
        parser.error(f"{PHOTOS} names no folder of photos: it must have bean/, apple_boxes/ and plantvillage/")
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="plantml-bench-") as folder:
        skimage = _skimage(folder)
        for run in asked.runs:
            lines += judge(run, photos, skimage)
    for line in lines:
        verdict = {True: "met", False: "MISSED", None: ""}[line.met]
        print(f"{line.run:24} {line.kind:24} {line.photos:4} photos  {line.unknown:7.1%} unknown  {verdict}")
    if asked.out:
        Path(asked.out).write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")
    sys.exit(any(line.met is False for line in lines))


if __name__ == "__main__":
    main()
