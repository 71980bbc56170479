import hashlib

import numpy as np
import pytest
from PIL import Image
from tests.contracts import make_contract

from plantml.data import versions
from plantml.data.boxes import Box
from plantml.data.manifest import Version
from plantml.errors import InputError
from plantml.export import samples
from plantml.model.bundle import find
from plantml.model.contract import Origin
from plantml.targets import Target


@pytest.fixture(scope="module")
def bundle(trained):
    return find(trained.run)


@pytest.fixture
def draw_trays(tmp_path, make_rows):
    """`draw_trays(photos)`: a version of photos with boxes (x, y, w, h, health), white where the health is `a`."""

    def make(photos):
        rows = []
        for number, drawn in enumerate(photos):
            photo = Image.new("RGB", (64, 48))
            for x, y, w, h, health in drawn or ():
                photo.paste("white" if health == "a" else "black", (x, y, x + w, y + h))
            photo.save(tmp_path / f"{number}.png")
            boxes = None if drawn is None else [Box(*sides, {"health": label}).as_row() for *sides, label in drawn]
            sha256 = hashlib.sha256((tmp_path / f"{number}.png").read_bytes()).hexdigest()
            rows.append({"path": str(tmp_path / f"{number}.png"), "image_id": sha256, "split": "test", "boxes": boxes})
        return Version(str(tmp_path), 1, make_rows(rows), ())

    return make


def test_photos_come_with_labels_and_groups(trained, bundle):
    version = samples.version_of(bundle, None)
    result = samples.held_out(version, bundle.contract, "test", 500)
    rows = versions.load(trained.data).usable("test").sort("image_id")
    assert result.pixels.shape == (rows.height, 64, 64, 3)
    assert result.labels.keys() == {target.name for target in bundle.contract.targets}
    health = next(target for target in bundle.contract.targets if target.name == "health")
    assert [health.classes[number] for number in result.labels["health"]] == rows["health"].to_list()
    assert len(set(result.groups.tolist())) == rows["group"].n_unique()
    assert sum(len(batch) for batch in result.batches(7)) == rows.height


def test_a_model_of_crops_is_judged_on_crops(draw_trays):
    version = draw_trays([[(0, 0, 8, 8, "a"), (20, 0, 8, 8, "b"), (40, 20, 8, 8, "a")], [(4, 4, 6, 6, "b")], [], None])
    health = Target("health", "class", ("a", "b"))
    contract = make_contract(health, dataset=Origin(url="trays", version=1, fingerprint="", crops=True))
    every = samples.held_out(version, contract, "test", 500)
    assert every.where.startswith("crops of")
    assert every.pixels.shape == (4, 8, 8, 3)
    assert np.bincount(every.labels["health"]).tolist() == [2, 2]
    assert sorted(np.bincount(every.groups).tolist()) == [1, 3]  # of one photo
    # A crop of the painted photo shows its box.
    assert [int(pixels.mean()) > 100 for pixels in every.pixels] == [number == 0 for number in every.labels["health"]]
    few = samples.held_out(version, contract, "test", 2)
    assert len(few.pixels) == 2


def test_a_class_that_the_model_does_not_have_is_no_label(bundle):
    targets = tuple(
        Target("category", "class", ("bean",)) if target.name == "category" else target
        for target in bundle.contract.targets
    )
    contract = bundle.contract.model_copy(update={"targets": targets})
    result = samples.held_out(samples.version_of(bundle, None), contract, "train", 500)
    assert set(np.unique(result.labels["category"])) == {-1, 0}


def test_a_split_that_is_not_there_is_told(bundle):
    version = samples.version_of(bundle, None)
    with pytest.raises(InputError, match="no photos in its greenhouse split"):
        samples.of_split(version, bundle.contract, "greenhouse", 5)
    assert "split all" in samples.held_out(version, bundle.contract, "greenhouse", 5).where
