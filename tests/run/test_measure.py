"""Choosing and testing at the end of a run."""

import json

from prewrite.cli.main import main
from toy_cli import ROWS, train_flags


def test_the_control_has_as_many_candidates_rows_and_calls_as_the_trained_rewriter(toy, tmp_path):
    more = ["--strategy", "S", "--num_candidates", "6", "--race_items", "5", "--no-race", "--baselines"]
    free = ["--guards", "none", "--min_fidelity", "0"]  # a toy writes no English
    assert main(train_flags(toy, tmp_path / "run", *more, *free, "--seed", "1")) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    trained, control = result["selection"], result["control"]
    assert control["candidates"] == trained["candidates"] > 8  # of training some are remembered
    assert control["calls"] == trained["calls"] == 5 * trained["candidates"]


def test_the_baseline_of_exemplars_is_a_whole_prompt_of_the_training_rows_that_there_are(toy, tmp_path):
    for name, rows in {"train": ROWS[:3], "dev": ROWS[10:16], "test": ROWS[20:24]}.items():
        lines = [row | {"choices": ["step", "now"], "input": f"{name} {row['input']}"} for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(train_flags(toy, tmp_path / "run", "--baselines", data=tmp_path)) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test"]["instructions"]["3 random exemplars"]["instruction"] == "solve the task"
    assert result["fidelity"]["3 random exemplars"] == 1.0
    items = [json.loads(line) for line in (tmp_path / "run" / "items.jsonl").read_text().splitlines()]
    prompts = [item["answers"]["3 random exemplars"]["prompt"] for item in items]
    assert len(prompts) == 4
    for prompt in prompts:
        assert prompt.startswith("solve the task\n\nInput: train ") and prompt.count("Output: ") == 3
        assert prompt.count("Input: test ") == 1 and prompt.endswith("Output:")
