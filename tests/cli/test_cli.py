"""The commands as a user types them: flags, YAML, errors, exit codes, and a whole run on a tiny model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prewrite.cli.main import COMMANDS, main
from toy_cli import ROWS, train_flags

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_leaves_every_file_that_the_design_names(run):
    for name in ("config.json", "splits.json", "metrics.jsonl", "rollouts.jsonl", "rewrites.jsonl", "items.jsonl",
                 "result.json", "report.html", "report.md", "rewriter/rewriter.json", "checkpoints"):  # fmt: skip
        assert (run / name).exists(), name
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["learning_rate"] == 5e-6 and config["versions"]["trl"] == "0.25.0"
    result = json.loads((run / "result.json").read_text())
    assert result["test"]["n"] == 8 and set(result["test"]["instructions"]) == {"initial", "rewrite"}
    assert result["cost"]["task_model"]["prompts"] > 0
    assert result["fidelity"]["initial"] == 1.0 and 0 <= result["fidelity"]["rewrite"] <= 1


@pytest.mark.slow
def test_finetune_and_inference_are_the_same_commands(toy, tmp_path):
    flags = train_flags(toy, tmp_path / "run")[1:]
    asked = [sys.executable, "finetune.py", *flags]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Test, 8 rows" in done.stdout
    asked = [sys.executable, "inference.py", "--model_dir", str(tmp_path / "run"), "--instruction", "solve the task"]
    done = subprocess.run([*asked, "--strategy", "I"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("rewrite", "fidelity", "fired"),
    [
        ("Sort the mail by topic.", 0.9, []),
        ("step step step step", 0.9, ["repetition"]),
        ("Sort the mail by topic.", 0.2, ["fidelity 0.20, below 0.25"]),
    ],
)
def test_strategy_i_warns_of_a_rewrite_that_guards_refuse(run, capsys, monkeypatch, rewrite, fidelity, fired):
    monkeypatch.setattr("prewrite.rewriter.rewriter.Rewriter.greedy", lambda self, instruction: rewrite)
    monkeypatch.setattr("prewrite.run.build.open_fidelity", lambda config: lambda rewrites, instruction: [fidelity])
    assert main(["rewrite", "--model-dir", str(run), "--instruction", "Sort the mail.", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["rewrite"], found["fidelity"]) == (rewrite, fidelity)
    assert all(name in printed.err for name in fired)
    assert bool(fired) == ("read it before you use it" in printed.err)


def test_strategy_i_keeps_the_instruction_where_the_rewrite_breaks_a_rule_of_the_user(run, toy, capsys, monkeypatch):
    monkeypatch.setattr("prewrite.rewriter.rewriter.Rewriter.greedy", lambda self, instruction: "Sort letters.")
    flags = ["rewrite", "--model-dir", str(run), "--instruction", "Sort the mail.", "--fidelity-model", "none"]
    assert main([*flags, "--keep", "mail"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "Sort the mail.\n" and "the greedy rewrite 'Sort letters.' breaks keep" in printed.err
    assert main([*flags, "--forbid", "letter"]) == 0
    assert capsys.readouterr().out == "Sort letters.\n"
    assert main([*flags, "--task-model", f"hf:{toy / 'model'}", "--max-prompt-tokens", "3"]) == 2
    assert "max_prompt_tokens is 3" in capsys.readouterr().err
    assert main([*flags, "--keep", "post"]) == 2
    assert "keep 'post' is not in the initial instruction 'Sort the mail.'" in capsys.readouterr().err


def test_strategy_i_tells_fidelity_by_the_judge_that_is_named(run, toy, capsys):
    flags = ["rewrite", "--model-dir", str(run), "--instruction", "solve the task", "--json"]
    assert main([*flags, "--fidelity-model", str(toy / "model")]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["fidelity"] <= 1
    assert main([*flags, "--fidelity-model", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["fidelity"] is None


def test_strategy_s_chooses_on_dev(run, toy, capsys):
    flags = ["--strategy", "S", "--data", str(toy / "rows.jsonl"), "--task-model", f"hf:{toy / 'model'}", "--json"]
    flags += ["--fidelity-model", str(toy / "model")]
    assert main(["rewrite", "--model-dir", str(run), "--instruction", "solve the task", *flags, "--no-cache"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"] in ("initial", "greedy", "sample") and found["calls"] <= found["full_calls"]
    assert 0 <= found["fidelity"] <= 1


def test_strategy_s_searches_as_the_flags_say(run, toy, capsys, monkeypatch):
    from prewrite.choosing import choose

    told = {}
    plain = choose.choose_rewrite
    monkeypatch.setattr(choose, "choose_rewrite", lambda *args, **given: told.update(given) or plain(*args, **given))
    flags = ["rewrite", "--model-dir", str(run), "--instruction", "solve the task", "--strategy", "S", "--no-cache"]
    flags += ["--data", str(toy / "rows.jsonl"), "--task-model", f"hf:{toy / 'model'}"]
    flags += ["--fidelity-model", str(toy / "model")]
    assert main([*flags, "--seed", "3", "--num-candidates", "4", "--race-items", "6", "--no-race"]) == 0
    assert told == {"num_candidates": 4, "race": False, "practical_delta": 0.01, "max_items": 6, "seed": 3}
    assert main([*flags, "--practical-delta", "0"]) == 0
    assert told["practical_delta"] == 0 and told["seed"] == 0


def test_strategy_s_says_when_the_initial_instruction_is_kept(run, toy, capsys, monkeypatch):
    monkeypatch.setattr("prewrite.rewriter.rewriter.Rewriter.greedy", lambda self, instruction: instruction)
    monkeypatch.setattr("prewrite.rewriter.rewriter.Rewriter.sample_rewrites", lambda *_, **__: ["", "step step step"])
    flags = ["rewrite", "--model-dir", str(run), "--instruction", "Sort the mail.", "--strategy", "S", "--no-cache"]
    flags += ["--data", str(toy / "rows.jsonl"), "--task-model", f"hf:{toy / 'model'}"]
    assert main([*flags, "--fidelity-model", str(toy / "model")]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == "Sort the mail." and "the initial instruction is kept" in printed.err


def test_without_test_rows_the_gain_is_a_corrected_estimate_and_named_so(toy, tmp_path, capsys):
    assert main(train_flags(toy, tmp_path / "run", "--no_hold_out_test", "--strategy", "S")) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert result["test"] is None and splits["test"]["count"] == 0
    assert splits["train"]["count"] + splits["dev"]["count"] == len(ROWS) and result["dev"]["n"] == 10
    assert "there were no test rows" in capsys.readouterr().out
    assert main(train_flags(toy, tmp_path / "greedy", "--no_hold_out_test")) == 2
    assert "strategy S" in capsys.readouterr().err


def test_two_data_sets_are_reported_one_by_one(toy, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row | {"instruction": "answer <now>"}) + "\n" for row in ROWS))
    flags = train_flags(toy, tmp_path / "run", "--data", str(other), "--instructions_per_step", "2")
    assert main([*flags, "--data", str(other)]) == 2
    assert "is given twice" in capsys.readouterr().err
    assert main(flags) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [task["instruction"] for task in result["tasks"]] == ["solve the task", "answer <now>"]
    assert result["verdict"].startswith("Of 2 instructions")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "All instructions of the run" in page and "answer &lt;now&gt;" in page
    assert "answer \\<now\\>" in (tmp_path / "run" / "report.md").read_text()


def test_an_instruction_that_training_never_saw_is_chosen_for_and_tested_all_the_same(toy, tmp_path, caplog):
    def write(name, *instructions):
        rows = [
            row | {"instruction": text, "input": f"{name} {row['input']}"} for text in instructions for row in ROWS
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("train", "solve the task")
    write("dev", "solve the task", "answer now", "think")
    write("test", "solve the task", "answer now")
    assert main(train_flags(toy, tmp_path / "run", "--baselines", "--test_examples", "4", data=tmp_path)) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [task["instruction"] for task in result["tasks"]] == ["solve the task", "answer now"]
    known, unseen = (task["test"]["instructions"] for task in result["tasks"])
    assert "4 random exemplars" in known and "4 random exemplars" not in unseen  # there are no train rows of it
    assert (
        "neither chosen for nor tested: 1 instruction(s), such as 'think' has dev rows and no test rows" in caplog.text
    )


def test_splits_without_a_common_instruction_end_the_run_before_it_trains(toy, tmp_path, capsys):
    for name in ("train", "dev", "test"):
        own = {"instruction": f"the {name} task", "task": "qa"}
        rows = [row | own | {"input": f"{name} {row['input']}"} for row in ROWS]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(train_flags(toy, tmp_path / "run", data=tmp_path)) == 2
    assert "no instruction has both dev and test rows" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_eval_and_strategy_s_take_the_rows_of_one_instruction(run, toy, tmp_path, capsys):
    other = {"instruction": "answer now", "output": "now"}
    rows = [*ROWS, *(row | other | {"choices": ["step", "now"], "input": f"more {row['input']}"} for row in ROWS)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ["--task-model", f"hf:{toy / 'model'}", "--no_cache"]
    assert main(["eval", "--data", str(data), *model]) == 2
    assert "2 instructions ('solve the task', 'answer now', ...)" in capsys.readouterr().err
    assert main(["eval", "--data", str(data), "--instruction", "answer now", "--json", *model]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["instructions"]["initial"]["instruction"] == "answer now" and found["n"] == 8
    assert main(["eval", "--data", str(data), "--data", str(toy / "rows.jsonl"), *model]) == 2
    assert "this command takes one" in capsys.readouterr().err

    flags = ["--model-dir", str(run), "--strategy", "S", *model, "--fidelity-model", str(toy / "model"), "--json"]
    assert main(["rewrite", "--data", str(data), "--instruction", "please solve it", *flags]) == 2
    assert "2 instructions" in capsys.readouterr().err
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "instruction"}) + "\n" for row in ROWS))
    assert main(["rewrite", "--data", str(bare), "--instruction", "please solve it", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["instruction"] == "please solve it"


def test_eval_without_test_rows_says_so(toy, capsys):
    flags = ["eval", "--data", str(toy / "rows.jsonl"), "--no_hold_out_test", "--task-model", f"hf:{toy / 'model'}"]
    assert main([*flags, "--no-cache", "--split", "test"]) == 2
    assert "there are no test rows: hold_out_test is off" in capsys.readouterr().err
    assert main([*flags, "--no-cache"]) == 0
    assert main([*flags, "--with", " "]) == 2
    assert "--with is empty" in capsys.readouterr().err


def test_eval_says_what_it_measured_and_leaves_the_test_rows_closed(toy, tmp_path, capsys):
    model = ["--task-model", f"hf:{toy / 'model'}", "--no-cache"]
    data = toy / "rows.jsonl"
    assert main(["eval", "--data", str(data), *model]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(
        f"8 dev rows of {data} (no dev file: drawn from it by seed 0), answered by hf:{toy / 'model'}; label_match, "
        "answers read by likelihood:\n"
    )
    assert "test rows" not in printed.err
    assert main(["eval", "--data", str(data), *model, "--split", "test", "--seed", "3", "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "the test rows are opened" in printed.err
    assert [found[name] for name in ("data", "rows", "n", "drawn", "seed", "task_model", "decoding", "metric")] == [
        str(data), "test", 8, True, 3, f"hf:{toy / 'model'}", "likelihood", "label_match",
    ]  # fmt: skip
    for name in ("train", "dev", "test"):
        own = [row | {"input": f"{name} {row['input']}"} for row in ROWS]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    assert main(["eval", "--data", str(tmp_path), *model, "--limit", "4"]) == 0
    assert f"4 dev rows of {tmp_path / 'dev.jsonl'}, answered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "flags", "remedy"),
    [
        ({"input": "x", "label": "y"}, ["--instruction", "Judge."], "with --column-map output='<your column>'"),
        ({"input": "x", "output": "y"}, [], "or give one instruction for all rows (--instruction TEXT)"),
        (
            {"messages": [{"role": "user", "content": "x"}] * 3},
            ["--instruction", "Judge."],
            "--column-map input=messages[-2].content output=messages[-1].content",
        ),
    ],
)
def test_remedies_are_flags_on_the_command_line(row, flags, remedy, tmp_path, capsys):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(row) + "\n")
    assert main(["eval", str(data), *flags]) == 2
    error = capsys.readouterr().err
    assert remedy in error and "column_map=" not in error and "instruction=)" not in error


def test_eval_writes_every_row_and_its_answers_on_request(toy, tmp_path, capsys):
    flags = ["eval", "--data", str(toy / "rows.jsonl"), "--task-model", f"hf:{toy / 'model'}", "--no-cache"]
    assert main([*flags, "--with", "do it now", "--items", str(tmp_path / "items.jsonl")]) == 0
    assert f"Rows and answers: {tmp_path / 'items.jsonl'}" in capsys.readouterr().out
    items = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert len(items) == 8 and set(items[0]["answers"]) == {"initial", "instruction 1"}
    assert items[0]["gold"][0] in items[0]["input"] and items[0]["answers"]["initial"]["score"] in (0, 1)
    assert main([*flags, "--items", str(tmp_path)]) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err


def test_eval_compares_whole_prompts_with_several_task_models(run, toy, tmp_path, capsys):
    models = [f"hf:{toy / 'model'}", f"hf:{toy / 'model'}/"]
    flags = ["eval", "--data", str(toy / "rows.jsonl"), "--no-cache", "--task-model", models[0]]
    prompt = {**json.loads((run / "result.json").read_text())["prompt"], "instruction": "do it"}
    prompt["label_offsets"] = {"step": 9.0, "now": -9.0}
    (tmp_path / "prompt.json").write_text(json.dumps(prompt))
    flags += ["--prompt", str(tmp_path / "prompt.json")]
    assert main([*flags, "--task-model", models[1], "--items", str(tmp_path / "items.jsonl")]) == 0
    printed = capsys.readouterr().out
    *_, head, first, second, star, _ = printed.splitlines()
    assert head.split() == ["task", "model", "initial", "prompt", "1"] and "significantly" in star
    assert [line.split()[0] for line in (first, second)] == models and printed.count("8 dev rows of") == 2
    items = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [item["task_model"] for item in items] == [model for model in models for _ in range(8)]
    assert {item["answers"]["prompt 1"]["prediction"] for item in items} == {"now"}  # by the offsets alone
    assert main([*flags, "--task-model", models[1], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["task_models"]
    assert [one["task_model"] for one in found] == models and found[0]["instructions"]["prompt 1"]["mean"] == 0.5
    assert main([*flags, "--no-offsets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task_model"] == models[0]
    assert main([*flags, "--task-model", models[0]]) == 2
    assert "is given twice" in capsys.readouterr().err


def test_a_run_folder_alone_is_enough_to_go_on(run_copy, tmp_path, capsys):
    assert main(["train", "--resume", str(run_copy), "--max-steps", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["instruction"] == "solve the task" and found["test"]["n"] == 8
    metrics = [json.loads(line)["step"] for line in (run_copy / "metrics.jsonl").read_text().splitlines()]
    assert metrics == [0, 1, 2, 3]
    config = json.loads((run_copy / "config.json").read_text())
    assert config["config"]["output_dir"] == str(run_copy) and len(config["resumed"]) == 1
    for words, told in (
        ([str(tmp_path / "none")], "is not a run folder"),
        ([str(run_copy), "other"], "--resume takes one run folder"),
        ([str(run_copy), "--learning-rate", "1"], "learning_rate was 5e-06 and is 1.0"),
    ):
        assert main(["train", "--resume", *words]) == 2
        assert told in capsys.readouterr().err
    config["config"]["learning_rat"] = 1
    (run_copy / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", str(run_copy)]) == 2
    assert "config.json: 'learning_rat' is no setting of a training run" in capsys.readouterr().err


LATE = """
import os, sys
from prewrite.cli.main import main
os.environ["OLLAMA_HOST"] = "http://127.0.0.1:1"
rows, toy, folder = sys.argv[1:]
out = ["--output-dir", folder + "/new"]
for argv in (
    ["train", "--data", "nofile.jsonl", *out],
    ["train", "--data", rows, "--output-dir", rows],
    ["train", "--data", rows, "--resume", *out],
    ["train", "--data", rows, "--base-model", "nofolder/", *out],
    ["train", "--data", rows, "--base-model", toy, "--task-model", "ollama:m", *out],
    ["search", "--data", "nofile.jsonl", *out],
    ["search", "--data", rows, "--output-dir", rows],
    ["search", "--data", rows, "--rewriter", "nofolder/", *out],
    ["search", "--data", rows, "--task-model", "ollama:m", *out],
    ["rewrite", "--model-dir", folder, "--instruction", "Sort the mail."],
    ["rewrite", "--model-dir", folder + "/run", "--instruction", "Sort.", "--strategy", "S", "--data", "nofile"],
    ["rewrite", "--model-dir", folder + "/run", "--instruction", "solve", "--strategy", "S", "--data", rows,
     "--task-model", "ollama:m"],
    ["eval", "--data", "nofile.jsonl"],
    ["eval", "--data", rows, "--task-model", "hf:nofolder/"],
    ["ask", "--prompt", "nofile", "x"],
    ["warm-start", "--base-model", "nofolder/", *out],
    ["train-reward", "--run", folder, *out],
):
    code = main(argv)
    assert code == 2, argv
    assert "torch" not in sys.modules, argv
