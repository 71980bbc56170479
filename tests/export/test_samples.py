import numpy as np
import pytest

from plantml.data import versions
from plantml.errors import InputError
from plantml.export import samples
from plantml.model.bundle import find
from plantml.targets import Target


@pytest.fixture(scope="module")
def bundle(trained):
    return find(trained.run)


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
