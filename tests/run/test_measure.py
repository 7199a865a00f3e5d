"""Choosing and testing at the end of a run."""

import json

from prewrite.cli.main import main
from toy_cli import train_flags


def test_the_control_has_as_many_candidates_rows_and_calls_as_the_trained_rewriter(toy, tmp_path):
    more = ["--strategy", "S", "--num_candidates", "6", "--race_items", "5", "--no-race", "--baselines"]
    free = ["--guards", "none", "--min_fidelity", "0"]  # a toy writes no English
    assert main(train_flags(toy, tmp_path / "run", *more, *free, "--seed", "1")) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    trained, control = result["selection"], result["control"]
    assert control["candidates"] == trained["candidates"] > 8  # of training some are remembered
    assert control["calls"] == trained["calls"] == 5 * trained["candidates"]
