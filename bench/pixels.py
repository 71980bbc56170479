"""Pixels: photos a second from bytes to the input of a model, on one thread."""

from functools import partial

from bench.material import Material
from bench.measure import Row, Side, compare, take_turns


def run(material: Material) -> list[Row]:
    """All rows about pixels."""
    rows = []
    for photos, folder in {**material.small, **material.large}.items():
        sides = {
            name: partial(Side, "bench.pixels_sides:decode", folder=folder, compiled=compiled)
            for name, compiled in {"kernel": True, "pillow": False}.items()
        }
        samples = take_turns(sides, material.size.rounds, f"pixels, {photos}")
        what, beside = f"bytes to pixels, {photos}", "the same with Pillow's resize"
        rows.append(compare("pixels", what, beside, samples["kernel"], samples["pillow"]))
    return rows
