"""From a leaf to the model that has learnt from it, as a person goes there with a real browser."""

import contextlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from tests.serve.conftest import write_bundle
from tests.serve.page.conftest import complaints, resize

from plantml.data.formats import list_source
from plantml.data.importing import import_source
from plantml.registry import operations, publishing
from plantml.targets import Target

support = pytest.importorskip("selenium.webdriver.support.ui")
exceptions = pytest.importorskip("selenium.common.exceptions")

COLOURS = {"none": (230, 30, 30), "rust": (30, 230, 30), "blight": (30, 30, 230)}
TINY = "mode: probe\nbackbone: test_convnext\npretrained: false\nsize: 32\nepochs: 30\naugment: 0\ndevice: cpu"
_MINUTES = 60


def paint(file, disease, seed):
    """A photo whose disease is its colour."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(COLOURS[disease], 12, (32, 32, 3)), 0, 255)
    pixels[:8] = rng.integers(0, 255, (8, 32, 1))
    Image.fromarray(pixels.astype(np.uint8)).save(file)


@contextlib.contextmanager
def serve(*words):
    """`plantml serve` in a process: its address, and the password of the first start."""
    command = [sys.executable, "-m", "plantml", "serve", *words, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            password, address = "", ""
            while not address:
                line = process.stderr.readline()
                assert line, "the server did not start"
                password = (re.findall(r"password (\S+),", line) or [password])[0]
                address = (re.findall(r"Serving on (\S+);", line) or [""])[0]
            threading.Thread(target=process.stderr.read).start()  # nothing waits for a reader of the log
            yield address, password
        finally:
            process.terminate()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder and SQLite", "bucket and PostgreSQL"])
def test_a_corrected_leaf_reaches_the_model_in_service(place, request, chromium, tmp_path):
    is_far = place.startswith("bucket")
    home = request.getfixturevalue("s3_url") if is_far else str(tmp_path / "home")
    database = ["--database", request.getfixturevalue("postgres_url")] if is_far else []
    lines = ["image,disease"]
    for number in range(36):
        disease = list(COLOURS)[number % 3]
        paint(tmp_path / f"{number}.png", disease, number)
        lines.append(f"{number}.png,{disease}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    import_source(
        str(tmp_path / "list.csv"), f"{home}/leaves", list_source(str(tmp_path / "list.csv"), targets=["disease"])
    )
    target = Target("disease", "class", tuple(sorted(COLOURS)))
    publishing.add(write_bundle(str(tmp_path / "bundle"), 1, (target,)), f"{home}/models/leaf")
    operations.promote(f"{home}/models/leaf", 1, operations.GUARDED, why="the first", force=True)
    leaf = tmp_path / "leaf.png"
    paint(leaf, "rust", 99)
    resize(chromium, 1100)
    with serve(f"{home}/models", "--dataset", f"{home}/leaves", "--state", f"{home}/state", *database) as (
        address,
        password,
    ):
        walk(chromium, address, password, leaf)


def walk(chromium, address, password, leaf):
    """Sign in, ask, correct, train, promote, and ask again."""

    def find(selector):
        return chromium.find_element("css selector", selector)

    def wait_for(text, selector="main", seconds=20):
        # The page may replace an element between its being found and its being read.
        waiting = support.WebDriverWait(
            chromium,
            seconds,
            ignored_exceptions=[exceptions.NoSuchElementException, exceptions.StaleElementReferenceException],
        )
        waiting.until(lambda _: text in find(selector).text, f"no {text!r} on the page")

    chromium.get(address)
    find("#name").send_keys("admin")
    find("#password").send_keys(password)
    find("main button.primary").click()

    find("#files").send_keys(str(leaf))
    wait_for("leaf@1", "article.answer")
    find(".correction summary").click()
    label = find(".correction input[name='label.disease.leaves']")
    label.clear()
    label.send_keys("rust")
    find(".correction button.primary").click()
    wait_for("The dataset leaves is now version 2.")

    chromium.get(f"{address}/trainings")
    support.Select(find("#preset")).select_by_value("quick")
    find("main details summary").click()
    find("#test_share").clear()
    find("#test_share").send_keys("25")
    find("#config").send_keys(TINY)
    find("main button.primary").click()
    wait_for("leaf@2 is in the registry.", "#progress", 5 * _MINUTES)
    assert "plantml train" in find("#log").text

    chromium.get(f"{address}/models/leaf")
    support.Select(find("#version")).select_by_value("2")
    find("main button.primary").click()
    wait_for("version 2 is in service")

    chromium.get(address)
    find("#files").send_keys(str(leaf))
    wait_for("leaf@2", "article.answer", _MINUTES)
    assert "rust" in find("article.answer h3").text
    assert complaints(chromium) == []
