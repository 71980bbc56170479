"""A run's folder at a URL, and its working copy on a machine."""

import pytest

from plantml import storage
from plantml.errors import InputError
from plantml.settings import Machine
from plantml.train.run_folder import RunFolder


@pytest.fixture
def folder(memory_url, tmp_path):
    """`folder(machine)`: the run, as one machine sees it."""
    return lambda machine: RunFolder(
        f"{memory_url}/run", Machine.model_validate({"cache_dir": str(tmp_path / machine)})
    )


def names(run: RunFolder) -> list[str]:
    return sorted(file.name for file in run.checkpoints.glob("*"))


def keep(run: RunFolder, name: str, data: bytes = b"state") -> None:
    storage.write(str(run.checkpoints / name), data)


def test_another_machine_gets_the_checkpoints(folder, make_plan) -> None:
    one, other = folder("one"), folder("other")
    one.create(make_plan())
    one.fetch_checkpoints()
    keep(one, "state-000000001-0000.ckpt")
    one.upload_in_background()
    one.upload()
    other.fetch_checkpoints()
    assert names(other) == ["state-000000001-0000.ckpt"]


def test_an_earlier_run_at_the_same_url_is_forgotten(folder, make_plan) -> None:
    """One machine began it, another one began anew; the first goes on with the second's."""
    one, other = folder("one"), folder("other")
    one.create(make_plan(seed=1))
    one.fetch_checkpoints()
    keep(one, "state-000000100-0009.ckpt")
    one.upload()
    other.clear()
    other.create(make_plan(seed=2))
    other.fetch_checkpoints()
    assert not names(other)
    keep(other, "state-000000003-0000.ckpt", b"of the second")
    other.upload()
    one.fetch_checkpoints()
    assert names(one) == ["state-000000003-0000.ckpt"]


def test_what_is_being_written_is_not_copied_and_the_newest_is(folder, make_plan) -> None:
    run = folder("one")
    run.create(make_plan())
    keep(run, "state-000000001-0000.ckpt")
    keep(run, ".state-000000002-0000.ckpt.abc.part")
    run.upload_in_background()
    keep(run, "state-000000002-0000.ckpt")
    (run.checkpoints / "state-000000001-0000.ckpt").unlink()
    run.upload_in_background()  # may come while the first copy is under way
    run._uploader.shutdown(wait=True)
    there = [entry.name for entry in storage.list_files(f"{run.url}/checkpoints")]
    assert there == ["state-000000002-0000.ckpt"]


def test_trouble_of_the_storage_at_an_end_is_told(folder, make_plan, monkeypatch) -> None:
    said: list[str] = []
    run = folder("one")
    run._say = said.append
    run.create(make_plan())
    keep(run, "state-000000001-0000.ckpt")

    def broken(url, data, **_):
        from plantml.errors import StorageError

        raise StorageError(f"Could not write {url}", "the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", broken)
        run.try_upload()
        run.try_write("history.csv", b"")
    assert len(said) == 2
    assert "could not be copied" in said[0]
    assert "history.csv could not be written" in said[1]


def test_a_model_without_its_plan_is_not_begun_again(folder, make_plan, monkeypatch) -> None:
    run = folder("one")
    monkeypatch.setattr(run, "finished_bundle", object)
    with pytest.raises(InputError, match="without its plan"):
        run.create(make_plan())


def test_a_plan_comes_back_and_an_older_one_without_checksum_too(folder, make_plan) -> None:
    run, plan = folder("one"), make_plan()
    run.create(plan)
    assert run.plan() == plan
    url = storage.join(run.url, "plan.yaml")
    lines = storage.read(url).splitlines(keepends=True)
    storage.write(url, b"".join(lines[1:-1]))
    assert run.plan() == plan


def test_an_edited_or_cut_plan_is_refused_with_what_to_do_instead(folder, make_plan) -> None:
    run = folder("one")
    run.create(make_plan())
    url = storage.join(run.url, "plan.yaml")
    whole = storage.read(url)
    lines = whole.splitlines(keepends=True)
    edited = [b"".join(lines[:-1]), whole.replace(b"epochs: ", b"epochs: 1"), whole + b"# note\n", b"".join(lines[:-2])]
    for place in range(0, 8 * len(whole), 97):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        edited.append(bytes(changed))
    for data in edited:
        storage.write(url, data)
        with pytest.raises(InputError) as error:
            run.plan()
        assert "--fresh" in error.value.hint
