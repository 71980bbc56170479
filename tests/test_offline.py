"""With --offline no socket is opened."""

from tests import warm

GUARD = """
import socket, sys

def refuse(*arguments, **options):
    raise AssertionError(f"a socket was opened: {arguments}")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
from plantml.cli.app import run
for line in sys.argv[1].split("|"):
    code = run(line.split())
    assert code == 0, (line, code)
"""


def test_the_whole_way_opens_no_socket(trained, tmp_path) -> None:
    lines = [
        f"dataset import {trained.photos} {tmp_path}/data --offline",
        f"dataset split {tmp_path}/data --offline",
        f"train {tmp_path}/data --out {tmp_path}/run --size 48 --epochs 1 --offline",
        f"validate {tmp_path}/data --model {tmp_path}/run --offline",
        f"export {tmp_path}/run --to {tmp_path}/leaf.onnx --samples 4 --offline",
        f"detect {trained.photos} --model {tmp_path}/leaf.onnx --out {tmp_path}/r.jsonl --offline",
    ]
    process = warm.Process(GUARD, ["|".join(lines)])
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
