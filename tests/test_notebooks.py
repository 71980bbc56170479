"""The notebooks of the documentation run, and show what they gave when they ran last."""

import ast
import importlib.util
import json
import re
from functools import reduce
from pathlib import Path

import pytest

import plantml
from plantml import synth

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
MODULES = {"plantml": plantml, "synth": synth}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def dotted_names(code: str) -> set[str]:
    """Names like `plantml.Dataset.create` in the code."""
    texts = {ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
    return {text for text in texts if re.fullmatch(r"(plantml|synth)(\.\w+)+", text)}


@each_notebook
def test_code_names_what_plantml_has(path: Path) -> None:
    names = set().union(*(dotted_names("".join(cell["source"])) for cell in code_cells(path)))
    assert "plantml.Dataset.create" in names
    for module, *parts in (name.split(".") for name in names):
        reduce(getattr, parts, MODULES[module])  # raises AttributeError


@each_notebook
def test_outputs_are_of_one_clean_run(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert {output.get("name") for cell in cells for output in cell["outputs"]} <= {"stdout", None}  # no warnings
    assert path.stat().st_size < 300_000
    assert not re.search(r"/(tmp|root|work|Users)/", path.read_text())


@pytest.mark.slow
@each_notebook
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("execute", DOCS / "execute.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    notebook = module.execute(path, tmp_path)
    assert str(tmp_path) not in json.dumps(notebook)
    assert [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"] == [
        cell["execution_count"] for cell in code_cells(path)
    ]
