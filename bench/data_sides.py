"""The sides of drawing and importing."""

import hashlib
import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from bench.side import Rounds
from plantml import storage, synth
from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.settings import usable_cores
from plantml.synth import SynthSpec

_SIDE = 256
"""Importing looks at photos at this size."""


def draw(rounds: Rounds, *, out: str, images: int, workers: int | None) -> None:
    """Photos of plants that no one took, drawn and written."""
    place = f"{out}-{workers or 'all'}"

    def work() -> int:
        shutil.rmtree(place, ignore_errors=True)
        processes = usable_cores() if workers is None else workers
        synth.write(SynthSpec(images, seed=3), place, workers=processes)
        return images

    rounds.run(work, warm=False)


def bring(rounds: Rounds, *, folder: str, reference: bool) -> None:
    """`plantml dataset import FOLDER DATASET`, without the process's start; each time a new dataset."""
    with TemporaryDirectory(dir=storage.split(folder)[0]) as scratch:
        numbers = count()

        def work() -> int:
            done = import_source(
                folder,
                f"{scratch}/{next(numbers)}",
                list_source(folder),
                reference=reference,
                threads=usable_cores(),
            )
            if done.excluded:
                raise RuntimeError(f"images failed: {done.excluded}")
            return done.added

        rounds.run(work)


def decoding(rounds: Rounds, *, folder: str) -> None:
    """Nothing but Pillow's decoder, from memory, on every core."""
    paths = [storage.local_path(entry.url).resolve() for entry in storage.list_files(folder)]
    kept = {path: path.read_bytes() for path in set(paths)}
    with ThreadPoolExecutor(usable_cores()) as pool:
        rounds.run(lambda: sum(pool.map(_decode, [kept[path] for path in paths])))


def floor(rounds: Rounds, *, folder: str, copies: bool) -> None:
    """What no import can leave out: one read, Pillow's decoder, a hash and, for copies, one plain write."""
    paths = [entry.url for entry in storage.list_files(folder)]
    with TemporaryDirectory(dir=storage.split(folder)[0]) as scratch, ThreadPoolExecutor(usable_cores()) as pool:
        numbers = count()

        def work() -> int:
            out = Path(scratch, str(next(numbers)))
            for number in range(256 if copies else 0):
                Path(out, f"{number:02x}").mkdir(parents=True)

            def bring(path: str) -> int:
                data = Path(path).read_bytes()
                name = hashlib.sha256(data).hexdigest()
                if copies:
                    Path(out, name[:2], name).write_bytes(data)
                return _decode(data)

            return sum(pool.map(bring, paths))

        rounds.run(work)


def _decode(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        scale = min(1.0, _SIDE / max(image.size))
        image.draft("RGB", (round(2 * scale * image.width), round(2 * scale * image.height)))
        image.load()
    return 1
