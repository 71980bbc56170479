"""The sides of decoding."""

from itertools import islice

from bench.side import Rounds
from plantml import imaging, storage
from plantml.imaging import Fit, resize

_PHOTOS = 200


def decode(rounds: Rounds, *, folder: str, compiled: bool) -> None:
    """Decode and resize for a model of 224 pixels, from memory; without the compiled kernel, by Pillow."""
    if compiled and resize.implementation() == resize.PILLOW:
        raise RuntimeError("the kernel is not built: install plantml where there is a C compiler")
    if not compiled:
        resize._kernel = None  # noqa: SLF001 - as where it was not built
    photos = [storage.read(entry.url) for entry in islice(storage.list_files(folder), _PHOTOS)]
    fit = Fit(224, 224)

    def work() -> int:
        for data in photos:
            imaging.decode(data, fit)
        return len(photos)

    rounds.run(work)
