"""The tour runs from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs():
    notebook = nbformat.read(ROOT / "run.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    text = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert "greedy rewrite" in text
    assert not any(cell.get("outputs") for cell in nbformat.read(ROOT / "run.ipynb", as_version=4).cells)
