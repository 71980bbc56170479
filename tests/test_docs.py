"""What the documentation shows works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import PIL

import plantml

ROOT = Path(__file__).parents[1]


def test_ten_lines_of_onnxruntime_say_what_plantml_says(cli, trained, tmp_path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "model.md").read_text(), re.DOTALL)[1]
    photo = next(Path(trained.photos).rglob("*.jpg"))
    shutil.copy(photo, tmp_path / "photo.jpg")
    assert cli("export", trained.run, "--to", tmp_path / "leaf.onnx", "--samples", 4).code == 0
    done = alone(code, tmp_path)
    said = dict(line.split() for line in done.stdout.splitlines())
    targets = plantml.load(trained.run).predict([photo])[0].targets
    severity = float(said.pop("severity"))
    assert abs(severity - targets["severity"]["value"]) < 0.05
    assert said == {name: answer["label"] for name, answer in targets.items() if "label" in answer}


def alone(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs code where numpy, Pillow and onnxruntime can be imported, and no other package, ours least of all."""
    site = folder / "site"
    site.mkdir()
    for package in (np, PIL, onnxruntime):
        home = Path(package.__file__).parent
        for part in home.parent.glob(f"{home.name}*"):  # with the libraries that some keep beside themselves
            (site / part.name).symlink_to(part)
    for part in Path(PIL.__file__).parent.parent.glob("pillow.libs"):
        (site / part.name).symlink_to(part)
    start = f"import sys; sys.path.append({str(site)!r})\n"
    python = [sys.executable, "-I", "-S", "-c"]
    gone = subprocess.run([*python, start + "import plantml"], cwd=folder, capture_output=True, text=True, check=False)
    assert "No module named 'plantml'" in gone.stderr
    return subprocess.run([*python, start + code], cwd=folder, capture_output=True, text=True, check=True)


def test_pages_link_to_what_is_there() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_are_plain_english() -> None:
    """Phrases that were replaced once, of which some would come back."""
    phrases = re.compile(
        r"\b(?:one|1|each|every) (?:record|row|file|photo|image) an? \w+|put (?:findings )?right|the whole way"
        r"|from which on|goes on with|two looks|still end with|told apart|learnt by heart|to learn from"
        r"|passed over|photos to judge"
    )
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/**/*.yaml")]:
        if page.name != "glossary.md":
            assert phrases.findall(page.read_text()) == [], page.name
