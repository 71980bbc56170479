"""Output in every encoding: nothing dies of a character, and JSON stays JSON."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantml.cli.console import Console, Streams

ODD = os.fsdecode(b"caf\xe9.jpg")
LINES = """
import sys
from plantml.cli.app import main
for line in sys.argv[1].split("|"):
    sys.argv[1:] = line.split()
    try:
        main()
    except SystemExit as end:
        print(f"\\n== {end.code}", flush=True)
"""


def encoded(encoding: str) -> tuple[Streams, io.BytesIO]:
    """Standard streams of an encoding, and what is written to stdout."""
    data = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding, "strict", write_through=True))
        return Streams(io.BytesIO()), data


@pytest.mark.parametrize(
    ("encoding", "text", "data"),
    [
        ("ascii", "0.9–1 → 3 × …", b"0.9-1 -> 3 x ..."),
        ("ascii", "Blätter 葉 \U0001f331", rb"Bl\xe4tter \u8449 \U0001f331"),
        ("latin-1", "Blätter – 葉", rb"Bl\xe4tter - \u8449".replace(rb"\xe4", b"\xe4")),
        ("utf-8", "Blätter – 葉", "Blätter – 葉".encode()),
        ("utf-8", ODD, b"caf\xe9.jpg"),
        ("ascii", ODD, b"caf\xe9.jpg"),
        ("utf-8", "\ud800", rb"\ud800"),
    ],
)
def test_a_character_that_an_encoding_lacks_is_replaced_alone(encoding, text, data) -> None:
    streams, written = encoded(encoding)
    streams.stdout.write(text)
    assert written.getvalue() == data


@settings(max_examples=60)
@given(text=st.text(st.characters(), max_size=12), encoding=st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_a_json_document_says_the_same_in_every_encoding(text, encoding) -> None:
    streams, written = encoded(encoding)
    Console(streams, "test", json=True).result({"text": text, text: ODD}, lambda _: None)
    document = json.loads(written.getvalue().decode(encoding))
    assert document["text"] == (ODD if text == "text" else text)
    assert document[text] == ODD


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_no_command_dies_of_an_encoding(trained, tmp_path, encoding) -> None:
    photos = tmp_path / "photos"
    for number, source in enumerate(sorted(Path(trained.photos).rglob("*.jpg"))[:4]):
        target = photos / ("Blätter", "葉")[number % 2] / f"über{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    shutil.copy(target, photos / "Blätter" / ODD)
    lines = [
        f"validate {trained.data} --model {trained.run}",
        f"validate {trained.data} --model {trained.run} --json",
        f"dataset import {photos} {tmp_path}/data",
        f"dataset check {tmp_path}/data --only files,labels",
        f"dataset info {tmp_path}/data --json",
        f"detect {photos} --model {trained.run}",
        "validate --help",
        f"dataset info {tmp_path}/nöthing",
    ]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", LINES, "|".join(lines)]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | locale)
    *pages, rest = done.stdout.decode(encoding, "surrogateescape").split("\n== ")
    codes = [int(page.split("\n")[0]) for page in [*pages[1:], rest]]
    assert codes == [0, 0, 0, 0, 0, 0, 0, 3], done.stderr
    *pages, _ = (page.split("\n", 1)[-1] if number else page for number, page in enumerate(pages))
    assert json.loads(pages[1])["command"] == "validate"
    assert "its name is not UTF-8" in pages[2]
    assert set(json.loads(pages[4])["classes"]["category"]) == {"Blätter", "葉"}
    images = [os.fsencode(json.loads(line)["image"]) for line in pages[5].splitlines()]
    assert sorted(map(os.path.basename, images)) == sorted(os.fsencode(path.name) for path in photos.rglob("*.jpg"))
    assert "Usage: plantml validate" in pages[6]
