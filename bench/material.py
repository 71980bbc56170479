"""What is measured on: photos, a dataset and a bundle, made for one run in a temporary folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from bench.measure import Side, tell
from plantml import imaging, storage, synth
from plantml.settings import usable_cores
from plantml.synth import SynthSpec

PHOTOS = "PLANTML_PHOTOS"
"""Environment variable: a folder of real photos; those of 256 and of over 5 million pixels are taken."""

_LARGE = 5_000_000


@dataclass(frozen=True)
class Size:
    """How much is measured, and on which network."""

    rounds: int
    small: int
    large: int
    train: int
    synth: int
    objects: int
    imported: int
    memory: tuple[int, int]
    train_size: int
    backbone: str


_CORES = usable_cores()

# The plain loop's processes take 32 photos at a time: these numbers give all of them the same work.
FULL = Size(
    rounds=5,
    small=128 * _CORES,
    large=32 * _CORES,
    train=240,
    synth=600,
    objects=512 * _CORES,
    imported=1024 * _CORES,
    memory=(1000, 100_000),
    train_size=224,
    backbone="tf_efficientnet_lite0",
)
# Nothing large: what is asked is whether it still runs, and that is to be answered soon.
QUICK = Size(
    rounds=1,
    small=32,
    large=0,
    train=64,
    synth=16,
    objects=64,
    imported=32,
    memory=(400, 1200),
    train_size=64,
    backbone="test_efficientnet",
)


class Material:
    """Everything is made when it is first asked for.

    Args:
        folder: an empty one, which the caller removes.
        size: see `Size`.
    """

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size

    @cached_property
    def bundle(self) -> str:
        """A bundle whose heads learned nothing."""
        return self._bundle("bundle", self.size.backbone)

    @cached_property
    def tiny_bundle(self) -> str:
        """A bundle of a very small network."""
        return self._bundle("tiny", QUICK.backbone) if self.size.backbone != QUICK.backbone else self.bundle

    @cached_property
    def detector(self) -> str:
        """A bundle of a detector that learned nothing."""
        tell(f"making a detector of {self.size.backbone}")
        out = str(self.folder / "detector")
        photos = self.trays["trays"]
        with Side("bench.bundle:make_detector", out=out, backbone=self.size.backbone, photos=photos) as side:
            side.wait()
        return out

    @cached_property
    def trays(self) -> dict[str, str]:
        """Folders of photos with many plants, by what they are called."""
        spec = SynthSpec(min(12, self.size.small), size=640, layout="tray")
        found = {"trays": self._repeated("trays", self._drawn("drawn-trays", spec), self.size.small // 4)}
        if self.size.large:
            spec = SynthSpec(2, size=4000, layout="tray")
            found["large trays"] = self._repeated("large-trays", self._drawn("drawn-large-trays", spec), 2 * _CORES)
        return found

    @cached_property
    def int8(self) -> str:
        """The bundle in 8 bits, an `.onnx` file."""
        tell("quantising the bundle")
        out = str(self.folder / "int8.onnx")
        photos = next(iter(self.small.values()))
        with Side("bench.bundle:quantise", bundle=self.bundle, photos=photos, out=out) as side:
            side.wait()
        return out

    def _bundle(self, name: str, backbone: str) -> str:
        tell(f"making a bundle of {backbone}")
        out = self.folder / name
        with Side("bench.bundle:make", out=str(out), backbone=backbone) as side:
            side.wait()
        return str(out)

    @cached_property
    def small(self) -> dict[str, str]:
        """Folders of photos of 256 x 256 pixels, by what they are called."""
        found = {"256 px": self._repeated("small", self._drawn_small, self.size.small)}
        if real := self._real[0]:
            found["256 px, real"] = self._repeated("small-real", real, self.size.small)
        return found

    @cached_property
    def distinct(self) -> dict[str, str]:
        """Folders of files of photos of 256 x 256 pixels, no two with the same bytes, by what they are called."""
        photos = {"256 px": self._drawn_small} | ({"256 px, real": real} if (real := self._real[0]) else {})
        folders = {}
        for name, files in photos.items():
            out = self.folder / f"distinct {name}"
            out.mkdir()
            for index, photo in enumerate(islice(cycle(files), self.size.imported)):
                # What stands after the end of a JPEG is no part of the picture.
                (out / f"{index:06d}{photo.suffix}").write_bytes(photo.read_bytes() + index.to_bytes(8, "big"))
            folders[name] = str(out)
        return folders

    @cached_property
    def sizes(self) -> dict[str, str]:
        """Folders of photos of several sizes, as JPEG and as PNG, by what they are called."""
        drawn = {"256 px": (self._drawn_small, self.size.small)}
        if self.size.large:
            for side in (500, 1024):
                spec = SynthSpec(min(32, self.size.small), size=side)
                drawn[f"{side:,} px"] = self._drawn(f"drawn-{side}", spec), self.size.small
            drawn["12 MP"] = self._drawn_large, self.size.large
        folders = {}
        for name, (photos, number) in drawn.items():
            folders[f"{name}, JPEG"] = self._repeated(f"sizes-{name}", photos, number)
            folders[f"{name}, PNG"] = self._repeated(f"sizes-{name}-png", self._as_png(name, photos[:8]), number // 2)
        return folders

    def _as_png(self, name: str, photos: list[Path]) -> list[Path]:
        tell(f"storing {name} photos as PNG")
        out = self.folder / f"png-{name}"
        out.mkdir()
        files = []
        for photo in photos:
            files.append(out / f"{photo.stem}.png")
            with Image.open(photo) as image:
                image.save(files[-1])
        return files

    @cached_property
    def large(self) -> dict[str, str]:
        """Folders of photos of 12 (real ones: 5 to 21) million pixels, by what they are called."""
        if not self.size.large:
            return {}
        found = {"12 MP": self._repeated("large", self._drawn_large, self.size.large)}
        if real := self._real[1]:
            found["12 MP, real"] = self._repeated("large-real", real, self.size.large)
        return found

    @cached_property
    def labelled(self) -> str:
        """A delivery of photos with a table of labels."""
        out = self.folder / "labelled"
        tell(f"drawing {self.size.train} photos")
        synth.write(SynthSpec(self.size.train, seed=2), str(out))
        return str(out)

    @cached_property
    def objects(self) -> str:
        """A folder of the photos that the object store gets, of 256 x 256 pixels and about 15 KB."""
        return self._repeated("objects", self._drawn_small, self.size.objects)

    def many(self, number: int) -> str:
        """A folder of so many small photos."""
        return self._repeated(f"many-{number}", self._drawn_small, number)

    @cached_property
    def _drawn_small(self) -> list[Path]:
        return self._drawn("drawn-small", SynthSpec(min(200, self.size.small)))

    @cached_property
    def _drawn_large(self) -> list[Path]:
        return self._drawn("drawn-large", SynthSpec(min(12, self.size.large), size=4000, height=3000))

    def _drawn(self, name: str, spec: SynthSpec) -> list[Path]:
        tell(f"drawing {spec.images} photos of {spec.shape[1]} x {spec.shape[0]}")
        out = self.folder / name
        synth.write(spec, str(out))
        return sorted(out.glob("images/*/*.jpg"))

    def _repeated(self, name: str, photos: list[Path], number: int) -> str:
        """A folder with so many names of these photos: each name is an image of its own to plantml."""
        out = self.folder / name
        out.mkdir()
        for index, photo in enumerate(islice(cycle(photos), number)):
            (out / f"{index:06d}{photo.suffix}").symlink_to(photo)
        return str(out)

    @cached_property
    def _real(self) -> tuple[list[Path], list[Path]]:
        small, large = [], []
        for path, facts in _readable(os.environ.get(PHOTOS)):
            if facts.width == facts.height == 256:
                small.append(path)
            elif facts.width * facts.height >= _LARGE:
                large.append(path)
        return small, large


def _readable(folder: str | None) -> Iterator[tuple[Path, imaging.Facts]]:
    if not folder or not storage.is_dir(folder):
        return
    for entry in storage.list_files(storage.absolute(folder)):
        if storage.suffix(entry.name) in imaging.EXTENSIONS:
            try:
                yield storage.local_path(entry.url), imaging.facts(storage.read(entry.url))
            except imaging.ImageError:
                continue
