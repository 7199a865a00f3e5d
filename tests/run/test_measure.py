"""Choosing and testing at the end of a run."""

import json
import re

import pytest

from prewrite.choosing.search import Found
from prewrite.cli.main import main
from prewrite.run.measure import fall_in_training
from prewrite.run.search import MOST_STEPS, steps_of, waterfall
from prewrite.run_folder import RunFolder
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.prompt import Exemplar, TaskPrompt, load_prompt
from prewrite.task_models.hf import HFTaskModel
from toy_cli import ROWS, train_flags, whole_flags

FREE = ["--guards", "none", "--min_fidelity", "0"]  # a toy writes no English


def test_the_control_has_as_many_candidates_rows_and_calls_as_the_trained_rewriter(toy, tmp_path):
    more = ["--strategy", "S", "--num_candidates", "6", "--race_items", "5", "--no-race", "--baselines"]
    assert main(train_flags(toy, tmp_path / "run", *more, *FREE, "--seed", "1")) == 0
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


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """A run that ends in a search of the whole prompt, with its control."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    more = ["--strategy", "S", "--num_candidates", "4", "--search_calls", "200", "--baselines", *FREE]
    assert main(whole_flags(toy, folder, *more)) == 0
    return folder


def test_training_ends_in_a_search_of_the_whole_prompt(whole):
    result = json.loads((whole / "result.json").read_text())
    assert load_prompt(whole) == TaskPrompt.from_json(result["prompt"])
    assert result["search"]["calls"] <= 200 and result["dev"]["scores"].keys() == {"initial", "prompt"}
    assert result["test"]["primary"] == "prompt" and result["verdict"]
    assert {"trained greedy", "4 random exemplars"} <= result["test"]["instructions"].keys()
    candidates = [json.loads(line) for line in (whole / "candidates.jsonl").read_text().splitlines()]
    assert {"initial", "exemplars", "sample"} <= {row["source"] for row in candidates}
    page, kept = (whole / "report.html").read_text(), result["rewrite"] == result["instruction"]
    assert "The search" in page and ("Your wording was kept" in page) == kept
    assert result["search"]["wordings"] == len({row["prompt"]["instruction"] for row in candidates}) - 1


def test_the_control_of_a_whole_prompt_spends_as_many_calls(whole):
    result = json.loads((whole / "result.json").read_text())
    assert result["control"]["calls"] == result["search"]["calls"]
    assert "untrained greedy" in result["test"]["instructions"]


def test_a_wording_alone_is_a_prompt_to_ask_with_too(run):
    result = json.loads((run / "result.json").read_text())
    prompt = load_prompt(run)
    assert prompt.instruction == result["rewrite"] and not prompt.exemplars and prompt.label_offsets is None


def test_too_few_calls_for_a_search_end_the_run_before_it_begins(toy, tmp_path, capsys):
    assert main(whole_flags(toy, tmp_path / "run", "--search_calls", "5")) == 2
    assert "search_calls 5 cannot compare two prompts" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("parts", "said"), [([], True), (["--parts", "instruction"], False)])
def test_settings_of_the_race_are_not_taken_in_silence_by_a_search(toy, tmp_path, caplog, parts, said):
    assert main(whole_flags(toy, tmp_path / "run", "--race-items", "5", "--search_calls", "40", *parts)) == 0
    assert ("race_items: of no effect here" in caplog.text) == said


INITIAL = TaskPrompt("Sort.")
OFFSETS = (("a", 0.5), ("b", -0.5))
PARTS = {
    "wording": {"instruction": "Sort them."},
    "answer line": {"answer_line": "Say a or b."},
    "exemplars": {"exemplars": (Exemplar("x", "a"),)},
    "label offsets": {"label_offsets": OFFSETS},
}


@pytest.mark.parametrize(
    ("changed", "tested", "steps"),
    [
        ([], [], []),
        (["wording"], [], [("wording", "prompt")]),
        (["exemplars", "label offsets"], ["label offsets", "exemplars"], ["exemplars", ("label offsets", "prompt")]),
        (
            ["wording", "exemplars"],
            ["wording", "exemplars"],
            ["exemplars", ("wording", "prompt")],
        ),
        (
            ["wording", "answer line", "label offsets"],
            ["label offsets", "wording", "answer line", "all but offsets"],
            [("wording and answer line", "all but offsets"), ("label offsets", "prompt")],
        ),
        (
            list(PARTS),
            ["label offsets", "wording", "answer line", "exemplars", "all but offsets"],
            ["exemplars", ("wording and answer line", "all but offsets"), ("label offsets", "prompt")],
        ),
    ],
)
def test_each_part_is_tested_alone_and_the_steps_lead_from_the_initial_prompt_to_the_chosen_one(
    changed, tested, steps
):
    fields = {name: value for part in changed for name, value in PARTS[part].items()}
    calibrated = TaskPrompt("Sort.", label_offsets=OFFSETS) if "label offsets" in changed else INITIAL
    found = Found(TaskPrompt(**{"instruction": "Sort."} | fields), INITIAL, calibrated, "x", 9, 9, {}, "none", ())
    assert list(steps_of(found)) == ["initial", *tested, "prompt"] and len(tested) + 2 <= MOST_STEPS
    expected = [(step, step) if isinstance(step, str) else step for step in steps]
    assert [(step["adds"], step["at"]) for step in waterfall(found)] == expected


def test_a_greedy_rewrite_that_breaks_a_rule_of_the_user_is_not_chosen(toy, tmp_path, caplog, capsys):
    assert main(train_flags(toy, tmp_path / "run", "--keep", "solve the task", *FREE)) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "solve the task" not in result["greedy"] and result["rewrite"] == "solve the task"
    assert "the greedy rewrite breaks keep" in caplog.text
    rollouts = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    for row in rollouts:
        assert ("guard/keep" in row["parts"]) == ("solve the task" not in row["rewrite"])
    assert main(train_flags(toy, tmp_path / "other", "--keep", "solve it")) == 2
    assert "keep 'solve it' is not in the initial instruction" in capsys.readouterr().err


def test_a_rewrite_that_makes_the_prompt_too_long_is_penalised_and_not_chosen(toy, tmp_path, capsys):
    flags = train_flags(toy, tmp_path / "run", "--strategy", "S", "--num_candidates", "4", *FREE)
    assert main([*flags, "--max_prompt_tokens", "1"]) == 2
    initial = int(re.search(r"has (\d+) tokens", capsys.readouterr().err)[1])
    assert main([*flags, "--max_prompt_tokens", str(initial)]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["prompt_tokens"]["initial"] == initial == result["prompt_tokens"]["most"]
    assert result["prompt_tokens"]["prompt"] <= initial
    evaluator = Evaluator(HFTaskModel(str(toy / "model")))
    rollouts = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    too_long = [evaluator.prompt_tokens(row["rewrite"]) > initial for row in rollouts]
    assert any(too_long) and ["guard/max_prompt_tokens" in row["parts"] for row in rollouts] == too_long


@pytest.mark.parametrize(
    ("scores", "kept_step", "said"),
    [
        (
            {0: 0.35, 5: 0.2, 10: 0.23},
            0,
            "Training made the greedy rewrite no better: 35.0 on 60 dev rows before it, 23.0 after update 10; the "
            "rewriter is as it was before.",
        ),
        (
            {0: 0.35, 5: 0.3, 10: 0.4},  # another instruction, or guards, made update 5 the best
            5,
            "Training made the greedy rewrite worse: 35.0 on 60 dev rows before it, 30.0 after update 5, whose policy "
            "was kept.",
        ),
        (
            {0: 0.35, 5: 0.4, 10: 0.23},
            5,
            "At its end training had made the greedy rewrite worse: 35.0 on 60 dev rows before it, 23.0 after update "
            "10; the policy of update 5 was kept, with 40.0.",
        ),
        ({0: 0.35, 5: 0.2, 10: 0.4}, 10, ""),
        ({0: 0.35, 5: 0.4, 10: 0.35}, 5, ""),
        ({0: 0.35}, 0, ""),
        ({5: 0.35, 10: 0.2}, 5, ""),
    ],
)
def test_the_verdict_says_that_training_made_the_greedy_rewrite_worse(tmp_path, scores, kept_step, said):
    run = RunFolder.create(tmp_path / "run")
    rows = [
        {"event": "dev_eval", "step": step, "instruction": name, "rewrite": "x", "score": score + lead, "n": 60}
        for step, score in scores.items()
        for name, lead in (("Sort.", 0.0), ("Judge.", step / 100))
    ]
    run.append(run.rewrites, [*rows, {"event": "refused", "rewrite": "y"}])
    assert fall_in_training(run, "Sort.", kept_step) == said


def test_a_run_logs_the_dev_score_before_training(run):
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [0, 1, 2] and set(metrics[0]) == {"step", "dev/score"}


def test_training_warns_of_guards_on_the_greedy_rewrite(toy, tmp_path, capsys):
    assert main(train_flags(toy, tmp_path / "run", "--strategy", "I")) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["guards"]["rewrite"] and "Warning: Guards fire on the wording" in printed
    assert main(train_flags(toy, tmp_path / "none", "--guards", "none", "--fidelity_model", "none")) == 0
    assert "Warning" not in capsys.readouterr().out
