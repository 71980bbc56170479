import json

import pytest

from plantml.detect import shards
from plantml.detect.shards import Shard
from plantml.errors import Exit, InputError, UsageError


@pytest.fixture
def photos(paint):
    for number in range(23):
        paint(f"{number:02d}.png", number * 10)
    return paint("broken.png", 0).with_name("broken.png").write_bytes(b"none") and paint("last.png", 0).parent


@pytest.fixture
def parts(run, photos, tmp_path):
    """Three machines' parts, and what one machine alone would have written."""
    files = [tmp_path / f"part-{number}.jsonl" for number in (1, 2, 3)]
    for number, out in enumerate(files, start=1):
        run(photos, out=out, shard=f"{number}/3")
    run(photos, out=tmp_path / "whole.jsonl")
    return files, tmp_path / "whole.jsonl"


def test_every_image_is_one_machines_work(photos):
    urls = [f"s3://season/{number}.jpg" for number in range(1000)]
    counts = [sum(Shard(number, 8).has(url) for url in urls) for number in range(1, 9)]
    assert sum(counts) == 1000
    assert all(80 < count < 180 for count in counts)
    assert all(sum(Shard(number, 8).has(url) for number in range(1, 9)) == 1 for url in urls[:50])


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_a_senseless_part_is_wrong_usage(text):
    with pytest.raises(UsageError, match="not a shard"):
        Shard.parse(text)


def test_merged_parts_are_what_one_machine_writes(parts, tmp_path):
    files, whole = parts
    done = shards.merge([str(file) for file in reversed(files)], str(tmp_path / "merged.jsonl"))
    assert (tmp_path / "merged.jsonl").read_bytes() == whole.read_bytes()
    assert (done.images, done.expected, dict(done.missing), done.failures) == (25, 25, {}, 1)
    assert all(file.stat().st_size for file in files)


def test_a_csv_is_merged_with_the_model(parts, run, contract, tmp_path, photos):
    files, _ = parts
    run(photos, out=tmp_path / "whole.csv")
    shards.merge([str(file) for file in files], str(tmp_path / "merged.csv"), contract)
    assert (tmp_path / "merged.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with pytest.raises(UsageError, match="needs the model"):
        shards.merge([str(file) for file in files], str(tmp_path / "again.csv"))


def test_what_is_missing_is_named_by_part(parts, tmp_path):
    files, _ = parts
    lines = files[0].read_text().splitlines(keepends=True)
    files[0].write_text("".join(lines[:-2]))
    lost = len(files[1].read_text().splitlines())
    done = shards.merge([str(files[0]), str(files[2])], str(tmp_path / "merged.jsonl"))
    assert dict(done.missing) == {"1/3": 2, "2/3": lost}
    assert done.images == 25 - 2 - lost == len((tmp_path / "merged.jsonl").read_text().splitlines())


def test_the_command_fails_while_something_is_missing(cli, parts, tmp_path):
    files, _ = parts
    line = ("detect", *files, "--merge", "--out", tmp_path / "merged.jsonl", "--json")
    assert cli(*line, "--max-failures", 1).json["missing"] == {}
    files[1].unlink()
    result = cli(*line, "--max-failures", 1)
    assert result.code == Exit.FAILURES
    assert "shard 2/3" in result.err
    assert result.json["missing"] == {"2/3": result.json["expected"] - result.json["images"]}
    assert cli("detect", *files, "--merge").code == Exit.USAGE


def test_parts_of_other_sources_or_models_or_named_twice_are_refused(parts, run, paint, tmp_path):
    files, _ = parts
    names = [str(file) for file in files]
    out = tmp_path / "merged.jsonl"
    with pytest.raises(InputError, match="named twice"):
        shards.merge([names[0], *names], str(out))
    changed = [json.loads(line) | {"model": "0" * 64} for line in files[2].read_text().splitlines()]
    files[2].write_text("".join(f"{json.dumps(record)}\n" for record in changed))
    with pytest.raises(InputError, match="different models"):
        shards.merge(names, str(out))
    run(paint("new.png", 9).parent, out=files[2], shard="3/3")
    with pytest.raises(InputError, match="shards of different detections") as error:
        shards.merge(names, str(out))
    assert "Repeat" in error.value.hint
    files[2].write_text("no part\n")
    with pytest.raises(InputError, match="not the output of a shard"):
        shards.merge(names, str(out))
    assert not out.exists()


def test_a_part_is_resumed_and_its_places_follow_the_whole(parts, run, paint, tmp_path):
    files, _ = parts
    photos = paint("00a.png", 200).parent  # moves every place but the first
    done = [run(photos, out=out, shard=f"{number}/3")[0] for number, out in enumerate(files, start=1)]
    assert sum(one.resumed for one in done) == 25
    shards.merge([str(file) for file in files], str(tmp_path / "merged.jsonl"))
    run(photos, out=tmp_path / "fresh.jsonl")
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()


def test_parts_are_whole_json_lines(run, photos, tmp_path):
    with pytest.raises(UsageError, match="JSON Lines"):
        run(photos, out=tmp_path / "part.csv", shard="1/2")
    with pytest.raises(UsageError, match="--where"):
        run(photos, out=tmp_path / "part.jsonl", shard="1/2", where='decision == "review"')
    with pytest.raises(UsageError, match="output file"):
        run(photos, shard="1/2")
