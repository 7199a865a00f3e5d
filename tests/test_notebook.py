"""The tour runs from top to bottom, and the file is stored as a run of it left it: small, and of no one machine."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = (ROOT / "run.ipynb").read_text(encoding="utf-8")
CELLS = [cell for cell in json.loads(NOTEBOOK)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed (extra notebook)")
def test_the_tour_runs():
    code = "\n".join("".join(cell["source"]) for cell in CELLS)
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the toy now writes: step" in done.stdout
    assert "update 4: reward" in done.stdout and "likeliest after:" in done.stdout
    assert "points on 80 test rows, 95% interval" in done.stdout or "prompt was kept" in done.stdout
    assert "report.html: " in done.stdout


def test_the_tour_is_stored_as_it_ran_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result", "display_data"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    assert all(cell["outputs"] for cell in CELLS[:-1]) and not CELLS[-1]["outputs"]  # the last shows the report


def test_what_is_stored_is_small_and_tells_nothing_of_the_machine():
    assert len(NOTEBOOK) < 60_000
    assert not any(place in NOTEBOOK for place in ("/tmp/", "/home/", "/root/", "site-packages", "/Users/"))