"""


def test_what_is_wrong_is_told_before_torch_is_imported(toy, tmp_path):
    (tmp_path / "run" / "rewriter").mkdir(parents=True)
    (tmp_path / "run" / "rewriter" / "rewriter.json").write_text("{}")
    given = [str(toy / "rows.jsonl"), str(toy / "model"), str(tmp_path)]
    asked = [sys.executable, "-c", LATE, *given]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_advice_of_libraries_that_a_user_cannot_act_on_is_not_shown():
    code = "from prewrite.cli.main import main; main(['cache', 'info']); import warnings\n"
    code += "warnings.warn('will change', FutureWarning); warnings.warn('look here', UserWarning)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "will change" not in done.stderr and "look here" in done.stderr


def test_the_overall_verdict_claims_what_the_single_ones_do():
    from prewrite.run.measure import overall

    def task(mean, significant):
        found = {"mean": mean, "significant": significant, "low": 0.01}
        return {"test": {"primary": "rewrite", "differences": {"rewrite": found}}}

    estimated = {"test": None, "dev": {"corrected": {"gain_low": 0.01, "gain_high": 0.2}}}
    verdict = overall([task(0.1, True), task(0.1, False), task(-0.1, True), estimated])
    assert verdict == "Of 4 instructions 2 gained significantly, 1 lost, and 1 changed too little to tell."


def test_the_test_may_be_a_sample(toy, tmp_path):
    assert main(train_flags(toy, tmp_path / "run", "--test_examples", "5")) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"]["n"] == 5


def test_an_existing_run_is_not_overwritten_unless_asked(run, toy, capsys):
    before = (run / "result.json").read_text()
    assert main(train_flags(toy, run)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (run / "result.json").read_text() == before


def test_resume_of_a_finished_run_trains_no_further(run_copy, toy):
    files = ("metrics.jsonl", "rollouts.jsonl", "rewrites.jsonl", "items.jsonl")
    lines = {name: (run_copy / name).read_text().count("\n") for name in files}
    before = json.loads((run_copy / "result.json").read_text())["cost"]
    assert main(train_flags(toy, run_copy, "--resume")) == 0
    assert {name: (run_copy / name).read_text().count("\n") for name in files} == lines
    after = json.loads((run_copy / "result.json").read_text())["cost"]
    assert after["task_model"]["prompts"] == before["task_model"]["prompts"]  # what training had asked counts on
    assert after["seconds"]["train"] > 0.9 * before["seconds"]["train"]


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("learning_rat: 1\n", ["learning_rat", "did you mean learning_rate"]),
        ("max_steps: many\n", ["max_steps", "whole number"]),
        ("max_steps: 2.5\n", ["max_steps", "whole number"]),
        ("lora: 3\n", ["lora", "true or false"]),
        ("reward_mode: f1\n", ["reward_mode", "'f1'", "token_f1"]),
        ("guards: [kind]\n", ["guard 'kind'", "drift"]),
        ("max_steps: 0\n", ["bad.yaml: max_steps is 0", "above 0"]),
        ("- a\n", ["name: value"]),
        ("a: [\n", ["YAML"]),
    ],
)
def test_bad_settings_name_file_field_value_and_rule(tmp_path, capsys, yaml, words):
    file = tmp_path / "bad.yaml"
    file.write_text(yaml)
    assert main(["train", "--config", str(file), "--data", "x.jsonl"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    for word in words:
        assert word in message


def test_bad_data_and_missing_models_exit_with_2(toy, tmp_path, capsys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"instruction": "a", "input": "b"}\n')
    assert main(train_flags(toy, tmp_path / "r1", "--dataset", str(bad))) == 2
    assert not (tmp_path / "r1").exists()
    flags = train_flags(toy, tmp_path / "r2")
    flags[flags.index("--task_model") + 1] = str(tmp_path / "nowhere")
    assert main(flags) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage: prewrite" in capsys.readouterr().out


def test_rewrites_remembered_from_training_are_ranked_within_their_update(tmp_path):
    from prewrite.run.measure import best_rollouts
    from prewrite.run_folder import RunFolder

    run = RunFolder(tmp_path)
    rows = [
        (1, "easy update, average", 0.9), (1, "easy update, worse", 0.7), (1, "easy update, best", 1.0),
        (2, "hard update, best", 0.6), (2, "hard update, worst", 0.0), (2, "", 0.9),
    ]  # fmt: skip
    run.append(
        run.rollouts, [{"step": s, "instruction": "a", "rewrite": text, "reward": reward} for s, text, reward in rows]
    )
    # leads over the update's mean: +0.13 in the first, +0.3 in the second (the empty rewrite is no candidate)
    found = [candidate.rewrite for candidate in best_rollouts(run, "a", 2)]
    assert found == ["hard update, best", "easy update, best"]
    assert best_rollouts(run, "another instruction", 2) == []


def test_a_budget_that_runs_out_says_what_is_saved_and_how_to_go_on(toy, tmp_path, capsys):
    flags = train_flags(toy, tmp_path / "run", "--max_task_calls", "30", "--save_steps", "1", "--max_steps", "9")
    assert main(flags) == 2
    message = capsys.readouterr().err
    assert "Estimate: at most" in message
    assert "max_calls" in message or "max calls" in message or "30" in message
    assert "--resume" in message and (tmp_path / "run" / "checkpoints").is_dir()
    assert not (tmp_path / "run" / "result.json").exists()


def test_eval_adds_other_task_models_to_the_report_of_a_run(run_copy, toy, tmp_path, capsys):
    shutil.copytree(toy / "model", tmp_path / "other")
    models = [f"hf:{toy / 'model'}", f"hf:{tmp_path / 'other'}"]
    flags = ["eval", "--data", str(toy / "rows.jsonl"), "--no-cache", "--run", str(run_copy)]
    flags += [word for model in models for word in ("--task-model", model)]
    for more in (["dev"], ["test"], ["test"], ["dev", "--no-offsets"]):  # the same once more stands once
        assert main([*flags, "--split", *more]) == 0
    assert f"Report: {run_copy / 'report.html'}" in capsys.readouterr().out
    page = (run_copy / "report.html").read_text(encoding="utf-8")
    (part,) = page.split("The same prompt with other task models")[1:]
    assert all(part.count(f'<b dir="auto">{model}</b>') == 3 for model in models)
    assert part.count("without its label offsets") == 2
    assert (run_copy / "report.md").read_text(encoding="utf-8").count("8 test rows of ") == 2
    assert main(["eval", "--data", str(toy / "rows.jsonl"), "--run", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
