"""A command that is killed leaves the dataset at its last version, whole; repeated, it ends as if nothing had been."""

import random

import pytest

from plantml.data import editing, maintenance, versions

RUN = "import sys; from plantml.cli.app import main; sys.argv[0] = 'plantml'; main()"
CHANGES = {
    "clean": ("clean", "DATASET", "--apply", "exact-duplicates,near-duplicates,truncated,empty-file"),
    "split": ("split", "DATASET", "--seed", "9", "--resplit"),
    "relabel": ("relabel", "DATASET", "CORRECTIONS", "--new-classes"),
    "add": ("add", "DATASET", "FEED", "--labels", "category___disease", "--new-classes"),
    "merge": ("merge", "DATASET", "OTHER"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, write_photos, cli):
    """A small faulty set as a dataset, a feed of new photos, another dataset, and corrections."""
    from plantml import synth

    home = tmp_path_factory.mktemp("home")
    synth.write(synth.SynthSpec(images=60, seed=5, size=64, defects=0.3), str(home / "photos"), workers=1)
    cli("dataset", "import", home / "photos/labels.csv", home / "DATASET", "-q")
    cli("dataset", "split", home / "DATASET", "-q")
    write_photos(home / "FEED", [f"fig___rust/{n}.jpg" for n in range(40)], first_seed=100)
    write_photos(home / "other", [f"fig___scab/{n}.jpg" for n in range(40)], first_seed=200)
    cli("dataset", "import", home / "other", home / "OTHER", "--labels", "category___disease", "-q")
    name = versions.load(str(home / "DATASET")).usable()["name"][0]
    (home / "CORRECTIONS").with_suffix(".csv").write_text(f"image,disease\n{name},smut\n")
    return home


@pytest.mark.parametrize(
    ("name", "place"),
    [
        pytest.param(name, place, marks=[] if place == "local" or name == "clean" else pytest.mark.slow)
        for name in CHANGES
        for place in ("local", "s3")
    ],
)
def test_a_killed_change_leaves_the_last_version_whole(name, place, home, tmp_path, request, run_python):
    url = str(tmp_path / "dataset") if place == "local" else request.getfixturevalue("s3_url")
    editing.merge(url, str(home / "DATASET"), splits=True)
    words = {
        "DATASET": url,
        "FEED": str(home / "FEED"),
        "OTHER": str(home / "OTHER"),
        "CORRECTIONS": str(home / "CORRECTIONS.csv"),
    }
    arguments = ["dataset", *(words.get(word, word) for word in CHANGES[name]), "-q"]
    rng = random.Random(f"{name} {place}")
    before = versions.load(url)
    for _ in range(2):
        process = run_python(RUN, *arguments)
        try:
            process.communicate(timeout=rng.uniform(0.4, 1.6))
        except Exception:
            process.kill()
            process.communicate()
        numbers = versions.numbers(url)
        assert numbers == list(range(1, len(numbers) + 1))
        assert versions.load(f"{url}@{before.number}").fingerprint == before.fingerprint
        assert maintenance.verify(url).sound
    last = run_python(RUN, *arguments)
    _, told = last.communicate(timeout=60)
    assert last.returncode == 0, told
    assert len(versions.numbers(url)) == before.number + 1
    assert maintenance.verify(url).sound
