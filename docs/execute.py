"""Run the notebooks and keep their outputs: `python docs/execute.py`. Needs the extras `all` and `dev`."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent / "notebooks"
SHOWN_FOLDER = "/home/you"
"""Stands in the outputs for the folder that a notebook ran in."""


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in `folder`. Raises `CellExecutionError` for a cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    environment = os.environ | {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's, where there are no widgets
    client = NotebookClient(notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        for output in cell.get("outputs", ()):
            keep_smallest_picture(output.get("data", {}))
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return nbformat.from_dict(_shown(notebook, str(folder)))


def keep_smallest_picture(data: dict[str, str]) -> None:
    """Pillow shows a picture as PNG and as JPEG; one is enough."""
    pictures = sorted(data.keys() & {"image/png", "image/jpeg"}, key=lambda kind: len(data[kind]))
    for kind in pictures[1:]:
        del data[kind]


def _shown(node: object, folder: str) -> object:
    """The same tree with `SHOWN_FOLDER` in place of the folder."""
    if isinstance(node, dict):
        return {key: _shown(value, folder) for key, value in node.items()}
    if isinstance(node, list):
        return [_shown(value, folder) for value in node]
    return node.replace(folder, SHOWN_FOLDER) if isinstance(node, str) else node


def main() -> None:
    """Run the notebooks that are named, or all, and write them with their outputs."""
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(path, Path(folder).resolve()), path)
        print(path)


if __name__ == "__main__":
    main()
