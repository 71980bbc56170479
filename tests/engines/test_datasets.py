"""Embeddings, imports and validations in parts: what one process makes of the same photos."""

import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from plantml.data import versions
from plantml.errors import Exit
from plantml.synth import SynthSpec
from plantml.synth.scene import render


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the dataset, without what was derived from it."""
    return str(shutil.copytree(trained.data, tmp_path / "data", ignore=shutil.ignore_patterns("derived")))


def left_of(dataset):
    """Files of jobs."""
    return [*Path(dataset).rglob("job.json"), *Path(dataset).rglob("*.part")]


def test_an_import_has_the_same_fingerprint(cli, trained, tmp_path, inline):
    source = tmp_path / "photos"
    shutil.copytree(trained.photos, source)
    (source / "broken.jpg").write_bytes(b"no photo")
    for name, options in (("alone", ()), ("parts", ("--on", "ray"))):
        result = cli("dataset", "import", source, tmp_path / name, "--json", *options)
        assert result.code == 0, result.err
    assert inline.parts > inline.workers
    assert versions.load(str(tmp_path / "parts")).fingerprint == versions.load(str(tmp_path / "alone")).fingerprint
    assert left_of(tmp_path / "parts") == []
    assert list((tmp_path / "parts" / "derived").rglob("*.jsonl")) == []


def test_embeddings_are_the_same_and_found_again(cli, trained, copy, tmp_path, inline):
    line = ("dataset", "embed", copy, "--model", trained.run)
    assert cli(*line, "--on", "ray", "--out", tmp_path / "parts.parquet").code == 0
    assert inline.parts > inline.workers
    done = inline.parts
    assert cli(*line, "--on", "ray", "--out", tmp_path / "again.parquet").code == 0
    assert inline.parts == done
    shutil.rmtree(Path(copy) / "derived")
    assert cli(*line, "--out", tmp_path / "alone.parquet").code == 0
    parts, again, alone = ((tmp_path / f"{name}.parquet").read_bytes() for name in ("parts", "again", "alone"))
    assert parts == again == alone
    assert left_of(copy) == []


@pytest.mark.parametrize("command", ["embed", "import"])
def test_a_signal_ends_the_parts_and_the_same_command_resumes(
    cli, trained, copy, tmp_path, inline, monkeypatch, command
):
    new = tmp_path / "new"
    lines = {"embed": ("embed", copy, "--model", trained.run), "import": ("import", trained.photos, new)}
    line, wait = ("dataset", *lines[command], "--on", "ray"), inline.wait

    def interrupted():
        events = wait()
        if inline.parts == 1:
            signal.raise_signal(signal.SIGTERM)
        return events

    monkeypatch.setattr(inline, "wait", interrupted)
    result = cli(*line)
    assert result.code == Exit.TERMINATED, result.err
    assert "stopped" in result.err
    assert "resume" in result.err
    assert inline.parts == 1
    assert left_of(copy) + left_of(new) == []
    monkeypatch.setattr(inline, "wait", wait)
    assert cli(*line).code == Exit.DONE


def test_a_check_has_the_same_findings(cli, trained, copy, inline):
    pytest.importorskip("sklearn")
    line = ("dataset", "check", copy, "--only", "outliers", "--model", trained.run, "--json")
    parts = cli(*line, "--on", "slurm").json
    assert inline.parts > inline.workers
    shutil.rmtree(Path(copy) / "derived")
    assert cli(*line).json == parts


@pytest.fixture(scope="module")
def cropped(cli, tmp_path_factory):
    """A dataset of photos, of which three are crops of others, one of them turned, and one is damaged since."""
    pytest.importorskip("cv2", reason="opencv is not installed: pip install 'plantml[curate]'")
    folder = tmp_path_factory.mktemp("cropped")
    (folder / "photos").mkdir()
    spec = SynthSpec(8, size=256)
    pictures = [Image.fromarray(render(spec, index).pixels) for index in range(spec.images)]
    for number, picture in enumerate(pictures):
        picture.save(folder / "photos" / f"{number}.jpg")
    for number in (1, 4, 6):
        crop = pictures[number].rotate(20 * (number == 4)).crop((30, 40, 200, 210))
        crop.save(folder / "photos" / f"crop-{number}.jpg")
    assert cli("dataset", "import", folder / "photos", folder / "data").code == 0
    max((folder / "data" / "images").rglob("*.jpg")).write_bytes(b"damaged")
    return str(folder / "data")


def test_keypoints_have_the_same_findings(cli, cropped, inline):
    line = ("dataset", "check", cropped, "--only", "crops", "--json")
    alone = cli(*line).json
    assert alone["counts"]
    parts = cli(*line, "--on", "ray").json
    assert parts == alone
    assert {kind for kind, _ in inline.done} == {"keypoints", "copies"}
    assert left_of(cropped) == []
    assert list((Path(cropped) / "derived").rglob("*.jsonl")) == []


@pytest.mark.parametrize("kind", ["keypoints", "copies"])
def test_a_check_goes_on_with_the_keypoints_that_were_compared(cli, cropped, inline, monkeypatch, kind):
    line, wait = ("dataset", "check", cropped, "--only", "crops", "--json"), inline.wait

    def interrupted():
        events = wait()
        if inline.done[-1:] and inline.done[-1][0] == kind and len(inline.done) % 3 == 0:
            signal.raise_signal(signal.SIGTERM)
        return events

    alone = cli(*line).json
    with monkeypatch.context() as patch:
        patch.setattr(inline, "wait", interrupted)
        assert cli(*line, "--on", "ray").code == Exit.TERMINATED
    assert inline.done[-1][0] == kind
    total = sum(inline.job.sizes)
    assert cli(*line, "--on", "ray").json == alone
    assert sum(photos for done, photos in inline.done if done == kind) == total  # each once


def test_a_validation_has_the_same_metrics(cli, trained, copy, inline, tmp_path, monkeypatch):
    results = []
    for name, options in (("alone", ()), ("parts", ("--on", "ray"))):
        monkeypatch.setenv("PLANTML_CACHE_DIR", str(tmp_path / f"cache-{name}"))
        result = cli("validate", copy, "--model", trained.run, "--split", "all", "--json", *options)
        assert result.code == 0, result.err
        results.append(result.json)
    assert results[0] == results[1]
    assert inline.parts > inline.workers
    done = inline.parts
    assert cli("validate", copy, "--model", trained.run, "--split", "all", "--on", "ray").code == 0
    assert inline.parts == done  # all in the cache of this machine
    assert not list((Path(copy) / "derived").rglob("*.jsonl"))
