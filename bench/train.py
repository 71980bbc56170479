"""Training: images a second of `plantml train` beside bare loops of the same network, on the CPU."""

from functools import partial

from bench.material import Material
from bench.measure import Row, Side, compare, take_turns


def run(material: Material) -> list[Row]:
    """All rows of training."""
    given = {
        "ref": dataset(material),
        "cache": str(material.folder / "cache"),
        "size": material.size.train_size,
        "backbone": material.size.backbone,
    }
    sides = {
        "train": partial(Side, "bench.train_sides:library", out=str(material.folder / "run"), **given),
        "tuned": partial(Side, "bench.train_sides:bare", tuned=True, **given),
        "untuned": partial(Side, "bench.train_sides:bare", tuned=False, **given),
    }
    found = take_turns(sides, min(5, material.size.rounds), "train")
    return [
        compare("train", "train", beside, found["train"], found[name])
        for name, beside in {
            "tuned": "a bare loop from memory, equally tuned",
            "untuned": "a bare loop from memory, nothing tuned",
        }.items()
    ]


def dataset(material: Material) -> str:
    """A dataset, imported and split."""
    from plantml.data.formats import list_source
    from plantml.data.importing import import_source
    from plantml.data.splits import split_dataset

    url = str(material.folder / "dataset")
    source = f"{material.labelled}/labels.csv"
    import_source(source, url, list_source(source, targets=["severity:value:fraction"], group_column="plant"))
    split_dataset(url, ratios="0.9/0.1/0")
    return url
