"""Data: images a second of drawing and of importing."""

from functools import partial

from bench.material import Material
from bench.measure import Row, Side, compare, take_turns


def synth(material: Material) -> list[Row]:
    """All rows of drawing."""
    given = {"out": str(material.folder / "drawn"), "images": material.size.synth}
    sides = {
        name: partial(Side, "bench.data_sides:draw", workers=workers, **given)
        for name, workers in {"all": None, "one": 1}.items()
    }
    found = take_turns(sides, min(3, material.size.rounds), "synth")
    beside = "the same in one process"
    return [compare("synth", "dataset synth, 256 px", beside, found["all"], found["one"], cpu=False)]


def imports(material: Material) -> list[Row]:
    """All rows of importing."""
    rows = []
    for photos, folder in {**material.distinct, **material.large}.items():
        sides = {
            "copied": partial(Side, "bench.data_sides:bring", folder=folder, reference=False),
            "referenced": partial(Side, "bench.data_sides:bring", folder=folder, reference=True),
            "floor of copied": partial(Side, "bench.data_sides:floor", folder=folder, copies=True),
            "floor of referenced": partial(Side, "bench.data_sides:floor", folder=folder, copies=False),
            "bare": partial(Side, "bench.data_sides:decoding", folder=folder),
        }
        turns = take_turns(sides, material.size.rounds, f"import, {photos}")
        for name, floor in (
            ("copied", "reading, decoding, hashing, writing"),
            ("referenced", "reading, decoding, hashing"),
        ):
            what = f"dataset import, {photos}, {name}"
            rows.append(compare("import", what, "bare decoding at the same scale", turns[name], turns["bare"]))
            rows.append(compare("import", what, f"nothing but {floor}", turns[name], turns[f"floor of {name}"]))
    return rows
