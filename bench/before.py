"""`detect` beside itself as it was: the same photos through a checkout of an earlier commit."""

from functools import partial
from pathlib import Path

from bench.material import Material
from bench.measure import Row, Side, compare, take_turns


def run(material: Material, checkout: Path) -> list[Row]:
    """Rows of all sizes, in each form; the earlier side has its own benchmark, bundle and float32."""
    bundle = str(material.folder / "bundle-before")
    with Side("bench.bundle:make", root=checkout, out=bundle, backbone=material.size.backbone) as side:
        side.wait()
    rows = []
    for photos, folder in material.sizes.items():
        given = {"folder": folder, "scratch": str(material.folder)}
        now = partial(Side, "bench.detect_sides:library", **given)
        forms = {"float32": material.bundle, "int8": material.int8}
        sides = {
            "before": partial(Side, "bench.detect_sides:library", root=checkout, model=bundle, **given),
            **{form: partial(now, model=model) for form, model in forms.items()},
        }
        turns = take_turns(sides, material.size.rounds, f"before, {photos}")
        what = f"detect, {photos}"
        rows += [
            compare("before", f"{what}, {form}", "the earlier commit", turns[form], turns["before"]) for form in forms
        ]
    return rows
